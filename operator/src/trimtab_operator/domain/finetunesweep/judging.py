"""Evaluations of a sweep's own: those that trials are judged by, those of the final, and the winner's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab_trainer.contract.evaluation import RESULTS

from trimtab_operator.api import API_VERSION, Evaluation, FineTuneSweep
from trimtab_operator.api.evaluation_status import ResultStatus
from trimtab_operator.api.sweep_judging import FinalEvaluation, SweepEvaluation

from ..ownership import controlled_by
from ..plan import Action, Body, Create
from ..views import SWEEP_LABEL
from ..work.building.accelerators import for_one_accelerator
from ..work.building.queue import is_of_queue
from ..work.conditions import condition_of
from .observed import Observed
from .searching import TRIAL_LABEL, Trial

FINAL_SUFFIX = "-end"
"""Behind the name of a trial; with it the longest name has the 45 characters that an Evaluation's may have."""


def missing_evaluations(observed: Observed, running: tuple[Trial, ...]) -> tuple[Action, ...]:
    """Return the creation of Evaluations of trials whose adapters are there. Each has the name of its FineTuneJob."""
    judged = observed.sweep.spec.objective.evaluation
    if judged is None:
        return ()
    return tuple(
        Create(evaluation_of(observed.sweep, judged, name=name, trial=trial.id, job=name))
        for trial in running
        for name in trial.jobs
        if name not in observed.evaluations and has_adapter(observed, name)
    )


def has_adapter(observed: Observed, name: str) -> bool:
    """Tell whether a FineTuneJob has published its adapter."""
    job = observed.jobs.get(name)
    condition = condition_of(job) if job is not None else None
    return condition is not None and condition.status == "True"


def result_of(evaluation: Evaluation, metric: str) -> ResultStatus | None:
    """Return the figure of an Evaluation, None where it has none of that name."""
    return next((each for each in evaluation.status.results if f"{each.task}/{each.metric}" == metric), None)


def final_evaluation(sweep: FineTuneSweep, trial: str, job: str) -> Body:
    """Return the Evaluation of one of the best, to be created."""
    assert sweep.spec.final is not None
    name = f"{sweep.metadata.name}-{trial}{FINAL_SUFFIX}"
    return evaluation_of(sweep, sweep.spec.final.evaluation, name=name, trial=trial, job=job)


def winners_evaluation(sweep: FineTuneSweep, trial: str, job: str) -> Body:
    """Return the Evaluation that others may follow: of the winner alone, with the sweep's name.

    It asks what the winner was asked in the final, so its answer is found and not computed again.
    """
    final = sweep.spec.final
    assert final is not None
    body = evaluation_of(sweep, final.evaluation, name=sweep.metadata.name, trial=trial, job=job)
    metadata = body["metadata"]
    metadata["labels"] = {**final.metadata.labels, **metadata["labels"]}
    if final.metadata.annotations:
        metadata["annotations"] = dict(final.metadata.annotations)
    return body


def evaluation_of(sweep: FineTuneSweep, judged: SweepEvaluation, *, name: str, trial: str, job: str) -> Body:
    """Return an Evaluation of the adapter of a FineTuneJob.

    Of the labels of trials it has those of queues alone: whoever follows Evaluations by the others means none of these.
    """
    me, template = sweep.metadata, sweep.spec.template
    queue = {key: value for key, value in template.metadata.labels.items() if is_of_queue(key)}
    asked: dict[str, Any] = {
        "target": {"fineTuneJobName": job},
        "tasks": tasks_of(judged),
        "datasetSecretName": judged.dataset_secret_name,
        "batchSize": judged.batch_size,
        "retries": template.spec.retries.to_json_as_read(),
        "template": for_one_accelerator(template.spec.template).to_json_as_read(),
    }
    if isinstance(judged, FinalEvaluation):
        asked["baseline"] = judged.baseline.to_json_as_read() if judged.baseline is not None else None
        asked["thresholds"] = thresholds_of(sweep, judged)
    return {
        "apiVersion": API_VERSION,
        "kind": "Evaluation",
        "metadata": {
            "name": name,
            "namespace": me.namespace,
            "labels": {**queue, SWEEP_LABEL: me.name, TRIAL_LABEL: trial},
            "ownerReferences": [controlled_by("FineTuneSweep", me)],
        },
        "spec": {key: value for key, value in asked.items() if value is not None},
    }


def tasks_of(judged: SweepEvaluation) -> list[Mapping[str, Any]]:
    """Return the tasks with that of the metric first, and its metric first in it: the status has room for few figures,
    and has the first of each task before all others."""
    first, figure = judged.task, judged.metric.partition("/")[2]
    made: list[Mapping[str, Any]] = []
    for task in sorted(judged.tasks, key=lambda each: each is not first):
        chosen = sorted(task.chosen_metrics, key=lambda metric: figure not in RESULTS[metric])
        one = task.to_json_as_read()
        made.append({**one, "metrics": [metric.value for metric in chosen]} if task is first and chosen else one)
    return made


def thresholds_of(sweep: FineTuneSweep, judged: FinalEvaluation) -> list[Mapping[str, Any]]:
    """Return the thresholds as each of the best is held to them: by Bonferroni, so that one of `topTrials` adapters
    that are not good enough passes with at most the probability that is allowed to one of them."""
    count = sweep.spec.final.top_trials if sweep.spec.final is not None else 1
    return [
        {**each.to_json_as_read(), "confidence": round(1 - (1 - each.confidence) / count, 9)}
        for each in judged.thresholds
        if each.confidence is not None
    ]
