"""Marks within what people wrote: they tell where a template put it, exactly, whatever it did in between.

Noncharacters of Unicode stand for them, which no text that is exchanged may hold, so rows with one are refused.
A mark begins behind a text's first blanks and tags, and ends before its last ones, because templates strip the former
and look for the latter (`content.split('</think>')`). Whether a template was led astray all the same is seen
by rendering twice, with marks and without: less its marks the text must be the same.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OPEN, CLOSE, BREAK = "\ufdd0", "\ufdd1", "\ufdd2"
"""Around the number of a mark; and within a control token that stands in a text, so that it is none."""
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")

THOUGHTS = re.compile(r"</?(?:think|thinking|thought|thoughts|reasoning)>|\[/?THINK\]")
"""Tags within an answer that tell its thoughts from what is said; some templates take them apart there."""
TAG = r"(?:</?[^<>\s]{1,64}>|\[/?[A-Z_]+\])"
_BEFORE = re.compile(rf"(?:\s|{TAG})*")
_TAIL = re.compile(rf"(?:{TAG}|/(?:no_?)?think)\Z")
_TAIL_LENGTH = 72

TOOLS = -1
"""Instead of the number of a message."""


@dataclass(frozen=True)
class Piece:
    """A stretch of what was written, between two marks: of which message, under which key, and the tags behind it.

    `thought`: templates may leave it out of turns that are not the last, as they do with reasoning.
    """

    message: int
    key: str
    tail: str = ""
    thought: bool = False


@dataclass
class Marked:
    """A conversation with marks in it; mark 2n begins piece n, mark 2n + 1 ends it."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class Places:
    """Where the marks of a rendered text are, once they are taken out of it.

    `starts` and `ends` map pieces to positions; a piece that is not there was left out.
    """

    text: str
    starts: dict[int, list[int]]
    ends: dict[int, list[int]]
    _shifts: tuple[tuple[int, int], ...]

    def without(self, position: int) -> int:
        """Return the position of the text without marks that one with marks has become."""
        index = bisect_right(self._shifts, (position, sys.maxsize))
        return position - (self._shifts[index - 1][1] if index else 0)


def mark(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None) -> Marked:
    """Return a conversation with marks around each text that a template has to render.

    Names of tools and of functions are marked, and the texts within arguments; numbers cannot be.
    """
    marked = Marked([], None)

    def around(text: str, message: int, key: str, thought: bool = False) -> str:
        begin, end = _inner(text)
        if begin == end:
            return text
        number = 2 * len(marked.pieces)
        marked.pieces.append(Piece(message, key, text[end:].rstrip(), thought))
        inner = f"{OPEN}{number}{CLOSE}{text[begin:end]}{OPEN}{number + 1}{CLOSE}"
        return text[:begin] + inner + text[end:]

    def spoken(text: str, message: int, before_calls: bool) -> str:
        parts, begin = [], 0
        for tag in THOUGHTS.finditer(text):
            thought = begin == 0 or bool(text[tag.end() :].strip())
            parts += [around(text[begin : tag.start()], message, "content", thought), tag.group()]
            begin = tag.end()
        return "".join([*parts, around(text[begin:], message, "content", before_calls)])

    for number, message in enumerate(messages):
        copy = dict(message)
        if "reasoning_content" in message:
            copy["reasoning_content"] = around(message["reasoning_content"], number, "reasoning_content", True)
        if message["role"] == "assistant":
            copy["content"] = spoken(message["content"], number, "tool_calls" in message)
        else:
            copy["content"] = around(message["content"], number, "content")
        if message["role"] != "tool" and "name" in message:
            copy["name"] = around(message["name"], number, "name")
        if "tool_calls" in message:
            copy["tool_calls"] = [_call(call, number, around) for call in message["tool_calls"]]
        marked.messages.append(copy)
    if tools is not None:
        marked.tools = [_tool(tool, around) for tool in tools]
    return marked


def places(rendered: str) -> Places:
    """Take the marks out of a text."""
    parts: list[str] = []
    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    shifts = []
    begin = length = removed = 0
    for found in MARK.finditer(rendered):
        parts.append(rendered[begin : found.start()])
        length += found.start() - begin
        begin = found.end()
        removed += found.end() - found.start()
        piece, is_end = divmod(int(found.group(1)), 2)
        (ends if is_end else starts).setdefault(piece, []).append(length)
        shifts.append((found.end(), removed))
    parts.append(rendered[begin:])
    return Places("".join(parts), starts, ends, tuple(shifts))


def texts(value: Any, change: Callable[[str], str], *, keys: Callable[[str], str] = str) -> Any:
    """Return a JSON value with every text in it changed, and with `keys` the keys of objects, which are left else."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {keys(key): texts(each, change, keys=keys) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [texts(each, change, keys=keys) for each in value]
    return value


def _inner(text: str) -> tuple[int, int]:
    """Return where a text begins and ends without the blanks and tags around it; without the blanks if nothing is left.

    Both are found in one pass: texts may be of a million characters.
    """
    found = _BEFORE.match(text)
    begin, end = found.end() if found else 0, len(text)
    while True:
        while end > begin and text[end - 1].isspace():
            end -= 1
        tail = _TAIL.search(text[max(begin, end - _TAIL_LENGTH) : end])
        if tail is None:
            break
        end -= len(tail.group())
    if begin < end:
        return begin, end
    stripped = text.strip()
    begin = text.index(stripped)
    return begin, begin + len(stripped)


def _call(call: Mapping[str, Any], message: int, around: Callable[..., str]) -> dict[str, Any]:
    function = call["function"]
    name = around(function["name"], message, "tool_calls")
    arguments = texts(function["arguments"], lambda text: around(text, message, "tool_calls"))
    return {**call, "function": {**function, "name": name, "arguments": arguments}}


def _tool(tool: Any, around: Callable[..., str]) -> Any:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return tool
    return {**tool, "function": {**function, "name": around(function["name"], TOOLS, "tools")}}
