"""What passes between the parts of an evaluation: rows as they are asked, scores as they are answered. No torch.

`prepare` writes the rows of each task, `asking` answers them with one model after the other and writes the scores,
`scoring` and `comparison` make figures of both. Rows and scores are JSON lines: one row a line, in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

Span = tuple[int, int]


@dataclass(frozen=True)
class Sequence:
    """Tokens whose likelihood is asked for.

    Attributes:
        tokens: token ids, the beginning-of-text token and the chat template's included.
        spans: half-open ranges of positions whose log-likelihoods are summed; never position 0.
        characters: of the text in these spans, by which normalised accuracies divide.
        bytes: UTF-8 bytes of the same text, for bits per byte.
    """

    tokens: tuple[int, ...]
    spans: tuple[Span, ...]
    characters: int
    bytes: int

    @property
    def counted(self) -> int:
        """Return how many tokens the likelihood is of."""
        return sum(stop - start for start, stop in self.spans)


OF_SOME_TYPES = ("schema", "calls", "worse", "score", "refuse", "pair")
"""Fields of a row that are left out where they are None."""


@dataclass(frozen=True)
class EvaluationRow:
    """One row of a task.

    Attributes:
        number: its index in the task, from 0.
        place: where it stands, for people: `test.jsonl line 12`.
        cluster: the unit of resampling: rows of one cluster (same group column, same or nearly the same answer) are
            drawn together. Counted from 0.
        group: value of the groupBy column; None without groupBy.
        trained_on: the target was trained on a row of the same cluster.
        prompt: what is asked, as text for people.
        reference: the right answer as text: what is to be written, the label, the choice, the number.
        sequences: what likelihoods are asked for: one of a Perplexity row; one a label or choice, in their order.
        prompt_tokens: what an answer is generated from; empty where none is.
        choices: the texts to choose from (labels or choices); empty where there are none.
        answer: index of the right choice.
        number_reference: the right number of a Regression row.
        schema: JSON text: what a JsonSchema row's answer is to satisfy, where the task does not say it; of a ToolCalls
            row an object of the arguments' schemas, each JSON text, by the names of the tools.
        worse: of a Judge row an answer that people found worse than the reference.
        refuse: of a Refusal row whether it is to be refused.
        score: of a Judge row the score that people gave the reference.
        pair: value of the column `pairs`, which rows share that differ in a group's word; None of other rows.
        calls: of a ToolCalls row the right calls, JSON text [[name, arguments], ...].
    """

    number: int
    place: str
    cluster: int
    group: str | None
    trained_on: bool
    prompt: str
    reference: str
    sequences: tuple[Sequence, ...] = ()
    prompt_tokens: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    answer: int | None = None
    number_reference: float | None = None
    schema: str | None = None
    calls: str | None = None
    worse: str | None = None
    score: int | None = None
    refuse: bool | None = None
    pair: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; what only some types have is left out of the others, whose digests stay."""
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        value = {name: each for name, each in value.items() if each is not None or name not in OF_SOME_TYPES}
        value["sequences"] = [[each.tokens, each.spans, each.characters, each.bytes] for each in self.sequences]
        return value

    @classmethod
    def of(cls, value: dict[str, Any]) -> EvaluationRow:
        """Return the row that `to_json` was called on."""
        sequences = tuple(
            Sequence(tuple(tokens), tuple((start, stop) for start, stop in spans), characters, size)
            for tokens, spans, characters, size in value["sequences"]
        )
        tuples = {name: tuple(value[name]) for name in ("prompt_tokens", "choices")}
        return cls(**{**value, "sequences": sequences, **tuples})


@dataclass(frozen=True)
class RowScore:
    """What a model made of one row.

    Attributes:
        number: the row's.
        log_likelihoods: in nats, summed over the spans of each sequence of the row.
        text: what was generated, without the stop string; None where nothing is.
        stopped: whether the answer ended by itself, not by maxNewTokens.
        tokens: that were written, the one that ended the answer among them; None where nothing was.
        seconds: from the beginning of its batch to the end of the answer.
        figures: what a harness task says of the row, by metric.
    """

    number: int
    log_likelihoods: tuple[float, ...] = ()
    text: str | None = None
    stopped: bool = True
    tokens: int | None = None
    seconds: float | None = None
    figures: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the score as a JSON object, without tokens and seconds where nothing was written."""
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each for name, each in value.items() if each is not None or name not in ("tokens", "seconds")}

    @classmethod
    def of(cls, value: dict[str, Any]) -> RowScore:
        """Return the score that `to_json` was called on."""
        return cls(**{**value, "log_likelihoods": tuple(value["log_likelihoods"])})


Line = TypeVar("Line", EvaluationRow, RowScore)


def write_lines(file: Path, lines: Iterable[EvaluationRow] | Iterable[RowScore]) -> None:
    """Write rows or scores, one JSON object a line; the same values give the same bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        for line in lines:
            opened.write(json.dumps(line.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n")


def read_lines(file: Path, kind: type[Line]) -> list[Line]:
    """Return what `write_lines` wrote."""
    with file.open() as opened:
        return [kind.of(json.loads(line)) for line in opened]
