"""Keys of a row that its format does not use: refused by name where they mean something, else ignored and listed.

What a key means is what it means elsewhere in the field (OpenAI's fine-tuning API, TRL, Axolotl, LLaMA-Factory,
ms-swift, ShareGPT, Alpaca): learning the rest of such a row would be learning something else than was written. A key
without a value (null, nothing, an empty list: tables have one in every row) is not there. Within a message there are no
columns, so there every key that is not known is refused. What a user says to ignore is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...contract import DatasetFormat, Reason
from ...errors import DataInvalid

SHOWN_LENGTH = 64
SPEAKERS = ("system", "user", "assistant", "tool", "developer", "human", "gpt", "bot", "prompter", "model")
"""Who speaks, as data sets of messages call them."""


def _never(_: Any) -> bool:
    return False


def _is_one(value: Any) -> bool:
    return isinstance(value, int | float) and value == 1


def _is_yes(value: Any) -> bool:
    return value is True


def _is_no(value: Any) -> bool:
    return value is False


def _is_no_flag(value: Any) -> bool:
    """Tell a figure or a class that happens to have the name of a flag from the flag that says no."""
    return value is not False and not isinstance(value, list)


def _is_choice(value: Any) -> bool:
    """Tell a setting of OpenAI's requests, which functions may be called, from a call."""
    return value in ("auto", "none") or (isinstance(value, Mapping) and set(value) == {"name"})


def _is_no_role(value: Any) -> bool:
    """Tell what a column says of a text, such as a profession, from who speaks."""
    return not isinstance(value, str) or value.strip().lower() not in SPEAKERS


@dataclass(frozen=True)
class Meaning:
    """What a key means elsewhere; `harmless` tells the values that change nothing of what is learned."""

    names: tuple[str, ...]
    what: str
    advice: str
    harmless: Callable[[Any], bool] = _never


_WEIGHTS = "of what is learned only messages can be weighted, by the weight 0 or 1 of an assistant's"
_LEAVE_OUT = "write that, or leave out what is not to be learned"

MEANINGS = (
    Meaning(
        ("tools", "tool_calls"),
        "tools and their calls are learned as parts of Messages alone",
        "write messages, with tools beside them and tool_calls within",
    ),
    Meaning(
        ("functions", "function_calls"),
        "functions and their calls are learned as parts of Messages alone",
        "write messages, with functions beside them and function_call within",
    ),
    Meaning(
        ("function_call",),
        "a call is learned as a part of an answer alone",
        "write messages, with function_call within",
        _is_choice,
    ),
    Meaning(
        ("image", "images", "audio", "audios", "video", "videos", "pixel_values"),
        "only text is learned",
        "remove these rows",
    ),
    Meaning(
        (
            *("chosen", "rejected", "rejected_response", "rejected_messages"),
            *("preferred_output", "non_preferred_output", "completions", "kto_tag"),
        ),
        "which of two answers is preferred is learned from rows of {prompt, chosen, rejected} alone",
        "set training.method: DPO or ORPO, with rows of that format",
    ),
    Meaning(("margin",), "how much an answer is preferred is not learned", "remove the column"),
    Meaning(
        ("reasoning_content", "reasoning", "thinking", "thinking_content"),
        "thoughts are learned as a part of an answer alone",
        "write messages, with reasoning_content in the assistant's",
    ),
    Meaning(("weight", "weights", "loss_weight", "sample_weight"), _WEIGHTS, _LEAVE_OUT, _is_one),
    Meaning(("train", "training", "trainable", "learn"), _WEIGHTS, _LEAVE_OUT, _is_yes),
    Meaning(("mask", "masked"), _WEIGHTS, _LEAVE_OUT, _is_no),
    Meaning(("loss",), _WEIGHTS, _LEAVE_OUT, _is_no_flag),
    Meaning(("train_detail", "loss_mask", "completion_mask", "assistant_masks"), _WEIGHTS, _LEAVE_OUT),
    Meaning(("train_on_input", "train_on_inputs"), _WEIGHTS, "set training.lossOn", _is_no),
    Meaning(
        ("label",), "false says that the answer is not wanted, which training.method: KTO learns", _LEAVE_OUT,
        _is_no_flag,
    ),
    Meaning(
        ("input_ids",), "rows are tokenised here, with the base model's own tokenizer", "give the text alone"
    ),
    Meaning(
        ("system", "system_prompt", "history"),
        "what comes before the question is a part of it",
        "write it as messages",
    ),
    Meaning(
        ("documents", "chat_template", "chat_template_kwargs", "enable_thinking"),
        "the base model's chat template is given messages and tools alone",
        "write it into the messages, or set it in a template of your own (dataset.chatTemplate)",
    ),
)  # fmt: skip
"""What is not learned as it was meant, in rows of every format."""

PARTS_OF_PROMPTS = Meaning(
    ("instruction", "input", "query", "context", "suffix"),
    "it may be a part of what is asked",
    "write it into prompt or instruction",
)
"""Of PromptCompletion and Alpaca rows alone: beside messages such columns tell where a conversation came from."""

OF_MESSAGES = Meaning(
    ("role", "from"),
    "a row that is one message is no conversation",
    "put the messages of a conversation into one row",
    _is_no_role,
)
"""Of Text rows alone, such as those of message trees."""

OTHER_FORMATS = ("messages", "completion", "conversations", "instruction", "output")
"""Keys of which each is learned in some format: two of them leave open which one is meant. A text beside them is the
same as one, and a prompt beside messages their beginning."""

USED = {
    DatasetFormat.MESSAGES: ("messages",),
    DatasetFormat.SHAREGPT: ("conversations",),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetFormat.ALPACA: ("instruction", "output"),
    DatasetFormat.TEXT: ("text",),
    DatasetFormat.PREFERENCE: ("chosen", "rejected"),
    DatasetFormat.UNPAIRED_PREFERENCE: ("prompt", "completion", "label"),
}
"""Keys of each format, in the order in which they are looked for. Beside them every row may have a group."""

ALSO_USED = {
    DatasetFormat.MESSAGES: ("tools", "functions", "system"),
    DatasetFormat.SHAREGPT: ("tools", "system"),
    DatasetFormat.ALPACA: ("input", "system", "history"),
    DatasetFormat.PREFERENCE: ("prompt", "tools"),
    DatasetFormat.UNPAIRED_PREFERENCE: ("tools",),
}
"""Keys that rows of a format may have."""

ROLE_KEYS = {
    "system": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": (
        *("role", "content", "name", "weight", "tool_calls", "function_call"),
        *("reasoning_content", "reasoning", "thinking", "thinking_content"),
    ),
    "tool": ("role", "content", "name", "tool_call_id"),
}
"""Keys of messages that are understood."""

CALL_KEYS = ("id", "index", "type", "function", "name", "arguments")
"""Keys of a tool call, and of the function within, that are understood."""

PART_KEYS = ("type", "text", "cache_control")
"""Keys of a part of a content; the last one is for who bills the request."""

FLAGS = {
    **dict.fromkeys(("train", "training", "trainable", "learn", "loss"), True),
    **dict.fromkeys(("mask", "masked"), False),
}
"""Keys of a message that say by true or false if it is learned, with what says that it is: weights by other names."""

HARMLESS_IN_ANSWERS = {"prefix": _is_no}
"""Keys of an assistant's message whose value may say what is done anyway."""

_BY_NAME = {name: meaning for meaning in MEANINGS for name in meaning.names}
_OF_PROMPTS = _BY_NAME | dict.fromkeys(PARTS_OF_PROMPTS.names, PARTS_OF_PROMPTS)
_OF_FORMAT = {
    DatasetFormat.PROMPT_COMPLETION: _OF_PROMPTS,
    DatasetFormat.ALPACA: _OF_PROMPTS,
    DatasetFormat.TEXT: _BY_NAME | dict.fromkeys(OF_MESSAGES.names, OF_MESSAGES),
}
_IGNORE = "put it into dataset.ignoreKeys if it means nothing"
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_absent(value: Any) -> bool:
    """Tell whether a key has no value: null, no number, blank, or nothing but such values."""
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}", "null")  # some formats write lists as text
    if isinstance(value, Mapping):
        return all(is_absent(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(is_absent(each) for each in value)
    return value is None or value == b"" or value != value  # noqa: PLR0124  not a number: a null of pandas


def as_written(number: Any) -> str | None:
    """Return a number as people write it, None of anything else: tables of pandas have 5.0 for 5 where one has none."""
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return str(number) if isinstance(number, int | float) else None


def check_row(
    row: Mapping[str, Any],
    row_format: DatasetFormat,
    place: str,
    *,
    guessed: bool,
    ignore: Collection[str] = (),
    named: Collection[str] = (),
) -> tuple[str, ...]:
    """Return the columns of a row that are ignored, sorted; `guessed` says that nobody named the format.

    Columns that settings `named` are there to be counted by: what the format does not use of them is refused by nobody,
    what it uses stays in use.

    Raises:
        DataInvalid: FORMAT_UNKNOWN, a key means something that would not be learned, or another format; and it is not
            among those to `ignore`.
    """
    meanings = _OF_FORMAT.get(row_format, _BY_NAME)
    ignored, open_to_doubt = [], []
    for key, value in row.items():
        if key in USED[row_format] or is_absent(value):
            continue
        if key in ignore:
            ignored.append(key)
            continue
        if key == "group" or key in ALSO_USED.get(row_format, ()):
            continue
        if key == "tools" and row_format is DatasetFormat.PROMPT_COMPLETION and _are_messages(row):
            continue
        if key in named:
            ignored.append(key)
            continue
        meaning = meanings.get(plain(key))
        if meaning is not None and not meaning.harmless(value):
            raise _refused(place, key, f"{meaning.what}; {meaning.advice}, or {_IGNORE}")
        ignored.append(key)
        open_to_doubt.append(key)
    if guessed:
        _check_ambiguity(open_to_doubt, row_format, place)
    return tuple(sorted(ignored))


def _are_messages(row: Mapping[str, Any]) -> bool:
    """Tell whether prompt or completion are messages, which may call tools."""
    return any(isinstance(row.get(key), list) for key in USED[DatasetFormat.PROMPT_COMPLETION])


def check_message(message: Mapping[str, Any], role: str, place: str) -> None:
    """Refuse what is not understood of a message; keys without a value are not among its keys.

    Raises:
        DataInvalid: FORMAT_UNKNOWN.
    """
    for key, value in message.items():
        name = plain(key)
        if key in ("role", "content"):
            continue
        if name == "weight":
            # What others say is never learned, so that they have any weight changes nothing.
            if isinstance(value, int | float) and value in (0, 1):
                continue
            raise _refused(place, key, "a weight is 0 (not to be learned) or 1")
        if name in ROLE_KEYS[role] and name not in ("role", "content"):
            continue
        if name in FLAGS and isinstance(value, bool) and (role == "assistant" or value is not FLAGS[name]):
            continue
        if role == "assistant" and HARMLESS_IN_ANSWERS.get(name, _never)(value):
            continue
        known = next((each for each, keys in ROLE_KEYS.items() if name in keys and name not in ("role", "content")), "")
        meaning = _BY_NAME.get(name)
        if known:
            trouble = f"only messages of the role {known} have one"
        elif meaning is not None:
            trouble = f"{meaning.what}; {meaning.advice}"
        else:
            trouble = f"a message of the role {role} has {', '.join(ROLE_KEYS[role])}; write it into the content"
        raise _refused(place, key, f"{trouble}, or {_IGNORE}")


def check_part(
    value: Mapping[str, Any], known: Collection[str], what: str, place: str, ignore: Collection[str]
) -> tuple[str, ...]:
    """Return which keys of a tool call, or of a part of a content, are ignored.

    Raises:
        DataInvalid: FORMAT_UNKNOWN, a key is not understood.
    """
    others = [key for key, each in value.items() if key not in known and not is_absent(each)]
    for key in others:
        if key not in ignore:
            raise _refused(place, key, f"{what} has {', '.join(known)}; rename it, or {_IGNORE}")
    return tuple(others)


def _check_ambiguity(others: list[str], row_format: DatasetFormat, place: str) -> None:
    more = ("prompt",) if row_format is DatasetFormat.TEXT else ()
    for key in others:
        if key in OTHER_FORMATS + more:
            raise _refused(
                place,
                key,
                f"beside {' and '.join(USED[row_format])} it is open what is to be learned; set dataset.format to "
                f"{row_format.value} if {_shown(key)} is to be ignored, or remove the column",
            )


def plain(key: str) -> str:
    """Return a key in small letters with underscores, as most formats write it."""
    return _HUMP.sub("_", key.strip()).replace("-", "_").lower()


def _shown(key: str) -> str:
    return key if len(key) <= SHOWN_LENGTH else key[:SHOWN_LENGTH] + "..."


def _refused(place: str, key: str, trouble: str) -> DataInvalid:
    return DataInvalid(f"{place} has {_shown(key)}: {trouble}", Reason.FORMAT_UNKNOWN)
