"""From answers to what a judge is asked of them, and from its replies to figures and to whether they can be relied on.

Of a pair both orders are asked. Only where both say the same answer, that one has won; everything else is a tie, and
one in which the verdict changed with the order is inconsistent. Equal answers are a tie, and nobody is asked. Pure.

What a judge says that is none of the replies it was given is unreadable. It never helps the target: in a pair it counts
as if it said the other answer (of people's, the worse one), so that a target that would lose gains nothing by an answer
that silences the judge; of a score it is the lowest for the target and the highest for the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ...contract import JudgeMode, Judging
from ..rows import EvaluationRow, RowScore
from .prompts import FIRST, SECOND, TIE, JudgePrompt, pairwise_prompt, read_reply, rubric_prompt

TARGET_FIRST, BASELINE_FIRST = "target first", "baseline first"
BETTER_FIRST, WORSE_FIRST = "people's choice first", "people's choice second"
TARGET, BASELINE, LABELLED = "target", "baseline", "the row's own answer"

MAXIMUM_INCONSISTENT = 0.5
"""Share of pairs in which the order decided; beyond it the order decides more than the answers."""
MAXIMUM_UNREADABLE = 0.05


@dataclass(frozen=True)
class Judgement:
    """One question to the judge and its reply.

    Attributes:
        number: of the row.
        slot: which of the questions about that row.
        prompt: what the judge read.
        reply: its words; empty before it was asked.
        model: how the endpoint calls the model that replied; None of a local one.
    """

    number: int
    slot: str
    prompt: JudgePrompt
    reply: str = ""
    model: str | None = None

    @property
    def place(self) -> tuple[int, str]:
        """Which question it is among those of a task."""
        return self.number, self.slot

    @property
    def said(self) -> str | int | None:
        """What the reply says, None if that cannot be read."""
        return read_reply(self.prompt, self.reply)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**value, "prompt": {"text": self.prompt.text, "options": list(self.prompt.options)}}

    @classmethod
    def of(cls, value: dict[str, Any]) -> Judgement:
        """Return the judgement that `to_json` was called on."""
        prompt = JudgePrompt(value["prompt"]["text"], tuple(value["prompt"]["options"]))
        return cls(value["number"], value["slot"], prompt, value["reply"], value["model"])


@dataclass(frozen=True)
class Judged:
    """What judgements say.

    Attributes:
        target, baseline: the scores of the answers, with the judge's figures of each row.
        asked: questions that were put to the judge.
        pairs: of different answers, people's among them; 0 of a rubric.
        inconsistent: pairs in which the order decided.
        unreadable: replies that say nothing.
        labelled: rows that people judged.
        agreed: those of them on which the judge says the same.
        models: names that the endpoint replied under.
    """

    target: list[RowScore]
    baseline: list[RowScore] | None
    asked: int
    pairs: int
    inconsistent: int
    unreadable: int
    labelled: int
    agreed: int
    models: tuple[str, ...]

    @property
    def agreement(self) -> float | None:
        """The share of people's judgements that the judge shares; None where there are none."""
        return self.agreed / self.labelled if self.labelled else None


def questions(
    judging: Judging, rows: Sequence[EvaluationRow], target: Sequence[RowScore], baseline: Sequence[RowScore] | None
) -> list[Judgement]:
    """Return what a judge is asked, in the order of rows, not yet answered."""
    found = []
    for at, row in enumerate(rows):
        own = _answer(target[at])
        other = _answer(baseline[at]) if baseline is not None else None
        asked = _pairs(judging, row, own, other) if judging.chosen_mode is JudgeMode.PAIRWISE else {}
        asked = asked or _single(judging, row, own, other)
        found += [Judgement(row.number, slot, prompt) for slot, prompt in asked.items()]
    return found


def _pairs(judging: Judging, row: EvaluationRow, own: str, other: str | None) -> dict[str, JudgePrompt]:
    if other is None:
        raise ValueError("a pair needs the answers of a baseline")
    pairs = [(TARGET_FIRST, own, other), (BASELINE_FIRST, other, own)] if own != other else []
    if row.worse is not None:
        pairs += [(BETTER_FIRST, row.reference, row.worse), (WORSE_FIRST, row.worse, row.reference)]
    shown = row.reference if judging.show_reference is not None else None
    return {slot: pairwise_prompt(judging, row.prompt, first, second, shown) for slot, first, second in pairs}


def _single(judging: Judging, row: EvaluationRow, own: str, other: str | None) -> dict[str, JudgePrompt]:
    if judging.chosen_mode is JudgeMode.PAIRWISE:
        return {}
    answers = {TARGET: own}
    if other is not None:
        answers[BASELINE] = other
    if row.score is not None:
        answers[LABELLED] = row.reference
    shown = row.reference if judging.show_reference is not None else None
    return {slot: rubric_prompt(judging, row.prompt, answer, shown) for slot, answer in answers.items()}


def judged(
    judging: Judging,
    rows: Sequence[EvaluationRow],
    target: Sequence[RowScore],
    baseline: Sequence[RowScore] | None,
    judgements: Sequence[Judgement],
) -> Judged:
    """Return what the judge's replies say of every row.

    Raises:
        ValueError: a question of `questions` has no reply.
    """
    replies: dict[int, dict[str, Judgement]] = {}
    for each in judgements:
        replies.setdefault(each.number, {})[each.slot] = each
    wanted = {each.place for each in questions(judging, rows, target, baseline)}
    if wanted != {each.place for each in judgements}:
        raise ValueError(f"{len(judgements)} judgements are not those of the {len(wanted)} questions")
    own, others, counts = [], [], _Counts()
    for at, row in enumerate(rows):
        of_row = replies.get(row.number, {})
        if judging.chosen_mode is JudgeMode.PAIRWISE:
            mine, theirs = counts.pair(of_row)
        else:
            mine, theirs = counts.scores(judging, row, of_row)
        own.append(replace(target[at], figures=mine))
        if baseline is not None:
            others.append(replace(baseline[at], figures=theirs))
    return Judged(
        target=own,
        baseline=others if baseline is not None else None,
        asked=len(judgements),
        pairs=counts.pairs,
        inconsistent=counts.inconsistent,
        unreadable=counts.unreadable,
        labelled=counts.labelled,
        agreed=counts.agreed,
        models=tuple(sorted({each.model for each in judgements if each.model is not None})),
    )


class _Counts:
    """Counts over rows, and the figures of each."""

    def __init__(self) -> None:
        self.pairs = self.inconsistent = self.unreadable = self.labelled = self.agreed = 0

    def pair(self, replies: dict[str, Judgement]) -> tuple[dict[str, float], dict[str, float]]:
        """Return the figures of a row for the target and for the baseline."""
        won, steady, unreadable = 0.5, 1.0, 0
        if TARGET_FIRST in replies:
            won, steady, unreadable = self._both(replies[TARGET_FIRST], replies[BASELINE_FIRST])
        shared = {"inconsistentRatio": 1.0 - steady, "unreadableRatio": unreadable / 2}
        if BETTER_FIRST in replies:
            right, _, _ = self._both(replies[BETTER_FIRST], replies[WORSE_FIRST])
            shared["agreement"] = self._agree(right == 1.0)
        return {"winRate": won, **shared}, {"winRate": 1.0 - won, **shared}

    def _both(self, one: Judgement, other: Judgement) -> tuple[float, float, int]:
        """Return 1, 0 or 0.5 for who wins that is first in `one`, whether both orders agree, and unreadable replies."""
        self.pairs += 1
        replies = one.said, other.said
        unreadable = sum(each is None for each in replies)
        self.unreadable += unreadable
        said = tuple(lost if each is None else each for each, lost in zip(replies, (SECOND, FIRST), strict=True))
        won = 1.0 if said == (FIRST, SECOND) else 0.0 if said == (SECOND, FIRST) else 0.5
        steady = not unreadable and (won != 0.5 or said[0] == said[1] == TIE)
        self.inconsistent += not steady
        return won, float(steady), unreadable

    def scores(
        self, judging: Judging, row: EvaluationRow, replies: dict[str, Judgement]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Return the figures of a row for the target and for the baseline."""
        low, high = judging.scores
        found: dict[str, dict[str, float]] = {}
        for slot, worst in ((TARGET, low), (BASELINE, high)):
            said = replies[slot].said if slot in replies else None
            unread = slot in replies and said is None
            self.unreadable += unread
            found[slot] = {"judgeScore": float(worst if said is None else said), "unreadableRatio": float(unread)}
        if LABELLED in replies:
            said = replies[LABELLED].said
            self.unreadable += said is None
            agreed = self._agree(said == row.score)
            for each in found.values():
                each["agreement"] = agreed
        return found[TARGET], found[BASELINE]

    def _agree(self, agreed: bool) -> float:
        self.labelled += 1
        self.agreed += agreed
        return float(agreed)


def unreliable(judging: Judging, found: Judged) -> str | None:
    """Return why a judge's words decide nothing, or None if they can be relied on as far as is known."""
    agreement = found.agreement
    if len(found.models) > 1:
        return f"it replied as {' and as '.join(each[:60] for each in found.models[:2])}, which are two judges"
    if found.asked and found.unreadable > MAXIMUM_UNREADABLE * found.asked:
        return f"{found.unreadable} of its {found.asked} replies are none of those that it may give"
    if found.pairs and found.inconsistent > MAXIMUM_INCONSISTENT * found.pairs:
        return (
            f"its verdict changed with the order of the answers in {found.inconsistent} of {found.pairs} pairs, so it "
            "is the order that decides"
        )
    if judging.minimum_agreement is not None and (agreement is None or agreement < judging.minimum_agreement):
        return (
            f"it agrees with people on {found.agreed} of {found.labelled} rows, and minimumAgreement is "
            f"{judging.minimum_agreement:g}"
        )
    return None


def _answer(score: RowScore) -> str:
    if score.text is None:
        raise ValueError(f"row {score.number} has no answer to judge")
    return score.text
