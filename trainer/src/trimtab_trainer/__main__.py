"""`trimtab-trainer mirror|prepare|train|evaluate|judge|report|track|export`: one stage in one process, for a pod and
for a laptop alike; and `check|estimate|ask|import|merge|sweep|sweep-report`, for people.

Every end is told three ways: the exit code, the last event on stdout, and the termination message (JSON) in the file
that Kubernetes keeps. Only `train`, `evaluate`, `ask`, `export` and `merge` import torch.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .command import ask, before, merge, terminal
from .command.settings_help import settings_help
from .config import ONE_VERSION, at_the_mirror, read_config, read_export, read_found
from .contract import (
    NODES,
    TRAIN_LIMITS,
    Artifact,
    EvaluationConfig,
    EvaluationOutcome,
    ExitCode,
    ExportConfig,
    Mirrored,
    MirroredSource,
    Prepared,
    PreparedEvaluation,
    Reason,
    RunConfig,
    RunIdentity,
    Stage,
    Summary,
    TerminationMessage,
    TrackingRecord,
    TrainLimits,
    canonical_json,
)
from .contract.outcome import PACKED_OUTCOME_BYTES
from .contract.sweeps.record import SweepRecord
from .errors import SCRATCH_FULL, OutOfMemory, SettingsInvalid, StorageFailed, TrainerError
from .interruption import Interruption
from .report import Report, Trouble
from .storage import open_store
from .sweep import command as sweep
from .sweep.files import read_record
from .training.distributed.nodes import Nodes, nodes
from .training.distributed.processes import Place, end_with_parent, processes
from .training.machine.accelerator import check_alone

if TYPE_CHECKING:
    from .progress import ProgressBoard

FOR_PEOPLE = ("ask", "merge", *before.COMMANDS, *sweep.COMMANDS)
"""Commands that are no stage of a run: nobody waits for their last words."""
USAGE = 2
"""Exit code of a command line that cannot be understood, where nobody asked for last words."""
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def main(arguments: list[str] | None = None) -> int:
    """Run a stage; return its exit code."""
    try:
        options = parser().parse_args(arguments)
    except Unusable as error:
        return _unusable(arguments if arguments is not None else sys.argv[1:], error)
    # Models come from object storage only: no library may look for files, kernels or updates elsewhere, but for the one
    # stage that asks a hub.
    if options.stage == Stage.MIRROR:
        os.environ["HF_HUB_OFFLINE"] = "0"
    else:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch is loaded. Threads that wait sleep: where programs share processors, spinning ones take the time
    # of those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    stop = Interruption()
    with stop.listening():
        return _run(options, stop)


class Unusable(Exception):
    """Arguments that are none of this version's, with the usage to show to a person."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unusable(message, self.format_usage())


def _unusable(arguments: list[str], error: Unusable) -> int:
    """Tell a person how to write it, and an operator by name what its version asks for that this one does not know."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    words.add_argument("--termination-log", type=Path)
    words.add_argument("--attempt", type=int, default=0)
    try:
        known, _ = words.parse_known_args(arguments)
    except (argparse.ArgumentError, SystemExit):
        known = argparse.Namespace(termination_log=None)
    if known.termination_log is None:
        print(f"{error.usage}trimtab-trainer: error: {error}", file=sys.stderr)
        return USAGE
    stage = arguments[0] if arguments and arguments[0] in set(Stage) else Stage.TRAIN.value
    report = Report({"stage": stage})
    message = f"arguments: {error}; {ONE_VERSION}"
    report.error("stage ended early", reason=Reason.SETTINGS_INVALID.value, error=message)
    last = TerminationMessage(
        stage=Stage(stage),
        run_uid=RunIdentity().uid,
        attempt=known.attempt,
        reason=Reason.SETTINGS_INVALID,
        message=message,
    )
    _write(last, known.termination_log, report)
    return int(ExitCode.SETTINGS_INVALID)


def parser() -> argparse.ArgumentParser:
    """Return the command line.

    Raises:
        Unusable: when it parses arguments that it does not know.
    """
    top = _Parser(prog="trimtab-trainer", description="Fine-tunes language models with QLoRA, and evaluates them.")
    stages = top.add_subparsers(dest="stage", required=True)
    mirror = stages.add_parser("mirror", help="copy what is on a hub (hf://) into the output; the others read it there")
    prepare = stages.add_parser("prepare", help="check everything and put the data in place; needs no GPU and no torch")
    train = stages.add_parser("train", help="train and publish the adapter; prepares first unless --prepared is given")
    evaluate = stages.add_parser(
        "evaluate",
        help="evaluate an adapter; without --prepared it prepares first, and has an endpoint judge last",
    )
    judge = stages.add_parser(
        "judge", help="have an endpoint judge what `evaluate` stored, or look whether it can; needs no GPU and no torch"
    )
    page = stages.add_parser("report", help="write the page of a search into its output; needs no GPU and no torch")
    track = stages.add_parser("track", help="tell a tracker (MLflow) what a run measured; needs no GPU and no torch")
    export = stages.add_parser("export", help="make one model of a base model and an adapter; needs no GPU")
    for stage in (mirror, prepare, train, evaluate, judge, page, track, export):
        stage.add_argument(
            "--config", type=Path, required=True, help="configuration of the run, the evaluation or the export"
        )
        stage.add_argument("--scratch", type=Path, help="folder for local copies; a temporary one if absent")
        stage.add_argument("--attempt", type=int, default=0, help="counts the attempts of a run")
        stage.add_argument("--termination-log", type=Path, help="file for the last words, JSON")
        stage.add_argument("--progress-port", type=int, help="serve /progress and /metrics on this port")
        stage.add_argument("--mirrored", help="what mirror found: JSON, or a file that holds it")
    mirror.add_argument("--found", type=Path, help="file to write what was found to, for --mirrored of the others")
    for stage in (train, evaluate, judge):
        found = "what prepare found: JSON, or a file that holds it"
        stage.add_argument("--prepared", required=stage is judge, help=found)
    before.add_parsers(stages)
    sweep.add_parsers(stages)
    for each in stages.choices.values():
        each.formatter_class = argparse.RawDescriptionHelpFormatter
    for name in ("prepare", "train", *before.ABOUT_A_RUN):
        stages.choices[name].epilog = settings_help()
    ask.add_arguments(stages.add_parser("ask", help="ask the base model and the adapter the same question"))
    merge.add_arguments(
        stages.add_parser("merge", help="make one model of a base model and a published adapter; needs no GPU")
    )
    return top


def _run(options: argparse.Namespace, stop: Interruption) -> int:
    """Run one stage and tell how it ended."""
    place = Place.told(os.environ)
    report = Report({"stage": options.stage}, terminal.Lines() if terminal.watched() else None)
    if place is not None:
        end_with_parent()
        report = report if place.leads else Trouble({**report.context, "rank": place.rank}, report.stream)
    last = TerminationMessage(
        stage=Stage.TRAIN if options.stage in FOR_PEOPLE else Stage(options.stage),
        run_uid=RunIdentity().uid,
        attempt=getattr(options, "attempt", 0),
        reason=Reason.COMPLETED,
    )
    code = ExitCode.DONE
    try:
        if options.stage == "ask":
            ask.run(options)
            return int(code)
        if options.stage == "merge":
            with stop.at_once():
                return merge.run(options, report)
        if options.stage in before.COMMANDS:
            return before.run(options)
        if options.stage in sweep.COMMANDS:
            return sweep.run(options, stop)
        config = _config(options.config, last.stage)
        last = last.model_copy(update={"run_uid": config.run.uid})
        run = f"{config.run.namespace}/{config.run.name}"
        report = replace(report, context={**report.context, "run": run, "attempt": options.attempt})
        with ExitStack() as stack:
            scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trimtab-")))
            scratch.mkdir(parents=True, exist_ok=True)
            last = last.model_copy(update=_stage(options, config, scratch, report, stop))
    except Exception as error:  # every end has last words
        known = named(error)
        if known is None:
            known = TrainerError(f"{type(error).__name__}: {error}")
            report.error("stage ended by a bug", error=known.message, trace=traceback.format_exc())
        else:
            report.error("stage ended early", reason=known.reason.value, error=known.message)
        last = last.model_copy(update={"reason": known.reason, "message": known.message})
        if isinstance(known, StorageFailed):
            last = last.model_copy(update={"retry_after_seconds": known.retry_after})
        code = known.exit_code
    if getattr(options, "termination_log", None) is not None:
        _write(last, options.termination_log, report)
    return int(code)


def _config(file: Path, stage: Stage) -> RunConfig | EvaluationConfig | SweepRecord | TrackingRecord | ExportConfig:
    if stage is Stage.REPORT:
        return read_record(file)
    if stage is Stage.TRACK:
        from .tracking.stage import read_tracking

        return read_tracking(file)
    if stage is Stage.EXPORT:
        return read_export(file)
    return read_config(file, stage)


def _write(last: TerminationMessage, file: Path, report: Report) -> None:
    try:
        file.write_text(last.encode())
    except OSError as error:
        report.warn("termination log cannot be written", file=str(file), error=str(error))


def _stage(
    options: argparse.Namespace,
    config: RunConfig | EvaluationConfig | SweepRecord | TrackingRecord | ExportConfig,
    scratch: Path,
    report: Report,
    stop: Interruption,
) -> dict[str, Any]:
    """Run one stage; return what the termination message says of it."""
    # Only a pod of several that train tells of the others.
    if options.stage != Stage.TRAIN or NODES not in os.environ:
        check_alone(os.environ)
    if isinstance(config, TrackingRecord):
        # Whoever comes next finds the run by its uid, and tells what is missing.
        with stop.at_once(), _progress(options, config.run, Stage.TRACK, report):
            from .tracking.stage import track

            return {"message": track(config, report)}
    if isinstance(config, SweepRecord):
        # Both files are written whole, and again by whoever comes next.
        with stop.at_once(), _progress(options, config.run, Stage.REPORT, report):
            from .sweep.stage import write_report

            return {"message": write_report(config, report)}
    if isinstance(config, ExportConfig):
        # What is stored before the manifest does not exist, so nothing in it can be torn.
        with stop.at_once(), _progress(options, config.run, Stage.EXPORT, report) as board:
            from .exporting.stage import export

            return {"exported": export(config, scratch, report, board)}
    mirrored = read_found(options.mirrored, Mirrored, "--mirrored")
    if options.stage == Stage.MIRROR:
        return _mirroring(options, config, mirrored or Mirrored(), scratch, report, stop)
    if mirrored is not None and mirrored.sources:
        from .hub.notes import check_there

        check_there(open_store(config.output.uri, config.output.credentials), mirrored)
    if isinstance(config, EvaluationConfig):
        return _evaluation(options, at_the_mirror(config, mirrored), scratch, report, stop)
    origin = mirrored.of(config.base_model.uri) if mirrored is not None else None
    return _fine_tuning(options, at_the_mirror(config, mirrored), origin, scratch, report, stop)


def _mirroring(  # noqa: PLR0917 what every stage is given, and what it has found before
    options: argparse.Namespace,
    config: RunConfig | EvaluationConfig,
    known: Mirrored,
    scratch: Path,
    report: Report,
    stop: Interruption,
) -> dict[str, Any]:
    """Bring what is on a hub into the output; return what the termination message says of it."""
    # Read when the library is loaded: it keeps nothing, and nothing beside the scratch folder.
    os.environ.update(HF_HOME=str(scratch / "hub-home"), HF_XET_CHUNK_CACHE_SIZE_BYTES="0")
    os.environ.update(HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    # A file goes to the output whole or not at all, so nothing in it can be torn.
    with stop.at_once(), _progress(options, config.run, Stage.MIRROR, report) as board:
        from .hub.mirror import mirror

        mirrored = mirror(config, known, scratch, report, board)
    if options.found is not None:
        options.found.write_text(json.dumps(mirrored.to_json(), indent=2) + "\n")
    return {"mirrored": mirrored}


def _fine_tuning(  # noqa: PLR0917 what every stage is given, and where the base model came from
    options: argparse.Namespace,
    config: RunConfig,
    origin: MirroredSource | None,
    scratch: Path,
    report: Report,
    stop: Interruption,
) -> dict[str, Any]:
    """Run prepare or train; return what the termination message says of it."""
    prepared = read_found(options.prepared, Prepared) if options.stage == Stage.TRAIN else None
    place, together = Place.told(os.environ), Nodes()
    if place is None and options.stage == Stage.TRAIN:
        together = nodes(os.environ, processes(os.environ))
    if prepared is None and together.count > 1:
        raise SettingsInvalid("of several pods none prepares: run `prepare` once, and give all of them its --prepared")
    warnings: tuple[str, ...] = ()
    if prepared is None:
        # Preparing can be repeated, so nothing in it can be torn.
        with stop.at_once(), _progress(options, config.run, Stage.PREPARE, report):
            from .prepare import prepare

            outcome = prepare(config, scratch, report, _limits(report))
        prepared, warnings = outcome.prepared, outcome.warnings
        if options.stage == Stage.PREPARE or outcome.artifact is not None:
            summary = outcome.summary.model_copy(update={"total_steps": prepared.total_steps})
            return {
                "prepared": prepared,
                "artifact": outcome.artifact,
                "summary": summary,
                "warnings": warnings,
            }
    if together.size > 1:
        artifact, summary = _together(together, options, config, prepared, scratch, report, stop)
        return {"prepared": prepared, "artifact": artifact, "summary": summary, "warnings": warnings}
    if place is not None and not place.leads:
        with stop.at_once():
            from .training.train import follow
        follow(config, prepared, options.attempt, scratch, report, stop, place)
        return {}
    with _progress(options, config.run, Stage.TRAIN, report) as board:
        with stop.at_once():
            from .training.train import train
        artifact, summary = train(config, prepared, options.attempt, scratch, report, board, stop, origin, place)
    return {"prepared": prepared, "artifact": artifact, "summary": summary, "warnings": warnings}


def _together(  # noqa: PLR0917 what every stage is given
    nodes: Nodes,
    options: argparse.Namespace,
    config: RunConfig,
    prepared: Prepared,
    scratch: Path,
    report: Report,
    stop: Interruption,
) -> tuple[Artifact | None, Summary]:
    """Train in several processes, unless the run has its result already."""
    from .publishing.result import read_result
    from .training.distributed.supervisor import supervise

    with stop.at_once():
        store = open_store(config.output.uri, config.output.credentials)
        done = read_result(store, prepared.run_digest, report)
    if done is not None:
        report("this run has its result already", digest=done.digest)
        return done.artifact, done.summary
    arguments = [options.stage, "--config", str(options.config), "--scratch", str(scratch)]
    arguments += ["--attempt", str(options.attempt), "--prepared", canonical_json(prepared.to_json()).decode()]
    if options.progress_port is not None:
        arguments += ["--progress-port", str(options.progress_port)]
    if options.mirrored is not None:
        arguments += ["--mirrored", options.mirrored]
    words = supervise(nodes, arguments, scratch, stop, report)
    return words.artifact, words.summary


def _limits(report: Report) -> TrainLimits | None:
    """Return what the pod that will train has, where an operator tells it."""
    try:
        return TrainLimits.told(os.environ)
    except ValueError as error:
        report.warn("what the train stage will have cannot be read", variable=TRAIN_LIMITS, error=str(error))
        return None


def _evaluation(
    options: argparse.Namespace, config: EvaluationConfig, scratch: Path, report: Report, stop: Interruption
) -> dict[str, Any]:
    """Run prepare, evaluate or judge; return what the termination message says of it.

    In a cluster judging is a stage of its own, which holds no accelerator, and has a look at the judge first. What
    evaluates alone does all of it.
    """
    asks, stage = options.stage == Stage.EVALUATE, Stage(options.stage)
    given = read_found(options.prepared, PreparedEvaluation) if stage in (Stage.EVALUATE, Stage.JUDGE) else None
    prepared, warnings = given, tuple[str, ...]()
    outcome: EvaluationOutcome | None = None
    if prepared is None:
        with stop.at_once(), _progress(options, config.run, Stage.PREPARE, report):
            from .evaluate.prepare import prepare_evaluation

            found = prepare_evaluation(config, scratch, report)
        prepared, outcome, warnings = found.prepared, found.outcome, found.warnings
    looks = given is None and asks and outcome is None and config.judged_apart
    if looks or (stage is Stage.JUDGE and prepared.answers_digest is None):
        with _progress(options, config.run, Stage.JUDGE, report) as board:
            from .evaluate.judge import look

            look(config, report, board, stop)
        if stage is Stage.JUDGE:
            return {"judge_ready": True}
    answers: str | None = None
    if asks and outcome is None:
        with _progress(options, config.run, Stage.EVALUATE, report) as board, stop.at_once():
            from .evaluate.stage import evaluate

            ended = evaluate(config, prepared, options.attempt, scratch, report, board, stop)
        answers, outcome = (ended, None) if isinstance(ended, str) else (None, ended)
    if stage is Stage.JUDGE or (answers is not None and given is None):
        answered = prepared.model_copy(update={"answers_digest": answers}) if answers is not None else prepared
        with _progress(options, config.run, Stage.JUDGE, report) as board:
            from .evaluate.judge import judge

            outcome = judge(config, answered, scratch, report, board, stop)
    if asks and outcome is not None and options.termination_log is None:
        from .evaluate.reporting.terminal import table

        print(table(config, outcome), flush=True)
    packed = outcome.pack(PACKED_OUTCOME_BYTES) if outcome is not None else None
    told = {"prepared_evaluation": prepared, "packed_outcome": packed, "warnings": warnings}
    return {**told, "answers_digest": answers if outcome is None else None}


@contextmanager
def _progress(options: argparse.Namespace, run: RunIdentity, stage: Stage, report: Report) -> Iterator[ProgressBoard]:
    """Serve the stage's figures; a port that is taken is a warning, for no stage depends on it."""
    from .progress import ProgressBoard, ProgressServer

    activity = {
        Stage.MIRROR: "Mirroring",
        Stage.PREPARE: "Preparing",
        Stage.REPORT: "Reporting",
        Stage.TRACK: "Tracking",
    }.get(stage, "Loading")
    board = ProgressBoard(run.uid, options.attempt, stage, activity)
    with ExitStack() as stack:
        if options.progress_port is not None:
            try:
                stack.enter_context(ProgressServer("", options.progress_port, board))
            except OSError as error:
                report.warn("progress cannot be served", port=options.progress_port, error=str(error))
        if terminal.watched():
            bar = board.watcher = terminal.Bar(sys.stderr)
            stack.callback(bar.close)
        yield board


def named(error: Exception) -> TrainerError | None:
    """Return the named end that an error means, or None if it is a bug."""
    if isinstance(error, TrainerError):
        return error
    text = str(error)
    # torch's own error is known by name, so that prepare needs no torch to tell it
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"memory ran out ({text.partition(chr(10))[0][:200]}); raise the memory limit")
    if isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY_WORDS):
        return OutOfMemory(f"memory ran out ({text.partition(chr(10))[0][:200]}); raise the memory limit")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""  # of a write it is not known
        return SettingsInvalid(f"{SCRATCH_FULL}{where}; raise the pod's ephemeral-storage limit")
    return None


if __name__ == "__main__":
    sys.exit(main())
