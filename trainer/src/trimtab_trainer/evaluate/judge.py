"""The judge stage, which asks a judge's endpoint. `__main__` calls `look` before there are answers, and `judge` then.

It holds no accelerator and needs no torch; no other stage has the judge's key. A look asks a question or two, so that
what cannot judge ends an evaluation before an accelerator is asked for. Then it goes from stored answers to published
results: what the judge says is stored as it comes, so a signal may end it at once, and the next attempt asks what was
not answered.
"""

from __future__ import annotations

from pathlib import Path

from ..contract import EvaluationConfig, EvaluationOutcome, PreparedEvaluation
from ..errors import SettingsInvalid
from ..interruption import Interruption
from ..progress import ProgressBoard
from ..report import Report
from ..storage import open_store
from .asking.answers import read_answers
from .conclusion import Conclusion
from .judging.endpoint import Endpoint
from .judging.look import look_at
from .preparing.looks import note_looks
from .preparing.task_store import load_tasks
from .reporting.outcome_store import read_outcome


def look(config: EvaluationConfig, report: Report, board: ProgressBoard, stop: Interruption) -> None:
    """Ask the judge's endpoint about answers of ours; it ends well if it can judge.

    Raises:
        Interrupted: told to stop.
        JudgeFailed: the endpoint does not answer.
        SettingsInvalid: it cannot be asked, or nothing that it says can be read.
    """
    with stop.listening(), stop.at_once():
        board.update(activity="Judging")
        look_at(_endpoint(config), config.tasks, stop, report)
    report("the judge is ready")


def judge(  # noqa: PLR0917 all of them in the order that they are needed
    config: EvaluationConfig,
    prepared: PreparedEvaluation,
    scratch: Path,
    report: Report,
    board: ProgressBoard,
    stop: Interruption,
) -> EvaluationOutcome:
    """Have the judge's endpoint judge what was answered, compare it, and publish what was found.

    Args:
        config: the evaluation.
        prepared: what `prepare` found, with the digest of the answers.
        scratch: a folder for rows, answers and judgements.
        report: where events go.
        board: where progress goes.
        stop: tells when to stop.

    Raises:
        Interrupted: told to stop.
        AnswersMissing: the answers are not in storage any more.
        JudgeFailed: the endpoint does not answer; what it has said is kept.
        TrainerError: settings or storage do not allow it.
    """
    if prepared.answers_digest is None:
        raise ValueError("there are no answers to judge")
    with stop.listening(), stop.at_once():
        store = open_store(config.output.uri, config.output.credentials)
        done = read_outcome(store, prepared.evaluation_digest)
        if done is not None:
            report("this evaluation has its outcome already", report=done.report_uri)
            return done
        asked = _endpoint(config)
        tasks = load_tasks(store, prepared.data_digest, scratch)
        looks = note_looks(store, prepared.evaluation_digest, config.tasks, tasks)
        answers = read_answers(store, prepared.answers_digest, scratch / "scores", report)
        found = Conclusion(config, prepared, answers, tasks, looks, stop=stop, report=report, board=board)
        found.judge(asked, store, scratch / "judgements")
        outcome = found.publish(store)
    report("published", report=outcome.report_uri, results=outcome.results_digest, rows=outcome.rows)
    return outcome


def _endpoint(config: EvaluationConfig) -> Endpoint:
    endpoint = config.judge.endpoint if config.judge is not None else None
    if endpoint is None or not config.judged_apart:
        raise SettingsInvalid("there is nobody to ask: `judge` wants judge.endpoint, and a task of type Judge")
    return Endpoint(endpoint)
