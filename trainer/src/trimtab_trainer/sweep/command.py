"""`trimtab-trainer sweep-report` and `sweep`: a search as people see and run it without a cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..contract.sweeps.record import RecordedTrial, SweepRecord
from ..errors import SettingsInvalid, TrainerError
from ..interruption import Interruption
from ..storage import open_store
from ..storage.store import replacing
from . import files
from .axes import whole

COMMANDS = ("sweep", "sweep-report")
NO_OPTUNA = "importance of parameters is left out: it takes Optuna; pip install 'trimtab-trainer[sweep]'"


def add_parsers(stages: Any) -> None:
    """Add both to the subcommands of `trimtab-trainer`."""
    sweep = stages.add_parser("sweep", help="search settings alone: the trials of a FineTuneSweep one after another")
    sweep.add_argument("--config", type=Path, required=True, help="a FineTuneSweep, or its spec, as YAML or JSON")
    sweep.add_argument("--folder", type=Path, help="where it keeps what it knows; beside the configuration if absent")
    report = stages.add_parser("sweep-report", help="one page that compares the trials of a sweep, or any runs")
    report.add_argument(
        "place",
        metavar="FOLDER",
        help="of a sweep (with trials.jsonl), or the output of some runs; or s3://bucket/prefix",
    )
    report.add_argument("--output", type=Path, help="folder to write sweep.html to; FOLDER itself if absent")


def run(options: argparse.Namespace, stop: Interruption) -> int:
    """Run one of them for a person; return the exit code."""
    try:
        if options.stage == "sweep":
            from . import alone

            return alone.run(options.config, options.folder, stop)
        report(options.place, options.output)
        return 0
    except TrainerError as error:
        print(f"{error.reason.value}: {error.message}", file=sys.stderr)
        return int(error.exit_code)


def report(place: str, output: Path | None) -> None:
    """Write the page of a place.

    Raises:
        SettingsInvalid: there is nothing to compare, or nowhere to write to.
    """
    local = "://" not in place
    if output is None and not local:
        raise SettingsInvalid(f"{place} is no folder of this machine; say with --output where to write the page")
    folder = Path(place).absolute()
    if local and folder.is_file():
        folder = folder.parent
    record = files.read_place(open_store(folder.as_uri() if local else place, None))
    record = record.model_copy(update={"run": record.run.model_copy(update={"name": folder.name or "runs"})})
    try:
        written = write_folder(with_importance(record), output or folder)
    except OSError as error:
        raise SettingsInvalid(f"{output or folder}: {error.strerror}; give another folder with --output") from error
    print(f"{summary(record)}\npage: {written}")


def with_importance(record: SweepRecord) -> SweepRecord:
    """Return the same with what matters in it, where that can be told."""
    from .importance import importance_of

    try:
        return record.model_copy(update={"importance": importance_of(record)})
    except ModuleNotFoundError:
        print(NO_OPTUNA, file=sys.stderr)
        return record


def write_folder(record: SweepRecord, folder: Path) -> Path:
    """Write both files into a folder; return the page.

    Raises:
        OSError: it cannot be written to.
    """

    def put(name: str, data: bytes) -> None:
        with replacing(folder / name) as file:
            file.write(data)

    files.write(record, put)
    return folder / files.PAGE


def summary(record: SweepRecord) -> str:
    """Return in a line how many trials there are, and which is best."""
    ranked = [each for each in record.ranked if not each.pruned]
    if not ranked:
        return f"{len(record.trials)} trials, none of which has a value"
    return f"{len(record.trials)} trials; the best is {said(ranked[0], record.objective.metric)}"


def said(trial: RecordedTrial, metric: str) -> str:
    """Return a trial in words."""
    error = f" (standard error {trial.standard_error:.2g})" if trial.standard_error is not None else ""
    settings = ", ".join(f"{name} = {whole(value)}" for name, value in trial.parameters.items())
    return f"{trial.name or trial.id} with {metric} {trial.value:.4g}{error}: {settings}"
