"""Whether the values of trials can be compared: what is searched must leave alone what they are measured on.

A loss of each token is of one unit only where the tokens are the same; a loss of held-out rows is of one quantity only
where these rows are the same. What is known of that before anything is begun is refused by name; what is not (how many
rows are too long for a sequence) is found by the digest of the validation rows that each trial reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trimtab_trainer.contract import Method
from trimtab_trainer.contract.evaluation import EvaluationTask
from trimtab_trainer.contract.sweeps.rows import OF_THE_TOKENS, differ, fields_of_loss, fields_of_rows
from trimtab_trainer.contract.sweeps.settings import Dimension, Direction, with_parameters

from trimtab_operator.api import FineTuneJobSpec, FineTuneSweepSpec


class Incomparable(Exception):
    """Values of trials could not be compared, or what they are judged by does not exist; the message says why."""


def check_judging(spec: FineTuneSweepSpec, dimensions: tuple[Dimension, ...], template: Mapping[str, Any]) -> None:
    """Refuse an objective, or a final, that would compare what cannot be compared.

    Args:
        spec: of the sweep.
        dimensions: that are searched.
        template: spec that every trial begins with, as JSON.

    Raises:
        Incomparable
    """
    judged = spec.objective.evaluation
    if judged is not None:
        _checked("objective.evaluation", judged.check)
        _check_direction("objective", judged.metric, judged.better, spec.objective.direction)
        _check_rows(spec, dimensions, template, ("test",) if _of_the_split(judged.tasks) else ())
    else:
        if spec.objective.figure == "bitsPerByte":
            _check_direction("objective", "bitsPerByte", Direction.MINIMIZE, spec.objective.direction)
        else:
            _check_tokens(dimensions, template)
        _check_loss(spec, dimensions, template)
        _check_rows(spec, dimensions, template, ("validation",))
    if spec.final is None:
        return
    _checked("final.evaluation", spec.final.evaluation.check)
    _check_final(spec, dimensions, template)
    _check_rows(spec, dimensions, template, ("test",) if _of_the_split(spec.final.evaluation.tasks) else ())


def _check_final(spec: FineTuneSweepSpec, dimensions: tuple[Dimension, ...], template: Mapping[str, Any]) -> None:
    final = spec.final
    assert final is not None
    if final.evaluation.better is None and final.direction is None:
        raise Incomparable(f"final: whether more of {final.evaluation.metric} is better is not known; set direction")
    if final.direction is not None:
        _check_direction("final", final.evaluation.metric, final.evaluation.better, final.direction)
    asked = spec.objective.evaluation.tasks if spec.objective.evaluation is not None else []
    seen = {each.dataset.uri for each in asked}
    for values in [{}, *({each.name: value} for each in dimensions for value in each.values or ())]:
        dataset = with_parameters(template, values)["dataset"]
        seen |= {(dataset.get(side) or {}).get("uri") for side in ("training", "validation")}
    for task in final.evaluation.tasks:
        if task.dataset.uri is not None and any(_overlap(task.dataset.uri, each) for each in seen if each is not None):
            raise Incomparable(
                f"final: the rows of task {task.name}, {task.dataset.uri}, are those that trials are trained on or "
                "chosen by; take rows that none of them has seen"
            )


def _overlap(one: str, other: str) -> bool:
    """Tell whether one of two uris is the other, or a folder that has it."""
    one, other = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return one.startswith(other) or other.startswith(one)


def _check_direction(where: str, metric: str, better: Direction | None, chosen: Direction) -> None:
    if better is not None and chosen is not better:
        word = "less" if better is Direction.MINIMIZE else "more"
        raise Incomparable(f"{where}: of {metric} {word} is better; set direction: {better.value}")


def _check_tokens(dimensions: tuple[Dimension, ...], template: Mapping[str, Any]) -> None:
    for dimension in dimensions:
        for path, noun in OF_THE_TOKENS.items():
            if differ(FineTuneJobSpec, dimension, template, path):
                raise Incomparable(
                    f"parameter {dimension.name}: validationLoss is a loss of each token, and another {noun} has other "
                    "tokens, so values could not be compared; set objective.metric: bitsPerByte, or "
                    "objective.evaluation"
                )


def _check_loss(spec: FineTuneSweepSpec, dimensions: tuple[Dimension, ...], template: Mapping[str, Any]) -> None:
    """Refuse parameters that make the loss another quantity, and bits per byte of a loss that is none of tokens."""
    for dimension in dimensions:
        for path in fields_of_loss(template):
            if differ(FineTuneJobSpec, dimension, template, path):
                raise Incomparable(
                    f"parameter {dimension.name}: {path} decides what the validation loss is, so values could not be "
                    "compared; judge by objective.evaluation, with a task of type Preference"
                )
    method = spec.template.spec.training.method
    if spec.objective.figure == "bitsPerByte" and method is not Method.SFT:
        raise Incomparable(
            f"objective: the loss of training.method: {method.value} is none of bytes; set metric: validationLoss, or "
            "judge by objective.evaluation"
        )


def _check_rows(
    spec: FineTuneSweepSpec, dimensions: tuple[Dimension, ...], template: Mapping[str, Any], sides: tuple[str, ...]
) -> None:
    """Refuse parameters that change the rows of the sides that trials are measured on."""
    for side in sides:
        held_out = spec.template.spec.dataset.test if side == "test" else spec.template.spec.dataset.validation
        part = spec.folds is not None or held_out is None or held_out.uri is None
        fields = fields_of_rows(side, part_of_training=part)
        for dimension in dimensions:
            for path in fields:
                if differ(FineTuneJobSpec, dimension, template, path):
                    raise Incomparable(
                        f"parameter {dimension.name}: {path} decides which rows the {side} split has, or what of them "
                        "counts, so values could not be compared; judge by an evaluation of rows with a uri of their "
                        "own"
                    )


def _of_the_split(tasks: list[EvaluationTask]) -> bool:
    return any(task.dataset.split is not None for task in tasks)


def _checked(where: str, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        raise Incomparable(f"{where}: {error}") from None
