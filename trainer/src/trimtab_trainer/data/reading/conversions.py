"""Alpaca's and ShareGPT's rows as messages.

Alpaca: {instruction, input, output}, with system and history ([[question, answer], ...]) where there are such; what is
asked is the instruction, and the input on the next line. ShareGPT: {conversations: [{from, value}]}, with system and
tools where there are such; who speaks has another name there. With tools LLaMA-Factory's way is read: a turn of
function_call has as its value the call, or several, as JSON; one of observation has what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...contract import Reason
from ...errors import DataInvalid
from .keys import is_absent
from .messages import from_text, malformed, shortened, text

SPEAKERS = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "observation"), "tool"),
    "function_call": "assistant",
}
CALLS = "function_call"


def alpaca(row: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """Return the messages of an Alpaca row.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    messages = _system(row, place)
    history = row.get("history")
    if not is_absent(history):
        turns = from_text(history, place, "history")
        if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
            raise malformed(place, "has a history that is no list of [question, answer]")
        for question, answer in turns:
            messages += _pair(text(question, "history", place), text(answer, "history", place))
    asked = text(row.get("instruction"), "instruction", place)
    if not _is_blank(row.get("input")):
        asked += "\n" + text(row["input"], "input", place)
    return messages + _pair(asked, text(row.get("output"), "output", place))


def sharegpt(row: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """Return the messages of a ShareGPT row; keys of a turn beside from and value are left where they are.

    Raises:
        DataInvalid: DATASET_MALFORMED; FORMAT_UNKNOWN for who speaks.
    """
    turns = from_text(row.get("conversations"), place, "conversations")
    if not isinstance(turns, list) or not turns:
        raise malformed(place, "lacks conversations, a list of {from, value}")
    messages = _system(row, place)
    for number, turn in enumerate(turns, 1):
        at = f"{place}, turn {number}"
        if not isinstance(turn, dict):
            raise malformed(at, "is not an object")
        if "role" in turn and "from" not in turn:
            messages.append(turn)  # OpenAI's messages under ShareGPT's name
            continue
        speaker = turn.get("from")
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            raise DataInvalid(
                f"{at}: from {shortened(speaker)} is none of {', '.join(SPEAKERS)}", Reason.FORMAT_UNKNOWN
            )
        rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
        if speaker == CALLS:
            calls = _calls(turn.get("value"), at)
            messages.append({**rest, "role": SPEAKERS[speaker], "content": None, "tool_calls": calls})
            continue
        messages.append({"role": SPEAKERS[speaker], "content": text(turn.get("value"), "value", at), **rest})
    return messages


def _calls(value: Any, place: str) -> Any:
    calls = from_text(text(value, "value", place), place, "function calls") if isinstance(value, str) else value
    return calls if isinstance(calls, list) else [calls]


def _is_blank(value: Any) -> bool:
    """Tell whether a text is not there; one that looks like an empty list is a text."""
    nothing = value is None or value == "" or value != value  # noqa: PLR0124  not a number: a null of pandas
    return nothing or (isinstance(value, str) and not value.strip())


def _system(row: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    if _is_blank(row.get("system")):
        return []
    return [{"role": "system", "content": text(row["system"], "system", place)}]


def _pair(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
