"""Conversations, whatever wrote them, as canonical messages.

A message is an object with a role (system, user, assistant, tool) and a content that is text, and where there are such
with reasoning_content, tool_calls ([{id, type, function: {name, arguments as an object}}]), tool_call_id, name, and the
weight 0 of a turn that is not to be learned. Keys without a value are not there, so that equal conversations are equal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...contract import Reason, canonical_json
from ...contract.parsing import Unreadable, check_levels
from ...errors import DataInvalid
from .keys import CALL_KEYS, FLAGS, PART_KEYS, ROLE_KEYS, check_message, check_part, is_absent, plain
from .readers import LEVELS, UnusableKey, json_value

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
SAME_ROLES = {"developer": "system", "function": "tool"}
KNOWN_ROLES = (*ROLES, *SAME_ROLES)
SHOWN = 80
RESERVED = re.compile("[\ufdd0-\ufdd2]")
"""Noncharacters of Unicode, by which `encoding.marks` marks what people wrote."""
_LISTED = re.compile(r"\s*\[?\s*\{")
_ROLE_OF_PYTHON = rf"'role'\s*:\s*'(?:{'|'.join(KNOWN_ROLES)})'"
_OF_PYTHON = re.compile(
    rf"\s*\[?\s*\{{\s*(?:{_ROLE_OF_PYTHON}\s*,\s*'content'\s*:|'content'\s*:.*{_ROLE_OF_PYTHON})", re.DOTALL
)
_TOOL_KEYS = {"input_schema": "parameters", "inputSchema": "parameters"}
"""What Anthropic's tools, and those of MCP, call the same."""
PARTS = {
    "tool_use": "write calls as tool_calls of the message",
    "tool_result": "write what a tool answered as a message of the role tool",
    "thinking": "write thoughts as reasoning_content of the message",
    "refusal": "write a refusal as text",
}
TEXTS = ("text", "input_text", "output_text")
"""Types of a part of a content that is text; the latter are those of OpenAI's Responses."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thinking_content")
HINTS = {
    "human": "ShareGPT's human is user",
    "gpt": "ShareGPT's gpt is assistant",
    "model": "write model as assistant",
    "bot": "write bot as assistant",
    "ipython": "write ipython as tool",
    "observation": "write observation as tool",
    "tool_call": "write tool_call as assistant, with the call in tool_calls",
    "tool_response": "write tool_response as tool",
    "chatbot": "write chatbot as assistant",
}
_THOUGHT_ABOUT = re.compile(r"\s*<think>(.*?)</think>[\r\n]*", re.DOTALL)


def read_messages(
    value: Any, place: str, ignore: Collection[str] = (), ignored: Callable[[str], None] = lambda _: None
) -> tuple[Message, ...]:
    """Return a list of messages, as OpenAI has them, as canonical ones.

    Args:
        value: a list of objects, or the same as JSON text.
        place: for messages.
        ignore: keys of messages that are left out.
        ignored: is told which these were.

    Raises:
        DataInvalid: DATASET_MALFORMED; FORMAT_UNKNOWN for roles and keys that are not understood.
    """
    value = from_text(value, place, "messages")
    if not isinstance(value, list) or not value:
        raise malformed(place, "lacks messages, a list of {role, content}")
    return tuple(_message(message, f"{place}, message {n}", ignore, ignored) for n, message in enumerate(value, 1))


def read_tools(value: Any, place: str) -> tuple[dict[str, Any], ...] | None:
    """Return the tools of a conversation, `[{type: function, function: {name, ...}}]`; None where it has none.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    if is_absent(value):
        return None
    value = from_text(value, place, "tools")
    if isinstance(value, list):
        value = [from_text(tool, place, "tools") for tool in value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise malformed(place, "has tools that are no list of objects")
    tools = []
    for tool in value:
        function = tool.get("function", tool)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise malformed(place, "has a tool without a name: a tool is {type: function, function: {name, ...}}")
        if function is tool:
            function = {_TOOL_KEYS.get(name, name): each for name, each in tool.items() if name != "type"}
        tools.append({"type": "function", "function": function})
    _check_texts(tools, place, "tools")
    return tuple(tools)


def spoken(message: Message) -> str:
    """Return all that a message says, as text for people and for comparison: thoughts, content, calls."""
    calls = [canonical_json(call["function"]).decode() for call in message.get("tool_calls", ())]
    return "\n".join(filter(None, [message.get("reasoning_content"), message["content"], *calls]))


def is_learned(message: Message) -> bool:
    """Tell whether a message is an assistant's turn that is to be learned."""
    return message["role"] == "assistant" and message.get("weight") != 0


def text(value: Any, key: str, place: str) -> str:
    """Return a text that can be written and marked.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    if not isinstance(value, str):
        raise malformed(place, f"lacks {key}" if value is None else f"has a {key} that is no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise malformed(place, f"has half of a surrogate pair in its {key}") from None
    if found := RESERVED.search(value):
        raise malformed(place, f"has U+{ord(found.group()):04X} in its {key}, which Unicode says is no character")
    return value


def from_text(value: Any, place: str, key: str) -> Any:
    """Return a value that some files hold as JSON text.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    if not isinstance(value, str):
        return value
    try:
        found = json_value(value)
    except UnusableKey as error:
        raise malformed(place, f"has {key} in which an object {error}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits is no JSONDecodeError
        raise malformed(place, f"has {key} that are text, but no JSON") from None
    try:
        check_levels(found, LEVELS)
    except Unreadable:
        raise malformed(place, f"has {key} that are nested too deeply") from None
    return found


def unpacked(value: Any, key: str, place: str) -> Any:
    """Return messages that a file holds as JSON text; any other text as it is.

    Raises:
        DataInvalid: DATASET_MALFORMED, they are as Python writes them, and would be learned as that text.
    """
    if not isinstance(value, str) or not _LISTED.match(value):
        return value
    if _OF_PYTHON.match(value):
        raise malformed(place, f"has messages under {key} as Python writes them, not as JSON")
    try:
        found = json_value(value)
    except (ValueError, RecursionError):
        return value
    listed = found if isinstance(found, list) else [found]
    return found if listed and all(map(_is_message, listed)) else value


def _is_message(value: Any) -> bool:
    """Tell a message from an object that is an answer itself, such as a person whose role is developer."""
    says = isinstance(value, dict) and any(key in value for key in ("content", "tool_calls", "function_call"))
    return says and value.get("role") in KNOWN_ROLES


def shortened(value: Any) -> str:
    """Return a value as it stands in Python, at most 80 characters of it."""
    return shown if len(shown := repr(value)) <= SHOWN else shown[:SHOWN] + "..."


def malformed(place: str, trouble: str) -> DataInvalid:
    """Return the refusal of one row."""
    return DataInvalid(f"{place} {trouble}; correct or remove it", Reason.DATASET_MALFORMED)


def _message(value: Any, place: str, ignore: Collection[str], ignored: Callable[[str], None]) -> Message:
    if not isinstance(value, dict):
        raise malformed(place, "is not an object")
    if "from" in value and "value" in value:
        raise DataInvalid(f"{place} has from and value; name them role and content", Reason.FORMAT_UNKNOWN)
    named = value.get("role")
    role = SAME_ROLES.get(named, named) if isinstance(named, str) else named
    if role not in ROLES:
        small = role.strip().lower() if isinstance(role, str) else ""
        hint = f"; {HINTS[small]}" if small in HINTS else f"; write it as {small}" if small in ROLES else ""
        raise DataInvalid(f"{place}: role {shortened(role)} is none of {', '.join(ROLES)}{hint}", Reason.FORMAT_UNKNOWN)
    given = {}
    for key, each in value.items():
        if key in ignore and key not in ("role", "content"):
            ignored(f"messages.{key}")
        elif not is_absent(each):
            given[key] = each
    check_message(given, role, place)
    known = {plain(key): each for key, each in given.items() if plain(key) in ROLE_KEYS[role]}
    if "function_call" in known:
        # OpenAI's former way to write the only call of a turn.
        if "tool_calls" in known:
            raise malformed(place, "has both tool_calls and function_call")
        known["tool_calls"] = [from_text(known["function_call"], place, "function_call")]
    dropped = _Dropped(ignore, ignored)
    message: Message = {"role": role, "content": _content(value.get("content"), "tool_calls" in known, place, dropped)}
    thoughts = [text(known[key], key, place) for key in THOUGHTS if key in known]
    if len(set(thoughts)) > 1:
        raise malformed(place, "has thoughts under two keys that differ")
    if thoughts:
        if also := _THOUGHT_ABOUT.match(message["content"]):
            # Some servers answer with both.
            if also[1].strip() != thoughts[0].strip():
                raise malformed(place, "has other thoughts in its content than under a key of their own")
            message["content"] = message["content"][also.end() :]
        message["reasoning_content"] = thoughts[0]
    if "tool_calls" in known:
        message["tool_calls"] = _calls(known["tool_calls"], place, dropped)
    for key in ("name", "tool_call_id"):
        if key in known:
            message[key] = text(known[key], key, place)
    if role == "assistant" and not _is_to_be_learned(given, place):
        message["weight"] = 0
    return message


def _is_to_be_learned(given: Mapping[str, Any], place: str) -> bool:
    """Tell whether an answer is to be learned, by its weight or a flag of another name.

    Raises:
        DataInvalid: DATASET_MALFORMED, two of them differ.
    """
    said = {
        key: value != 0 if plain(key) == "weight" else value is FLAGS[plain(key)]
        for key, value in given.items()
        if plain(key) == "weight" or plain(key) in FLAGS
    }
    if len(set(said.values())) > 1:
        raise malformed(place, f"has {' and '.join(said)}, of which one says that it is learned and one that it is not")
    return all(said.values())


@dataclass(frozen=True)
class _Dropped:
    """Keys that are left out, and who is told which these were."""

    ignore: Collection[str]
    told: Callable[[str], None]

    def check(self, value: Mapping[str, Any], known: Collection[str], what: str, name: str, place: str) -> None:
        """Refuse a key that is neither known nor left out."""
        for key in check_part(value, known, what, place, self.ignore):
            self.told(f"messages.{name}.{key}")


def _content(value: Any, may_lack: bool, place: str, dropped: _Dropped) -> str:
    if value is None and may_lack:
        return ""
    if not isinstance(value, list):
        return text(value, "content", place)
    parts = []
    for part in value:
        # Bedrock's parts have no type.
        bare = isinstance(part, dict) and set(part) == {"text"}
        kind = "text" if bare else part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or kind not in TEXTS:
            what = f"of type {shortened(kind)}" if isinstance(kind, str) else "without a type"
            hint = f" ({PARTS[kind]})" if isinstance(kind, str) and kind in PARTS else ""
            raise malformed(place, f"has a content with a part {what}, and only parts of type text are learned{hint}")
        dropped.check(part, PART_KEYS, "a part of type text", "content", place)
        parts.append(text(part.get("text"), "text", place))
    return "\n".join(parts)


def _calls(value: Any, place: str, dropped: _Dropped) -> list[dict[str, Any]]:
    value = from_text(value, place, "tool_calls")
    if not isinstance(value, list):
        raise malformed(place, "has tool_calls that are no list")
    calls = []
    for call in value:
        function = call.get("function", call) if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name.strip():
            raise malformed(place, "has a tool call without a name: a call is {function: {name, arguments}}")
        for each in (call,) if function is call else (call, function):
            dropped.check(each, CALL_KEYS, "a tool call", "tool_calls", place)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = from_text(arguments, place, "arguments of a tool call") if arguments.strip() else {}
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            raise malformed(place, "has a tool call whose arguments are no object")
        read: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
        if isinstance(call.get("id"), str):
            read["id"] = call["id"]
        calls.append(read)
    _check_texts(calls, place, "tool_calls")
    return calls


def _check_texts(value: Any, place: str, key: str) -> None:
    if isinstance(value, str):
        text(value, key, place)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            text(name, key, place)
            _check_texts(each, place, key)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_texts(each, place, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise malformed(place, f"has the number {value} in its {key}, which JSON does not have")
    elif value is not None and not isinstance(value, int | float):  # of a table
        raise malformed(place, f"has a {type(value).__name__} in its {key}, which JSON does not have")
