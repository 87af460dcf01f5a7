"""The formats Messages, PromptCompletion and Text: recognised by the first row's keys, then demanded of every row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..contract import DatasetFormat, Reason, canonical_json
from ..errors import DataInvalid
from .keys import USED, check_message, check_row
from .source import Record

ROLES = ("system", "user", "assistant")
HINTS = {
    "conversations": "ShareGPT: rename conversations/from/value to messages/role/content, roles to user and assistant",
    "instruction": "Alpaca: write instruction and input as prompt, output as completion",
    "human": "ShareGPT's human is user",
    "gpt": "ShareGPT's gpt is assistant",
    "model": "write model as assistant",
    "bot": "write bot as assistant",
    "developer": "OpenAI's developer is system",
    "tool": "tool calls are not supported",
    "function": "tool calls are not supported",
    "chosen": "preferences are not supported: give the answers to learn as messages, or as prompt and completion",
}

Message = dict[str, str]


@dataclass(frozen=True)
class Row:
    """One row that conforms to its format."""

    place: str
    format: DatasetFormat
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""
    text: str = ""
    group: str | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Columns that are not used, sorted."""

    @property
    def answer(self) -> str:
        """What is learned from the row, as text: the unit that must not be on two sides of a split."""
        if self.format is DatasetFormat.MESSAGES:
            return "\n".join(message["content"] for message in self.messages if message["role"] == "assistant")
        return self.completion if self.format is DatasetFormat.PROMPT_COMPLETION else self.text

    @property
    def has_assistant_turn(self) -> bool:
        """Tell whether there is anything to learn at all."""
        return self.format is not DatasetFormat.MESSAGES or any(m["role"] == "assistant" for m in self.messages)

    def to_json(self) -> bytes:
        """Return the row in its own format, without columns that are not used, as canonical JSON."""
        if self.format is DatasetFormat.MESSAGES:
            value: dict[str, Any] = {"messages": list(self.messages)}
        elif self.format is DatasetFormat.PROMPT_COMPLETION:
            value = {"prompt": self.prompt, "completion": self.completion}
        else:
            value = {"text": self.text}
        return canonical_json(value if self.group is None else value | {"group": self.group})


def resolve(row_format: DatasetFormat, records: Iterator[Record]) -> DatasetFormat:
    """Return the format that is demanded, or that of the first row.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    if row_format is not DatasetFormat.AUTO:
        return row_format
    first = next(records, None)
    return DatasetFormat.TEXT if first is None else recognise(first)


def recognise(record: Record) -> DatasetFormat:
    """Return the format of a data set from its first row.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    if isinstance(record.value, dict):
        for row_format, keys in USED.items():
            if all(record.value.get(key) is not None for key in keys):
                check_row(record.value, row_format, record.place, guessed=True)
                return row_format
    found = sorted(record.value)[:8] if isinstance(record.value, dict) else type(record.value).__name__
    hint = next((f" ({HINTS[key]})" for key in found if key in HINTS), "")
    raise DataInvalid(
        f"{record.place}: the format is unknown: it has {found}; a row is {{messages: [{{role, content}}]}}, "
        f"{{prompt, completion}} or {{text}}{hint}",
        Reason.FORMAT_UNKNOWN,
    )


def conform(record: Record, row_format: DatasetFormat, *, guessed: bool = False) -> Row:
    """Return a record as a row of the format; `guessed` says that nobody named the format.

    Raises:
        DataInvalid: DATASET_MALFORMED, or FORMAT_UNKNOWN for roles and keys of another format, and for keys that mean
            something that would not be learned.
    """
    value, place = record.value, record.place
    if not isinstance(value, dict):
        raise _malformed(place, f"is a JSON {type(value).__name__}, not an object")
    ignored = check_row(value, row_format, place, guessed=guessed)
    group = _group(value.get("group"), place)
    if row_format is DatasetFormat.MESSAGES:
        return Row(place, row_format, messages=_messages(value.get("messages"), place), group=group, ignored=ignored)
    if row_format is DatasetFormat.PROMPT_COMPLETION:
        prompt, completion = _text(value, "prompt", place), _text(value, "completion", place)
        return Row(place, row_format, prompt=prompt, completion=completion, group=group, ignored=ignored)
    return Row(place, row_format, text=_text(value, "text", place), group=group, ignored=ignored)


def _messages(value: Any, place: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _malformed(place, "lacks messages, a list of {role, content}")
    messages = []
    for number, message in enumerate(value, 1):
        at = f"{place}, message {number}"
        if not isinstance(message, dict):
            raise _malformed(at, "is not an object")
        if "from" in message and "value" in message:
            raise DataInvalid(f"{at} has from and value; {HINTS['conversations']}", Reason.FORMAT_UNKNOWN)
        role = message.get("role")
        if role not in ROLES:
            hint = f"; {HINTS[role]}" if isinstance(role, str) and role in HINTS else ""
            raise DataInvalid(f"{at}: role {role!r} is none of {', '.join(ROLES)}{hint}", Reason.FORMAT_UNKNOWN)
        check_message(message, at)
        messages.append({"role": str(role), "content": _text(message, "content", at)})
    return tuple(messages)


def _text(value: dict[str, Any], key: str, place: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise _malformed(place, f"lacks {key}" if text is None else f"has a {key} that is no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _malformed(place, f"has half of a surrogate pair in its {key}") from None
    return text


def _group(value: Any, place: str) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int):
        return str(value)
    raise _malformed(place, "has a group that is no text")


def _malformed(place: str, trouble: str) -> DataInvalid:
    return DataInvalid(f"{place} {trouble}; correct or remove it", Reason.DATASET_MALFORMED)
