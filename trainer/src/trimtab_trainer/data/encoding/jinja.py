"""A compiled chat template, run in transformers' sandbox, and the shapes in which templates want what they are given.

Templates differ in what they take for the same conversation: contents as text or as lists of parts, nothing or an empty
text beside tool calls, arguments as an object or as JSON. An engine finds that out, so it is found out here.

The sandbox keeps a template from everything but computing, and it bounds a loop but no loop within a loop. So the time
of the processor that a template may take for one conversation is bounded here, and the text that it makes of it.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any

import jinja2

from ...contract import Reason
from ...errors import SettingsInvalid

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
TODAY = datetime(2024, 7, 26)
"""The date that templates which ask for it are told: the same rows give the same tokens on every day."""
SECONDS = 30.0
"""Most time of the processor for one conversation; a million characters take less than one second."""
CHARACTERS = 1 << 28
"""Most characters that a conversation becomes."""

_FAILURES = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError),
)
"""With which an expression of a template ends."""


class Refused(Exception):
    """The template refuses this conversation (roles that must alternate, no system turn, ...)."""


@dataclass(frozen=True)
class Shape:
    """How a conversation is handed to a template."""

    parts: bool = False
    nothing: bool = False
    json_arguments: bool = False


SHAPES = tuple(
    Shape(parts, nothing, json_arguments)
    for parts in (False, True)
    for json_arguments in (False, True)
    for nothing in (False, True)
)


class Jinja:
    """A compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile it.

        Raises:
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        from transformers.utils import chat_template_utils

        if not isinstance(source, str):
            raise invalid(f"it is no text but a {type(source).__name__}")
        self.marked = bool(GENERATION.search(source))
        self._special_tokens = special_tokens
        try:
            with _bounded():  # what is constant in a template is computed here
                self._template: Any = chat_template_utils._compile_jinja_template(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, ValueError) as error:
            # Jinja's translation is compiled by Python, which bears fewer levels.
            raise invalid(f"it does not compile: {error}") from error
        self._template.globals["strftime_now"] = TODAY.strftime

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, shape: Shape, *, ask: bool = False
    ) -> str:
        """Return the text of a conversation; `ask` adds what asks for the next answer.

        Raises:
            Refused
            SettingsInvalid: CHAT_TEMPLATE_INVALID, it comes to no end.
        """
        try:
            with _bounded():
                variables = self._variables(tools, ask)
                return "".join(_counted(self._template.generate(messages=shaped(messages, shape), **variables)))
        except _FAILURES as error:
            raise _failed(error) from error

    def generated(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, shape: Shape
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation, and where the template's `{% generation %}` blocks are in it.

        Raises:
            Refused
            SettingsInvalid: as of `render`.
        """
        blocks: list[str] = []
        spans: list[tuple[int, int]] = []
        try:
            with _bounded(), self._template.environment.activate_tracker(blocks, spans):
                variables = self._variables(tools, ask=False)
                for block in _counted(self._template.generate(messages=shaped(messages, shape), **variables)):
                    blocks.append(block)
        except _FAILURES as error:
            raise _failed(error) from error
        return "".join(blocks), spans

    def _variables(self, tools: Sequence[Any] | None, ask: bool) -> dict[str, Any]:
        return {"add_generation_prompt": ask, "tools": tools, "documents": None, **self._special_tokens}


def shapes_of(messages: Sequence[Mapping[str, Any]]) -> tuple[Shape, ...]:
    """Return the shapes that differ for a conversation."""
    calls = any("tool_calls" in message for message in messages)
    blank = any("tool_calls" in message and not message["content"] for message in messages)
    return tuple(shape for shape in SHAPES if (calls or not shape.json_arguments) and (blank or not shape.nothing))


def shaped(messages: Sequence[Mapping[str, Any]], shape: Shape) -> list[dict[str, Any]]:
    """Return canonical messages as a template wants them.

    Thoughts are given under each name that templates know them by.
    """
    result = []
    for message in messages:
        each = {key: value for key, value in message.items() if key != "weight"}
        if "reasoning_content" in each:
            each |= {"reasoning": each["reasoning_content"], "thinking": each["reasoning_content"]}
        if "tool_calls" in each:
            if shape.nothing and not each["content"]:
                each["content"] = None
            if shape.json_arguments:
                each["tool_calls"] = [_json_arguments(call) for call in each["tool_calls"]]
        if shape.parts and each["content"] is not None:
            each["content"] = [{"type": "text", "text": each["content"]}]
        result.append(each)
    return result


class _TooLong(BaseException):
    """The time is over; none of the errors that a template's expressions end with."""


@contextmanager
def _bounded() -> Iterator[None]:
    """Give the block so much time of the processor, which other work on the machine takes nothing of.

    Only the main thread of a process can be told that it is over; all templates of people are rendered in one.

    Raises:
        SettingsInvalid: CHAT_TEMPLATE_INVALID, it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    except _TooLong:
        raise invalid(
            f"it takes more than {SECONDS:g} s for one conversation; look for loops within loops, or give another one "
            "by dataset.chatTemplate"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _over(number: int, frame: FrameType | None) -> None:
    raise _TooLong


def _counted(blocks: Iterable[str]) -> Iterator[str]:
    """Yield the blocks of a text.

    Raises:
        SettingsInvalid: CHAT_TEMPLATE_INVALID, there is no end of them.
    """
    length = 0
    for block in blocks:
        length += len(block)
        if length > CHARACTERS:
            raise invalid(f"it makes more than {CHARACTERS:,} characters of one conversation")
        yield block


def _failed(error: Exception) -> Refused:
    return Refused(str(error) or type(error).__name__)


def _json_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def invalid(trouble: str) -> SettingsInvalid:
    """Return the refusal of a chat template that cannot be used."""
    return SettingsInvalid(f"the chat template cannot be used: {trouble}", Reason.CHAT_TEMPLATE_INVALID)
