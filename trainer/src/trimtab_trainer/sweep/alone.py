"""`trimtab-trainer sweep`: the search of a FineTuneSweep on one machine, its trials one after another.

The same points as in a cluster with `parallelTrials: 1`, for the same function chooses them; the same trials, known by
their parameters; each is a run of the ordinary commands, so what was trained before is found and not trained again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from pydantic import ValidationError

from ..contract import ExitCode, Reason, RunIdentity, digest_of
from ..contract.sweeps.record import RecordedTrial, SweepRecord, words_of
from ..contract.sweeps.settings import Direction, KnownTrial, SuggestionRequest, TrialState, all_begun
from ..errors import SCRATCH_FULL, SettingsInvalid, StorageFailed, TrainerError
from ..interruption import Interruption
from .axes import whole
from .command import summary, with_importance, write_folder
from .configuration import METRIC, LoneSearch, Trial, read_search
from .ledger import Ledger, searching
from .running import Ran, ran

VALUE_MISSING, ROWS_DIFFER = "ValueMissing", "ValidationRowsDiffer"
PASSING = frozenset({Reason.STORAGE_FAILED, Reason.HUB_UNREACHABLE, Reason.HUB_QUOTA_EXCEEDED})
"""Ends that say nothing of a trial: the search stops, and goes on when it is run again."""
AGAIN = "run the same command again, and it goes on"
OF_THE_POINT = frozenset(
    {
        Reason.SETTINGS_INVALID,
        Reason.TARGET_MODULES_NOT_FOUND,
        Reason.SEQUENCE_TOO_LONG,
        Reason.DATASET_EMPTY,
        Reason.OUT_OF_MEMORY,
    }
)
"""Ends that other settings may not meet; any other, before there is a value at all, is of what all trials share."""


def run(config: Path, folder: Path | None, stop: Interruption) -> int:
    """Search to the end, and print the best; return the exit code.

    Raises:
        SettingsInvalid: the search cannot be carried out, another process is at it, or no trial has a value.
        StorageFailed: the folder, or what the search writes to, is full or gone.
        Interrupted: told to stop.
    """
    search = read_search(config)
    folder = folder or config.absolute().with_suffix(".sweep")
    with searching(folder):
        try:
            return _searched(Ledger.open(folder, search), stop)
        except BrokenPipeError:  # who read the table has gone, and no folder is at fault
            raise
        except OSError as error:
            raise StorageFailed(
                f"{error.filename or folder}: {error.strerror or error}; mend that and {AGAIN}"
            ) from error


def _searched(ledger: Ledger, stop: Interruption) -> int:
    search = ledger.search
    for sentence in search.ignored:
        print(f"ignored: {sentence}")
    table = Table(search)
    for known in ledger.recorded:
        if not known.running:
            table.row(known, ledger.recorded)
    while not (why := why_no_more(ledger)):
        stop.check()
        trial = ledger.unfinished or next_trial(ledger)
        if trial is None:
            why = f"all {len(ledger.trials)} points of the search space were tried"
            break
        result = tried(ledger, trial, stop)
        ledger.end(trial, result)
        table.row(result, ledger.recorded)
        write_folder(record(ledger), ledger.folder)
    made = with_importance(record(ledger).model_copy(update={"ended": why}))
    page = write_folder(made, ledger.folder)
    print(f"{why}\n{summary(made)}\npage: {page}", flush=True)
    if not made.ranked:
        reasons = sorted({each.reason for each in made.trials if each.reason})
        raise SettingsInvalid(f"no trial has a value ({', '.join(reasons)}); see {ledger.folder / 'trials'}")
    return int(ExitCode.DONE)


def record(ledger: Ledger) -> SweepRecord:
    """Return the search so far."""
    search = ledger.search
    return SweepRecord(
        run=RunIdentity(name=search.name),
        parameters=search.spec.parameters,
        objective=search.spec.objective,
        algorithm=search.spec.algorithm.type.value,
        folds=search.spec.folds,
        trials=ledger.recorded,
    )


def next_trial(ledger: Ledger) -> Trial | None:
    """Choose the next point and write it down; None where there is no other.

    Raises:
        SettingsInvalid: the algorithm takes a library that is not installed.
    """
    asked, names = request(ledger), {each.id for each in ledger.trials}
    try:
        from .suggest import suggest

        while (points := suggest(asked)) and ledger.search.at(points[0]).id in names:  # the digits of another point
            asked = replace(asked, trials=(*asked.trials, KnownTrial(points[0], TrialState.BAD)))
    except ModuleNotFoundError as error:
        raise SettingsInvalid(
            f"choosing trials takes {error.name}: pip install 'trimtab-trainer[sweep]', or set algorithm.type to Grid"
        ) from error
    return ledger.begin(points[0]) if points else None


def request(ledger: Ledger) -> SuggestionRequest:
    """Return what the next point depends on."""
    spec = ledger.search.spec
    known = tuple(
        KnownTrial(trial.point, TrialState.COMPLETE if each.value is not None else TrialState.BAD, each.value)
        for trial, each in zip(ledger.trials, ledger.recorded, strict=True)
    )
    space = tuple(each.nameless for each in ledger.search.dimensions)
    return SuggestionRequest(space, spec.algorithm.type, spec.algorithm.seed, spec.objective.direction, known)


def why_no_more(ledger: Ledger) -> str:
    """Return why no other trial is begun, "" if one may be. A trial that was begun is ended first."""
    if ledger.unfinished is not None:
        return ""
    spec, known = ledger.search.spec, ledger.recorded
    if len(known) >= spec.max_trials:
        return all_begun(spec.max_trials, spec.algorithm.type, ledger.search.dimensions)
    patience = spec.stop_after_trials_without_improvement
    if patience is not None and without_improvement(known, spec.objective.direction) >= patience:
        return f"{patience} trials in a row were no better"
    budget = spec.budget.accelerator_seconds if spec.budget is not None else None
    if budget is not None:
        costs = [each.accelerator_seconds or 0.0 for each in known]
        done = [each.accelerator_seconds or 0.0 for each in known if each.value is not None]
        spent, one = sum(costs), fmean(done) if done else 0.0
        if spent + one > budget or spent >= budget:
            return (
                f"another trial would exceed budget.acceleratorSeconds = {budget}: {spent:.0f} are spent, and one "
                f"takes {one:.0f}"
            )
    return ""


def without_improvement(known: Sequence[RecordedTrial], direction: Direction) -> int:
    """Return how many trials with a value were begun after the best one."""
    sign = 1 if direction is Direction.MINIMIZE else -1
    values = [sign * each.value for each in known if each.value is not None]
    return len(values) - 1 - values.index(min(values)) if values else 0


def tried(ledger: Ledger, trial: Trial, stop: Interruption) -> RecordedTrial:
    """Run all runs of a trial; return what came of it.

    Raises:
        Interrupted: told to stop.
        StorageFailed, TrainerError: an end that says nothing of this trial alone.
    """
    bad = RecordedTrial(id=trial.id, parameters=dict(trial.parameters), state=TrialState.BAD.value)
    done: list[Ran] = []
    for name in trial.runs:
        try:
            config = ledger.search.config(trial, name)
        except ValidationError as error:
            print(f"{trial.id}: {words_of(error)}", flush=True)
            return bad.model_copy(update={"reason": Reason.SETTINGS_INVALID.value})
        made = ran(config, ledger.of(trial), name, stop)
        done.append(made)
        if made.reason in PASSING:
            raise StorageFailed(f"{made.message}; {AGAIN}", made.reason)
        if made.message.startswith(SCRATCH_FULL):  # of the machine, whatever the settings
            raise StorageFailed(f"trial {trial.id}: {made.message.partition(';')[0]}; free some and {AGAIN}")
        if made.reason is not None:
            if made.reason not in OF_THE_POINT and not any(each.value is not None for each in ledger.recorded):
                raise TrainerError(f"trial {trial.id}: {made.message}", made.reason)
            print(f"{trial.id}: {made.message}", flush=True)
            return bad.model_copy(update={"reason": made.reason.value, "accelerator_seconds": _cost(done)})
    values = [each.value for each in done if each.value is not None]
    if len(values) < len(done):
        return bad.model_copy(update={"reason": VALUE_MISSING, "accelerator_seconds": _cost(done)})
    rows = rows_of(done)
    others = (each.rows_digest for each in ledger.recorded if each.value is not None)
    compared_by = next((each for each in others if each is not None), rows)
    if rows is not None and rows != compared_by:
        print(f"{trial.id}: it was measured on other validation rows than the first one, and counts as bad", flush=True)
        return bad.model_copy(update={"reason": ROWS_DIFFER, "accelerator_seconds": _cost(done)})
    deviation = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return RecordedTrial(
        id=trial.id,
        parameters=dict(trial.parameters),
        state=TrialState.COMPLETE.value,
        value=float(f"{fmean(values):.6g}"),
        standard_error=float(f"{deviation:.6g}") if deviation is not None else None,
        accelerator_seconds=_cost(done),
        curve=done[0].curve,
        rows_digest=rows,
    )


def rows_of(done: Sequence[Ran]) -> str | None:
    """Return the digest of the rows that the values of some runs are of, all together; None where that is not known."""
    digests = [each.rows for each in done if each.rows is not None]
    if len(digests) < len(done):
        return None
    return digests[0] if len(digests) == 1 else digest_of(digests)


def _cost(done: Sequence[Ran]) -> float:
    """Return accelerator seconds; a machine without accelerators counts as one."""
    return round(sum(each.accelerator_seconds or each.seconds for each in done), 1)


class Table:
    """A row for each trial that is over, as it ends."""

    def __init__(self, search: LoneSearch) -> None:
        self._search = search
        self._begun = False

    def row(self, trial: RecordedTrial, known: Sequence[RecordedTrial]) -> None:
        """Print one trial, and whether it is the best so far."""
        spec = self._search.spec
        if not self._begun:
            print(f"{'trial':<10}{'number':>7}  {METRIC:>14}  {'seconds':>8}  parameters")
            self._begun = True
        number = 1 + next(n for n, each in enumerate(known) if each.id == trial.id)
        sign = 1 if spec.objective.direction is Direction.MINIMIZE else -1
        before = [sign * each.value for each in known[:number] if each.value is not None]
        best = trial.value is not None and sign * trial.value <= min(before)
        value = f"{trial.value:.4g}{' *' if best else '  '}" if trial.value is not None else trial.reason or "no value"
        settings = ", ".join(f"{name} = {whole(each)}" for name, each in trial.parameters.items())
        seconds = trial.accelerator_seconds or 0.0
        print(f"{trial.id:<10}{f'{number}/{spec.max_trials}':>7}  {value:>14}  {seconds:>8.0f}  {settings}", flush=True)
