"""sweep.html: what a search tried and what it found, as one page that a team looks at together. No torch.

One file without scripts, fonts or pictures from elsewhere, made as the report of a run is: whatever comes from data is
escaped by the template, and what is not there is left out with a word.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..contract.curve import Points
from ..contract.sweeps.record import PAUSED, RecordedTrial, SweepRecord
from ..contract.sweeps.settings import TrialState
from ..pages.environment import environment
from .axes import axis_of, label, whole
from .charts import (
    Judged,
    curves_chart,
    importance_chart,
    parallel_chart,
    slice_chart,
    value_chart,
    value_scale,
)

ROWS, SLICES, AXES = 500, 16, 8
STATES = {
    TrialState.COMPLETE.value: "done",
    TrialState.RUNNING.value: "running",
    PAUSED: "paused",
    TrialState.BAD.value: "no value",
}


@dataclass(frozen=True)
class Slice:
    name: str
    picture: Markup


def render(record: SweepRecord) -> str:
    """Return the page of a search."""
    judged, declared = Judged.of(record), {each.name: each for each in record.parameters}
    axes = [
        axis_of(name, declared.get(name), [each.parameters[name] for each in record.trials if name in each.parameters])
        for name in record.names
    ]
    important = sorted(axes, key=lambda axis: -record.importance.get(axis.name, 0.0))
    scale = value_scale(record, 0, 1)
    slices = [Slice(axis.name, slice_chart(judged, axis)) for axis in important[:SLICES]]
    return _ENVIRONMENT.get_template("sweep.html.jinja").render(
        record=record,
        best=_winner(record) or judged.best,
        won=_winner(record) is not None,
        numbers=judged.number,
        counts=_counts(record),
        seconds=sum(each.accelerator_seconds or 0.0 for each in record.trials),
        far=scale[1] if scale is not None else 0,
        values=value_chart(judged),
        # Those that matter most, in the order in which they were declared.
        parallel=parallel_chart(judged, [axis for axis in axes if axis in important[:AXES]]),
        left_out=max(0, len(axes) - AXES),
        slices=[each for each in slices if each.picture],
        importance=importance_chart(record.importance),
        curves=[
            (called, drawn)
            for called, points in (("Validation loss", _validation), ("Training loss", _training))
            if (drawn := curves_chart(judged, called, points))
        ],
        names=record.names,
        rows=_rows(record)[:ROWS],
        kind=judged.kind,
    )


def _winner(record: SweepRecord) -> RecordedTrial | None:
    """Return the trial that has won the final."""
    return next((each for each in record.trials if each.id == record.winner), None)


def _rows(record: SweepRecord) -> list[RecordedTrial]:
    """Return the trials as the table has them: the best first, then those without a value in their order."""
    ranked = [each for each in record.ranked if not each.pruned]
    there = {each.id for each in ranked}
    return [*ranked, *(each for each in record.trials if each.id not in there)]


def _counts(record: SweepRecord) -> list[tuple[str, int]]:
    counts = Counter("pruned" if each.pruned else STATES.get(each.state, each.state) for each in record.trials)
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _validation(trial: RecordedTrial) -> Points:
    curve = trial.curve
    return [] if curve is None else [*zip(curve.validation_steps, curve.validation_loss, strict=True)]


def _training(trial: RecordedTrial) -> Points:
    curve = trial.curve
    return [] if curve is None else [*zip(curve.steps, curve.loss, strict=True)]


def _state(trial: RecordedTrial) -> str:
    if trial.pruned:
        return "pruned"
    return trial.reason or STATES.get(trial.state, trial.state)


_ENVIRONMENT = environment("trimtab_trainer.sweep")
_ENVIRONMENT.filters.update(label=lambda value: label(value, 28), whole=whole, state=_state)
_TABLE: dict[str, Any] = {"most_rows": ROWS, "most_axes": AXES}
_ENVIRONMENT.globals.update(_TABLE)
