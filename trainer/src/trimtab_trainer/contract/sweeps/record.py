"""`SweepRecord`: what a search tried and what came of it, as the report of a sweep is made from.

The operator renders it into a ConfigMap for the `report` stage; `trimtab-trainer sweep` and `sweep-report` make it from
files. It holds no secrets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, FiniteFloat, field_validator

from ..curve import Curve
from ..model import Model, Received, speaks
from ..parsing import Unreadable, read_object
from ..run import RunIdentity, StoredOutput
from .settings import MAXIMUM_PARAMETERS, Direction, SweepParameter, TrialState

SWEEP_VERSION = "trimtab.dev/sweep/v1"
RECORD_BYTES = 900_000
"""Most bytes of a record as JSON: it has to fit into a ConfigMap, which holds 1 MiB."""
MAXIMUM_RECORDED = 10_000
"""Trials of a trials.jsonl that are read."""

PAUSED = "Paused"
PRUNED = "Pruned"
"""State or reason of a trial that was stopped before its end because others were better by then."""


class RecordedTrial(Received):
    """One trial. The state is a word of `TrialState`, or of a later version."""

    id: str = Field(max_length=128)
    name: str | None = Field(default=None, max_length=128, description="name of its FineTuneJob, of folds the first")
    parameters: dict[str, Any] = Field(max_length=MAXIMUM_PARAMETERS)
    state: str = Field(max_length=64)
    value: FiniteFloat | None = Field(default=None, description="value; of one that was pruned the last it had")
    standard_error: Annotated[FiniteFloat, Field(ge=0)] | None = None
    reason: str | None = Field(default=None, max_length=64)
    accelerator_seconds: Annotated[FiniteFloat, Field(ge=0)] | None = None
    curve: Curve | None = None
    rows_digest: str | None = Field(
        default=None, max_length=128, description="rowsDigest of the rows that the value is of, where that is known"
    )

    @property
    def pruned(self) -> bool:
        return PRUNED in (self.state, self.reason)

    @property
    def running(self) -> bool:
        """Whether it is not over; a paused one may go on."""
        return self.state in (TrialState.RUNNING, PAUSED)


class RecordedObjective(Received):
    """What trials were judged by."""

    metric: str = Field(default="validationLoss", max_length=128)
    direction: Direction = Direction.MINIMIZE


class SweepRecord(Model):
    """A search so far. `output` is where its files belong, None where they are written elsewhere."""

    version: str = SWEEP_VERSION
    run: RunIdentity = RunIdentity()
    output: StoredOutput | None = None
    parameters: list[SweepParameter] = Field(default=[], description="what is searched, as far as that is known")
    objective: RecordedObjective = RecordedObjective()
    order: str = Field(default="in which they were begun", description="order that the trials stand in")
    algorithm: str | None = None
    folds: int | None = None
    ended: str | None = Field(default=None, description="why the search ended; absent while it goes on")
    winner: str | None = Field(default=None, max_length=128, description="id of the trial that has won the final")
    importance: dict[str, float] = Field(default={}, description="share of each parameter in what makes a trial good")
    trials: list[RecordedTrial] = Field(default=[])

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, SWEEP_VERSION):
            raise ValueError(f"this trainer reads {SWEEP_VERSION}")
        return version

    @property
    def names(self) -> list[str]:
        """The paths of the parameters: those that are declared, then others that trials have."""
        declared = [each.name for each in self.parameters]
        return [*dict.fromkeys([*declared, *(name for trial in self.trials for name in sorted(trial.parameters))])]

    @property
    def ranked(self) -> list[RecordedTrial]:
        """The trials that have a value, the best first; of equal ones that which was begun first."""
        sign = 1 if self.objective.direction is Direction.MINIMIZE else -1
        known = [(sign * each.value, each) for each in self.trials if each.value is not None]
        return [each for _, each in sorted(known, key=lambda pair: pair[0])]

    def fitting(self, limit: int = RECORD_BYTES) -> Self:
        """Return the same in at most so many bytes: curves get half of their points until it fits, or go."""
        made = self
        while len(json.dumps(made.to_json())) > limit and any(each.curve is not None for each in made.trials):
            thinner = [
                each.model_copy(update={"curve": each.curve.thinner() if each.curve is not None else None})
                for each in made.trials
            ]
            made = made.model_copy(update={"trials": thinner})
        return made

    def lines(self) -> str:
        """Return trials.jsonl: a line for each trial, each with what it was judged by."""
        judged = {"metric": self.objective.metric, "direction": self.objective.direction.value}
        return "".join(
            json.dumps({**trial.to_json(), **judged}, ensure_ascii=False, separators=(",", ":")) + "\n"
            for trial in self.trials
        )


def read_lines(lines: Iterable[bytes], place: str) -> tuple[RecordedObjective, list[RecordedTrial]]:
    """Return what a trials.jsonl says.

    Raises:
        Unreadable: a line is none of a trial's, or there are too many; the message names file and line.
    """
    objectives: list[RecordedObjective] = []
    trials: list[RecordedTrial] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(trials) >= MAXIMUM_RECORDED:
            raise Unreadable(f"{place} has more than {MAXIMUM_RECORDED:,} trials; give a file with fewer")
        try:
            told = read_object(line)
            trials.append(RecordedTrial.model_validate(told))
            objectives.append(RecordedObjective.model_validate(told))
        except ValueError as error:
            raise Unreadable(f"{place}, line {number} is no trial: {words_of(error)}") from None
        if objectives[-1] != objectives[0]:
            raise Unreadable(
                f"{place}, line {number} has another objective than the first line: {objectives[-1].metric}, "
                f"{objectives[-1].direction.value}; trials of two searches have no common order"
            )
    return (objectives[0] if objectives else RecordedObjective()), trials


def words_of(error: ValueError) -> str:
    """Return an error of reading in words; of pydantic's many the first, with its place."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"


def numbers_of(values: Sequence[Any]) -> list[float] | None:
    """Return values as numbers, None where one of them is none: true and false are words."""
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in values):
        return None
    return [float(each) for each in values]
