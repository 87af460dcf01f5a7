"""Rows that prefer one answer to another, or say whether an answer is wanted, as conversations that end with it.

Pairs are {prompt, chosen, rejected}, each text or messages; or conversations under chosen and rejected alone, whose
beginning that both share is the prompt. Labelled answers are {prompt, completion, label}. What is compared are the
assistant's turns behind the prompt; those within it are given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .keys import is_absent
from .messages import Message, malformed, read_messages, text

Messages = tuple[Message, ...]
LABELS = {"true": True, "1": True, "false": False, "0": False}
"""Labels as tables of text have them."""
OF_OPENAI = {"preferred_output": "chosen", "non_preferred_output": "rejected"}
OF_INPUT = {"messages": "prompt", "tools": "tools"}


@dataclass(frozen=True)
class Answers:
    """A prompt and what may follow it: all texts, or all messages."""

    prompt: str | Messages
    answers: tuple[str, ...] | tuple[Messages, ...]


@dataclass(frozen=True)
class Reader:
    """Reads the parts of one row.

    Attributes:
        place: where it stands.
        ignore: keys of messages that are left out.
        ignored: is told which these were.
    """

    place: str
    ignore: Collection[str] = ()
    ignored: Callable[[str], None] = lambda _: None

    def pair(self, row: Mapping[str, Any]) -> Answers:
        """Return what a row of {prompt, chosen, rejected} has: the chosen answer first.

        Raises:
            DataInvalid: DATASET_MALFORMED or FORMAT_UNKNOWN.
        """
        for key in ("chosen", "rejected"):
            if row.get(key) is None:
                raise malformed(self.place, f"lacks {key}")
        return self._answers(row.get("prompt"), {key: row[key] for key in ("chosen", "rejected")})

    def labelled(self, row: Mapping[str, Any]) -> tuple[Answers, bool]:
        """Return what a row of {prompt, completion, label} has, and its label.

        Raises:
            DataInvalid: DATASET_MALFORMED or FORMAT_UNKNOWN.
        """
        label = row.get("label")
        if isinstance(label, str):
            label = LABELS.get(label.strip().lower())
        if not isinstance(label, bool) and not (isinstance(label, int) and label in (0, 1)):
            raise malformed(self.place, "lacks a label of true or false")
        if row.get("completion") is None:
            raise malformed(self.place, "lacks completion")
        return self._answers(row.get("prompt"), {"completion": row["completion"]}), bool(label)

    def completed(self, row: Mapping[str, Any]) -> tuple[Messages, Messages]:
        """Return a prompt and what completes it, of a row of {prompt, completion} that are messages.

        Raises:
            DataInvalid: DATASET_MALFORMED or FORMAT_UNKNOWN.
        """
        if row.get("completion") is None:
            raise malformed(self.place, "lacks completion")
        read = self._answers(row.get("prompt"), {"completion": row["completion"]})
        (said,) = read.answers
        if isinstance(read.prompt, str) or isinstance(said, str):
            raise malformed(self.place, "has a completion that is no list of messages")
        return read.prompt, said

    def _answers(self, prompt: Any, answers: dict[str, Any]) -> Answers:
        if all(isinstance(each, str) for each in answers.values()):
            said = tuple(text(value, key, self.place) for key, value in answers.items())
            if is_absent(prompt):
                raise malformed(
                    self.place,
                    f"lacks prompt: {' and '.join(answers)} alone are read where both are messages; name what is asked "
                    "prompt",
                )
            if isinstance(prompt, str):
                return Answers(text(prompt, "prompt", self.place), said)
            return self._checked(
                self._messages(prompt, "prompt"), [({"role": "assistant", "content": each},) for each in said]
            )
        read = [self._messages(value, key) for key, value in answers.items()]
        if isinstance(prompt, str) and not is_absent(prompt):
            asked = text(prompt, "prompt", self.place)
            if all(each[0]["role"] == "assistant" for each in read):
                return self._checked(({"role": "user", "content": asked},), read)
            # Some data sets repeat what is asked beside whole conversations.
            whole = self._split(read)
            if all(message["content"] != asked for message in whole.prompt if isinstance(message, dict)):
                raise malformed(self.place, f"has a prompt that is not in the messages of {' and '.join(answers)}")
            return whole
        if is_absent(prompt):
            return self._split(read)
        return self._checked(self._messages(prompt, "prompt"), read)

    def _split(self, conversations: Sequence[Messages]) -> Answers:
        """Return whole conversations cut where they differ, or before the last turn of a single one."""
        shortest = min(len(each) for each in conversations)
        shared = next((n for n in range(shortest) if any(c[n] != conversations[0][n] for c in conversations)), shortest)
        shared = min(shared, shortest - 1)
        if not shared:
            raise malformed(self.place, "lacks a prompt: its conversations have nothing in common before the answers")
        return self._checked(conversations[0][:shared], [each[shared:] for each in conversations])

    def _checked(self, prompt: Messages, answers: Sequence[Messages]) -> Answers:
        if prompt[-1]["role"] == "assistant":
            raise malformed(self.place, "has a prompt that ends with an assistant's turn, behind which nothing answers")
        for answer in answers:
            if answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
                raise malformed(self.place, "has an answer that does not begin and end with an assistant's turn")
        return Answers(prompt, tuple(answers))

    def _messages(self, value: Any, key: str) -> Messages:
        if isinstance(value, str):
            return ({"role": "assistant", "content": text(value, key, self.place)},)
        listed = [value] if isinstance(value, dict) else value
        return read_messages(listed, f"{self.place}, {key}", self.ignore, self.ignored)


def renamed(row: Any) -> Any:
    """Return a row of OpenAI's {input: {messages, tools}, preferred_output, non_preferred_output} under our names."""
    if not isinstance(row, Mapping) or not isinstance(row.get("input"), Mapping) or not OF_OPENAI.keys() <= row.keys():
        return row
    return (
        {key: value for key, value in row.items() if key not in OF_OPENAI and key != "input"}
        | {OF_INPUT.get(key, key): value for key, value in row["input"].items()}
        | {name: row[key] for key, name in OF_OPENAI.items()}
    )


def given(prompt: Messages) -> Messages:
    """Return a prompt's messages such that nothing of them is learned."""
    return tuple(each | {"weight": 0} if each["role"] == "assistant" else each for each in prompt)
