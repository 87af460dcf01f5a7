"""The formats of rows: recognised by the first row's keys, then demanded of every row; what a method takes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...contract import DatasetFormat, Method, Reason, canonical_json
from ...errors import DataInvalid
from .conversions import alpaca, sharegpt
from .keys import USED, as_written, check_row, is_absent, plain
from .messages import Message, is_learned, malformed, read_messages, read_tools, spoken, text, unpacked
from .preferences import Answers, Reader, given, renamed
from .readers import Record

NAMED = "dataset.format says so"
PAIRS = "pairs of chosen and rejected answers are learned by training.method: DPO or ORPO"
HINTS = {
    "chosen": PAIRS,
    "rejected": PAIRS,
    "preferred_output": PAIRS,
    "question": "write question and answer as prompt and completion",
    "response": "name the response completion beside a prompt, or output beside an instruction",
    "conversation": "name the conversation conversations, or messages where its turns have role and content",
    "contents": "write contents as messages, and their parts as content",
    "input": "write input and output as prompt and completion",
    "segments": "write segments as messages, or as prompt and completion",
    "problem": "write problem and solution as prompt and completion",
    "query": "write query and response as prompt and completion",
    "input_text": "write input_text and output_text as prompt and completion",
    "text_input": "write text_input and output as prompt and completion",
    "body": "write the messages of requests with their answers as messages",
    "role": "a message alone is no conversation: a row has all of one, as a list under messages",
    "data": "give the list of rows alone",
    "rows": "give the list of rows alone",
    "train": "give the list of rows alone",
}
ALL_IN_ONE = "a row that is a list of messages is written {messages: [...]}"
IN_UNPAIRED = ("prompt", "completion")


OF_METHOD = {
    Method.SFT: None,
    Method.DPO: DatasetFormat.PREFERENCE,
    Method.ORPO: DatasetFormat.PREFERENCE,
    Method.KTO: DatasetFormat.UNPAIRED_PREFERENCE,
}
"""The one format that a method takes; SFT all others."""
PREFERENCES = (DatasetFormat.PREFERENCE, DatasetFormat.UNPAIRED_PREFERENCE)
IN_WORDS = {
    DatasetFormat.PREFERENCE: "{prompt, chosen, rejected}, or {chosen, rejected} of whole conversations",
    DatasetFormat.UNPAIRED_PREFERENCE: "{prompt, completion, label}, with a label of true or false",
}


@dataclass(frozen=True)
class Row:
    """One row that conforms to its format; rows of Alpaca and ShareGPT are Messages by then.

    A row of preferences has its prompt under `messages` or `prompt`, and each of its answers as a row that ends with
    it: of a pair the chosen one first. `label` is that of a single one.
    """

    place: str
    format: DatasetFormat
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] | None = None
    prompt: str = ""
    completion: str = ""
    text: str = ""
    group: str | None = None
    answers: tuple[Row, ...] = ()
    label: bool | None = None
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Columns that are not used, sorted."""

    @property
    def answer(self) -> str:
        """What is learned from the row, as text; of a pair both answers."""
        if self.answers:
            return "\n".join(each.answer for each in self.answers)
        if self.format is DatasetFormat.MESSAGES:
            return "\n".join(spoken(message) for message in self.messages if is_learned(message))
        return self.completion if self.format is DatasetFormat.PROMPT_COMPLETION else self.text

    @property
    def unit(self) -> str:
        """What must not be on two sides of a split: the answer, of preferences what is asked."""
        if not self.answers:
            return self.answer
        return "\n".join(spoken(message) for message in self.messages) if self.messages else self.prompt

    @property
    def is_tied(self) -> bool:
        """Tell whether it prefers an answer to itself."""
        return len({each.answer for each in self.answers}) < len(self.answers)

    @property
    def has_assistant_turn(self) -> bool:
        """Tell whether there is anything to learn at all; an answer of a preference always is."""
        return self.format is not DatasetFormat.MESSAGES or any(m["role"] == "assistant" for m in self.messages)

    @property
    def is_learned(self) -> bool:
        """Tell whether not all that is to be learned has the weight 0; of a pair on both sides."""
        if self.answers:
            return all(each.is_learned for each in self.answers)
        return self.format is not DatasetFormat.MESSAGES or any(map(is_learned, self.messages))

    def to_json(self) -> bytes:
        """Return the row in its own format, without columns that are not used, as JSON with sorted keys.

        Tools, and the arguments of calls, keep the order in which they are written: in that templates write them, and
        so it is a part of what is learned.
        """
        return json.dumps(_sorted_to_functions(self._value()), separators=(",", ":"), ensure_ascii=False).encode()

    def canonical(self) -> bytes:
        """Return the same as canonical JSON, by which rows are told apart."""
        return canonical_json(self._value())

    def _value(self) -> dict[str, Any]:
        if self.format is DatasetFormat.MESSAGES:
            value: dict[str, Any] = {"messages": list(self.messages)}
            if self.tools is not None:
                value["tools"] = list(self.tools)
        elif self.answers:
            value = self._preferences()
        elif self.format is DatasetFormat.PROMPT_COMPLETION:
            value = {"prompt": self.prompt, "completion": self.completion}
        else:
            value = {"text": self.text}
        return value if self.group is None else value | {"group": self.group}

    def _preferences(self) -> dict[str, Any]:
        asked = len(self.messages)
        said = [list(each.messages[asked:]) if asked else each.completion for each in self.answers]
        value: dict[str, Any] = {"prompt": list(self.messages) if asked else self.prompt}
        if self.answers[0].tools is not None:
            value["tools"] = list(self.answers[0].tools)
        if self.label is not None:
            return value | {"completion": said[0], "label": self.label}
        return value | {"chosen": said[0], "rejected": said[1]}


def _sorted_to_functions(value: Any) -> Any:
    """Return a value with sorted keys, down to what a tool or a call is."""
    if isinstance(value, dict):
        return {key: value[key] if key == "function" else _sorted_to_functions(value[key]) for key in sorted(value)}
    return [*map(_sorted_to_functions, value)] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Detected:
    """A format and why it is that one, in words for a person; `guessed`: nobody named it."""

    format: DatasetFormat
    why: str
    guessed: bool = True


def resolve(
    row_format: DatasetFormat,
    records: Iterator[Record],
    ignore: Collection[str] = (),
    named: Collection[str] = (),
    method: Method = Method.SFT,
) -> Detected:
    """Return the format that is demanded, by name or by the method, or that of the first row; keys as for `conform`.

    Raises:
        DataInvalid: FORMAT_UNKNOWN; also where the rows are not of the format that the method takes.
    """
    wanted = OF_METHOD[method]
    if row_format is not DatasetFormat.AUTO and (row_format if row_format in PREFERENCES else None) is not wanted:
        raise DataInvalid(
            f"training.method: {method.value} does not take rows of dataset.format: {row_format.value}",
            Reason.FORMAT_UNKNOWN,
        )
    if wanted is not None:
        first = next(records, None)
        if first is not None:
            _check_method(first, wanted, method)
        return Detected(wanted, f"training.method: {method.value} takes these", guessed=False)
    if row_format is not DatasetFormat.AUTO:
        return Detected(row_format, NAMED, guessed=False)
    first = next(records, None)
    return Detected(DatasetFormat.TEXT, "there are no rows") if first is None else recognise(first, ignore, named)


def _check_method(first: Record, wanted: DatasetFormat, method: Method) -> None:
    """Refuse rows that lack what a method goes by, told by the first.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    value = renamed(first.value)
    if isinstance(value, dict) and all(value.get(key) is not None for key in USED[wanted]):
        return
    found = sorted(value)[:8] if isinstance(value, dict) else type(value).__name__
    others = [each.value for each, takes in OF_METHOD.items() if takes is not None and takes is not wanted]
    other = next(each for each in PREFERENCES if each is not wanted)
    hint = ""
    if isinstance(value, dict) and all(value.get(key) is not None for key in USED[other]):
        hint = f"; rows of {IN_WORDS[other]} are learned by training.method: {' or '.join(others)}"
    raise DataInvalid(
        f"{first.place}: training.method: {method.value} takes rows of {IN_WORDS[wanted]}; it has {found}{hint}",
        Reason.FORMAT_UNKNOWN,
    )


def recognise(record: Record, ignore: Collection[str] = (), named: Collection[str] = ()) -> Detected:
    """Return the format of a data set from its first row.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    if isinstance(record.value, dict):
        for row_format, keys in USED.items():
            if row_format not in PREFERENCES and all(record.value.get(key) is not None for key in keys):
                value = _unpacked(record.value, row_format, record.place)
                check_row(value, row_format, record.place, guessed=True, ignore=ignore, named=named)
                return Detected(row_format, f"the first row, {record.place}, has {' and '.join(keys)}")
    found = sorted(record.value)[:8] if isinstance(record.value, dict) else type(record.value).__name__
    hint = next((f" ({hint})" for key, hint in HINTS.items() if key in found), "")
    if isinstance(record.value, dict):
        small = {plain(key) for key in record.value}
        for row_format, keys in USED.items():
            if row_format not in PREFERENCES and small.issuperset(keys):
                lacking = next((key for key in keys if key in record.value and record.value[key] is None), None)
                if lacking is not None:
                    raise malformed(record.place, f"lacks {lacking}")
                hint = f" (name the columns {' and '.join(keys)}, in small letters)"
    elif isinstance(record.value, list):
        hint = f" ({ALL_IN_ONE})"
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
    value = _unpacked(renamed(value) if row_format is DatasetFormat.PREFERENCE else value, row_format, place)
    if guessed and all(value.get(key) is None for key in USED[row_format]):
        raise malformed(place, f"lacks {' and '.join(USED[row_format])}, which the first row has")
    ignored = set(check_row(value, row_format, place, guessed=guessed, ignore=ignore, named=named))
    value = {key: each for key, each in value.items() if key in USED[row_format] or key not in ignored}
    group = _group(value.get("group"), place)
    if row_format is DatasetFormat.PROMPT_COMPLETION and any(isinstance(value.get(key), list) for key in IN_UNPAIRED):
        asked, said = Reader(place, ignore, ignored.add).completed(value)
        messages, tools = (*given(asked), *said), read_tools(value.get("tools"), place)
        return Row(
            place, DatasetFormat.MESSAGES, messages=messages, tools=tools, group=group, ignored=_sorted(ignored)
        )  # fmt: skip
    if row_format is DatasetFormat.PROMPT_COMPLETION:
        prompt, completion = (
            text(value.get("prompt"), "prompt", place),
            text(value.get("completion"), "completion", place),
        )
        return Row(place, row_format, prompt=prompt, completion=completion, group=group, ignored=_sorted(ignored))
    if row_format is DatasetFormat.TEXT:
        written = text(value.get("text"), "text", place)
        return Row(place, row_format, text=written, group=group, ignored=_sorted(ignored))
    if row_format in PREFERENCES:
        reader = Reader(place, ignore, ignored.add)
        label = None
        if row_format is DatasetFormat.PREFERENCE:
            read = reader.pair(value)
        else:
            read, label = reader.labelled(value)
        tools = read_tools(value.get("tools"), place)
        return _preferring(read, tools, Row(place, row_format, group=group, label=label, ignored=_sorted(ignored)))
    if row_format is DatasetFormat.MESSAGES:
        listed = value.get("messages")
    else:
        listed = (alpaca if row_format is DatasetFormat.ALPACA else sharegpt)(value, place)
    messages = read_messages(listed, place, ignore, ignored.add)
    if row_format is DatasetFormat.MESSAGES and "system" in value:
        messages = _with_system(value["system"], messages, place)
    tools = _tools(value, place)
    return Row(
        place, DatasetFormat.MESSAGES, messages=messages, tools=tools, group=group, ignored=_sorted(ignored)
    )  # fmt: skip


def _unpacked(row: dict[str, Any], row_format: DatasetFormat, place: str) -> dict[str, Any]:
    """Return a row with messages for those that a table holds as text."""
    keys = {
        DatasetFormat.PROMPT_COMPLETION: IN_UNPAIRED,
        DatasetFormat.UNPAIRED_PREFERENCE: IN_UNPAIRED,
        DatasetFormat.PREFERENCE: ("prompt", *USED[DatasetFormat.PREFERENCE]),
    }.get(row_format, ())
    return row | {key: unpacked(row[key], key, place) for key in keys if key in row} if keys else row


def _with_system(system: Any, messages: tuple[Message, ...], place: str) -> tuple[Message, ...]:
    """Return messages behind the system message that stands beside them, as Anthropic and Bedrock have it."""
    if is_absent(system):
        return messages
    (first,) = read_messages([{"role": "system", "content": system}], f"{place}, system")
    if messages[0] == first:
        return messages
    if any(message["role"] == "system" for message in messages):
        raise malformed(place, "has a system beside messages that have another one")
    return first, *messages


def _tools(row: Mapping[str, Any], place: str) -> tuple[dict[str, Any], ...] | None:
    """Return the tools of a conversation, under either of their names."""
    tools, functions = (read_tools(row.get(key), place) for key in ("tools", "functions"))
    if tools is not None and functions is not None and tools != functions:
        raise malformed(place, "has tools and functions that differ")
    return tools if tools is not None else functions


def _preferring(read: Answers, tools: tuple[dict[str, Any], ...] | None, row: Row) -> Row:
    """Return a row of preferences with its prompt, and its answers as rows of their own."""
    prompt = read.prompt
    if isinstance(prompt, str):
        if tools is not None:
            raise malformed(row.place, "has tools beside a prompt that is text; write it as messages")
        own = tuple(
            Row(row.place, DatasetFormat.PROMPT_COMPLETION, prompt=prompt, completion=str(each))
            for each in read.answers
        )
        return replace(row, prompt=prompt, answers=own)
    own = tuple(
        Row(row.place, DatasetFormat.MESSAGES, messages=(*given(prompt), *each), tools=tools)
        for each in read.answers
        if not isinstance(each, str)
    )
    return replace(row, messages=prompt, answers=own)


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _group(value: Any, place: str) -> str | None:
    if is_absent(value):
        return None
    return number if (number := as_written(value)) is not None else text(value, "group", place)
