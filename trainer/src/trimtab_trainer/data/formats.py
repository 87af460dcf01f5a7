"""The formats of rows: recognised by the first row's keys, then demanded of every row."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..contract import DatasetFormat, Reason, canonical_json
from ..errors import DataInvalid
from .conversions import alpaca, sharegpt
from .keys import USED, check_row
from .messages import Message, is_learned, malformed, read_messages, read_tools, spoken, text
from .readers import Record

NAMED = "dataset.format says so"
HINTS = {
    "chosen": "preferences are not supported yet: give the answers to learn as messages, or as prompt and completion",
    "rejected": "preferences are not supported yet: give the answers to learn as messages, or as prompt and completion",
    "preferred_output": "preferences are not supported yet: give the answers to learn as messages",
    "question": "write question and answer as prompt and completion",
    "input": "write input and output as prompt and completion",
}


@dataclass(frozen=True)
class Row:
    """One row that conforms to its format; rows of Alpaca and ShareGPT are Messages by then."""

    place: str
    format: DatasetFormat
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] | None = None
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
            return "\n".join(spoken(message) for message in self.messages if is_learned(message))
        return self.completion if self.format is DatasetFormat.PROMPT_COMPLETION else self.text

    @property
    def has_assistant_turn(self) -> bool:
        """Tell whether there is anything to learn at all."""
        return self.format is not DatasetFormat.MESSAGES or any(m["role"] == "assistant" for m in self.messages)

    @property
    def is_learned(self) -> bool:
        """Tell whether not all that is to be learned has the weight 0."""
        return self.format is not DatasetFormat.MESSAGES or any(map(is_learned, self.messages))

    def to_json(self) -> bytes:
        """Return the row in its own format, without columns that are not used, as canonical JSON."""
        if self.format is DatasetFormat.MESSAGES:
            value: dict[str, Any] = {"messages": list(self.messages)}
            if self.tools is not None:
                value["tools"] = list(self.tools)
        elif self.format is DatasetFormat.PROMPT_COMPLETION:
            value = {"prompt": self.prompt, "completion": self.completion}
        else:
            value = {"text": self.text}
        return canonical_json(value if self.group is None else value | {"group": self.group})


@dataclass(frozen=True)
class Detected:
    """A format and why it is that one, in words for a person; `guessed`: nobody named it."""

    format: DatasetFormat
    why: str
    guessed: bool = True


def resolve(
    row_format: DatasetFormat, records: Iterator[Record], ignore: Collection[str] = (), named: Collection[str] = ()
) -> Detected:
    """Return the format that is demanded, or that of the first row; keys as `conform` takes them.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    if row_format is not DatasetFormat.AUTO:
        return Detected(row_format, NAMED, guessed=False)
    first = next(records, None)
    return Detected(DatasetFormat.TEXT, "there are no rows") if first is None else recognise(first, ignore, named)


def recognise(record: Record, ignore: Collection[str] = (), named: Collection[str] = ()) -> Detected:
    """Return the format of a data set from its first row.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    if isinstance(record.value, dict):
        for row_format, keys in USED.items():
            if all(record.value.get(key) is not None for key in keys):
                check_row(record.value, row_format, record.place, guessed=True, ignore=ignore, named=named)
                return Detected(row_format, f"the first row, {record.place}, has {' and '.join(keys)}")
    found = sorted(record.value)[:8] if isinstance(record.value, dict) else type(record.value).__name__
    hint = next((f" ({hint})" for key, hint in HINTS.items() if key in found), "")
    raise DataInvalid(
        f"{record.place}: the format is unknown: it has {found}; a row is {{messages: [{{role, content}}]}}, "
        "{prompt, completion}, {text}, Alpaca's {instruction, input, output} or ShareGPT's {conversations: [{from, "
        f"value}}]}}{hint}",
        Reason.FORMAT_UNKNOWN,
    )


def conform(
    record: Record,
    row_format: DatasetFormat,
    *,
    guessed: bool = False,
    ignore: Collection[str] = (),
    named: Collection[str] = (),
) -> Row:
    """Return a record as a row of the format.

    Args:
        record: as it was read.
        row_format: any but Auto.
        guessed: nobody named the format.
        ignore: keys of the row and of its messages that are left out, whatever they mean.
        named: columns that settings name, which are not refused; what the format uses of them is used.

    Raises:
        DataInvalid: DATASET_MALFORMED, or FORMAT_UNKNOWN for roles and keys of another format, and for keys that mean
            something that would not be learned.
    """
    value, place = record.value, record.place
    if not isinstance(value, dict):
        raise malformed(place, f"is a JSON {type(value).__name__}, not an object")
    ignored = set(check_row(value, row_format, place, guessed=guessed, ignore=ignore, named=named))
    value = {key: each for key, each in value.items() if key in USED[row_format] or key not in ignored}
    group = _group(value.get("group"), place)
    if row_format is DatasetFormat.PROMPT_COMPLETION:
        prompt, completion = (
            text(value.get("prompt"), "prompt", place),
            text(value.get("completion"), "completion", place),
        )
        return Row(place, row_format, prompt=prompt, completion=completion, group=group, ignored=_sorted(ignored))
    if row_format is DatasetFormat.TEXT:
        written = text(value.get("text"), "text", place)
        return Row(place, row_format, text=written, group=group, ignored=_sorted(ignored))
    if row_format is DatasetFormat.MESSAGES:
        listed = value.get("messages")
    else:
        listed = (alpaca if row_format is DatasetFormat.ALPACA else sharegpt)(value, place)
    messages = read_messages(listed, place, ignore, ignored.add)
    tools = read_tools(value.get("tools"), place)
    return Row(
        place, DatasetFormat.MESSAGES, messages=messages, tools=tools, group=group, ignored=_sorted(ignored)
    )  # fmt: skip


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _group(value: Any, place: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, int):
        return str(value)
    return text(value, "group", place)
