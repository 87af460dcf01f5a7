"""Whether a sweep can be carried out, and its trials be compared: what is known of that before anything is begun.

What is not known yet (how many rows are too long for a sequence) is found by the digest of the validation rows that
each trial reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from trimtab_trainer.contract import Method
from trimtab_trainer.contract.evaluation import EvaluationTask
from trimtab_trainer.contract.settings import TrainingSettings
from trimtab_trainer.contract.sweeps.checks import check_search, check_template, check_test_split
from trimtab_trainer.contract.sweeps.comparable import check_direction, check_loss, check_rows, check_tokens
from trimtab_trainer.contract.sweeps.settings import Direction, Unsearchable, value_at, with_parameters

from trimtab_operator.api import FineTuneJobSpec, FineTuneSweepSpec
from trimtab_operator.api.finetunesweep import RUNGS_ARE_VALIDATED, Pruning

from .searching import Search

EVERY_STEPS = "training.evaluateEverySteps"


def check_sweep(spec: FineTuneSweepSpec, search: Search) -> None:
    """Refuse what cannot be searched, or could not be compared.

    Raises:
        Unsearchable: with the parameter or the field, and the reason.
    """
    check_template(search.dimensions, FineTuneJobSpec, search.template, extra="ignore")
    check_search(search.dimensions, spec.algorithm.type, FineTuneJobSpec, search.template)
    _check_objective(spec, search)
    if spec.pruning is not None:
        _check_rungs(spec.pruning, search)
    if spec.final is not None:
        _check_final(spec, search)


def _check_objective(spec: FineTuneSweepSpec, search: Search) -> None:
    judged, figure = spec.objective.evaluation, spec.objective.figure
    if judged is not None:
        _checked("objective.evaluation", judged.check)
        check_direction("objective", judged.metric, judged.better, spec.objective.direction)
        _check_test_rows(search, "objective", judged.tasks)
        return
    check_direction("objective", figure, Direction.MINIMIZE, spec.objective.direction)
    if figure != "bitsPerByte":
        check_tokens(FineTuneJobSpec, search.dimensions, search.template)
    check_loss(FineTuneJobSpec, search.dimensions, search.template)
    method = spec.template.spec.training.method
    if figure == "bitsPerByte" and method is not Method.SFT:
        raise Unsearchable(
            f"objective: the loss of training.method: {method.value} is none of bytes; set metric: validationLoss, or "
            "judge by objective.evaluation"
        )
    check_rows(FineTuneJobSpec, search.dimensions, search.template, "validation", search.folds)


def _check_rungs(rule: Pruning, search: Search) -> None:
    """Refuse rungs at which trials would not be validated, or that none of them would reach."""
    ends = {_last_step(search.template)}
    for dimension in search.dimensions:
        name, values = dimension.name, dimension.values
        if name == EVERY_STEPS and values is None:
            raise Unsearchable(f"parameter {EVERY_STEPS}: with pruning it has no range; {RUNGS_ARE_VALIDATED}")
        if name in (EVERY_STEPS, "training"):
            for value in values or ():
                every = value if name == EVERY_STEPS else _every_steps(value)
                if rule.minimum_steps % every:
                    raise Unsearchable(f"parameter {name}: {json.dumps(value)} is refused: {RUNGS_ARE_VALIDATED}")
        if name in ("training", "training.maxSteps", "training.epochs"):
            every_value = values if values is not None else (dimension.high,)
            ends = {_last_step(with_parameters(search.template, {name: value})) for value in every_value}
    if (last := max(ends)) <= rule.minimum_steps:
        raise Unsearchable(
            f"pruning.minimumSteps = {rule.minimum_steps} is not below training.maxSteps = {last:g}, so no trial would "
            "be compared at it; set fewer, or leave pruning out"
        )


def _last_step(template: Mapping[str, object]) -> float:
    """Return the step after which a trial ends, infinity where its rows decide that."""
    steps = value_at(template, "training.maxSteps")
    return steps if isinstance(steps, int) else float("inf")


def _every_steps(training: object) -> int:
    return TrainingSettings.model_validate(training, extra="ignore").evaluate_every_steps


def _check_final(spec: FineTuneSweepSpec, search: Search) -> None:
    final = spec.final
    assert final is not None
    _checked("final.evaluation", final.evaluation.check)
    if final.evaluation.better is None and final.direction is None:
        raise Unsearchable(f"final: whether more of {final.evaluation.metric} is better is not known; set direction")
    if final.direction is not None:
        check_direction("final", final.evaluation.metric, final.evaluation.better, final.direction)
    asked = spec.objective.evaluation.tasks if spec.objective.evaluation is not None else []
    seen = {each.dataset.uri for each in asked}
    for values in [{}, *({each.name: value} for each in search.dimensions for value in each.values or ())]:
        dataset = with_parameters(search.template, values)["dataset"]
        seen |= {(dataset.get(side) or {}).get("uri") for side in ("training", "validation")}
    for task in final.evaluation.tasks:
        if task.dataset.uri is not None and any(_overlap(task.dataset.uri, each) for each in seen if each is not None):
            raise Unsearchable(
                f"final: the rows of task {task.name}, {task.dataset.uri}, are those that trials are trained on or "
                "chosen by; take rows that none of them has seen"
            )
    _check_test_rows(search, "final", final.evaluation.tasks)


def _overlap(one: str, other: str) -> bool:
    """Tell whether one of two uris is the other, or a folder that has it."""
    one, other = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return one.startswith(other) or other.startswith(one)


def _check_test_rows(search: Search, section: str, tasks: list[EvaluationTask]) -> None:
    asked = any(task.dataset.split is not None for task in tasks)
    check_test_split(section, asked, search.template)
    if asked:
        check_rows(FineTuneJobSpec, search.dimensions, search.template, "test", search.folds)


def _checked(where: str, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        raise Unsearchable(f"{where}: {error}") from None
