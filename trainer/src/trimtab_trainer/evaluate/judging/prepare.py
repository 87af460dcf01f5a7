"""What of a judge can be refused before a GPU is asked for. No torch, and no endpoint is asked."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.architecture import check_architecture
from ...base.base_model import check_pin, digest_of_entries, entries_of, find_base_model
from ...contract import EvaluationConfig, EvaluationTask
from ...contract.judging import LABELLED_ROWS, endpoint_trouble
from ...errors import DataInvalid, SettingsInvalid
from ...report import Report
from ..rows import EvaluationRow


def check_judge(config: EvaluationConfig, report: Report) -> None:
    """Refuse an endpoint whose url is none, and a local judge that is not there, or is another one than was pinned.

    Whether an endpoint answers is known to the pod that may ask it, once there are answers.

    Raises:
        SettingsInvalid: of the endpoint; BASE_MODEL_NOT_FOUND, BASE_MODEL_INVALID, BASE_MODEL_CHANGED, of the model.
    """
    if config.judge is not None and config.judge.endpoint is not None:
        trouble = endpoint_trouble(config.judge.endpoint.url)
        if trouble is not None:
            raise SettingsInvalid(trouble)
    settings = config.judge.model if config.judge is not None else None
    if settings is None:
        return
    where = settings.as_base_model
    try:
        model = find_base_model(where)
        check_architecture(model)
        check_pin(where, digest_of_entries(entries_of(model)))
    except SettingsInvalid as error:
        raise SettingsInvalid(f"judge.model: {error.message}", error.reason) from error
    report("judge checked", uri=settings.uri, digest=settings.digest)


def check_labels(task: EvaluationTask, rows: Sequence[EvaluationRow]) -> None:
    """Refuse a task whose judge is to be measured on rows that nobody judged.

    Raises:
        DataInvalid
    """
    if task.judging is None or task.judging.minimum_agreement is None:
        return
    labelled = sum(row.worse is not None or row.score is not None for row in rows)
    if labelled < LABELLED_ROWS:
        raise DataInvalid(
            f"task {task.name}: {labelled} of its {len(rows)} rows have people's judgement (the column worse, of a "
            f"Rubric score), and minimumAgreement needs {LABELLED_ROWS}; add it, or remove minimumAgreement"
        )
