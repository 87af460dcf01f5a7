"""Whether the values of trials can be compared: what is searched must leave alone what they are measured on.

A loss of each token is of one unit only where the tokens are the same; a loss of held-out rows is of one quantity only
where these rows are the same. What is known of that before anything is begun is refused by name; what is not (how many
rows are too long for a sequence) is found by the digest of the validation rows that each trial reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from trimtab_trainer.contract import canonical_json
from trimtab_trainer.contract.evaluation import EvaluationTask
from trimtab_trainer.contract.sweep import Dimension, Direction, with_parameters

from trimtab_operator.api import FineTuneJobSpec, FineTuneSweepSpec

OF_THE_TOKENS: Mapping[str, str] = {"baseModel": "base model", "dataset.chatTemplate": "chat template"}
OF_THE_ROWS = ("format", "ignoreKeys", "splitSeed", "groupBy", "stratifyBy", "cleaning", "test")
"""Fields of `dataset` that decide which rows are held out, and what they say."""


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
        if task.dataset.uri is not None and task.dataset.uri in seen:
            raise Incomparable(
                f"final: the rows of task {task.name}, {task.dataset.uri}, are those that trials are trained on or "
                "chosen by; take rows that none of them has seen"
            )


def _check_direction(where: str, metric: str, better: Direction | None, chosen: Direction) -> None:
    if better is not None and chosen is not better:
        word = "less" if better is Direction.MINIMIZE else "more"
        raise Incomparable(f"{where}: of {metric} {word} is better; set direction: {better.value}")


def _check_tokens(dimensions: tuple[Dimension, ...], template: Mapping[str, Any]) -> None:
    for dimension in dimensions:
        for path, noun in OF_THE_TOKENS.items():
            if _differ(dimension, template, path):
                raise Incomparable(
                    f"parameter {dimension.name}: validationLoss is a loss of each token, and another {noun} has other "
                    "tokens, so values could not be compared; set objective.metric: bitsPerByte, or "
                    "objective.evaluation"
                )


def _check_rows(
    spec: FineTuneSweepSpec, dimensions: tuple[Dimension, ...], template: Mapping[str, Any], sides: tuple[str, ...]
) -> None:
    """Refuse parameters that change the rows of the sides that trials are measured on."""
    for side in sides:
        held_out = spec.template.spec.dataset.test if side == "test" else spec.template.spec.dataset.validation
        fields = [f"dataset.{name}" for name in OF_THE_ROWS]
        if spec.folds is not None or held_out is None or held_out.uri is None:
            fields.append("dataset.training")  # of which they are a part
        if side == "validation":
            fields.append("training.lossOn")
        for dimension in dimensions:
            for path in fields:
                if _differ(dimension, template, path):
                    raise Incomparable(
                        f"parameter {dimension.name}: {path} decides which rows the {side} split has, or what of them "
                        "counts, so values could not be compared; judge by an evaluation of rows with a uri of their "
                        "own"
                    )


def _differ(dimension: Dimension, template: Mapping[str, Any], path: str) -> bool:
    """Tell whether the values of a parameter make values of a field that differ."""
    values = dimension.values if dimension.values is not None else (dimension.low, dimension.high)
    if not (path == dimension.name or path.startswith(f"{dimension.name}.") or dimension.name.startswith(f"{path}.")):
        return False
    found = {_at(with_parameters(template, {dimension.name: value}), path) for value in values}
    return len(found) > 1


def _at(spec: Mapping[str, Any], path: str) -> bytes:
    """Return the value of a field as it counts, its defaults filled in; Secrets are not of it."""
    try:
        value: Any = FineTuneJobSpec.model_validate(spec).to_json()
    except ValidationError:
        value = json.loads(json.dumps(spec))  # that it is invalid is said where that is checked
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if key != "secretName"}
    return canonical_json(value)


def _of_the_split(tasks: list[EvaluationTask]) -> bool:
    return any(task.dataset.split is not None for task in tasks)


def _checked(where: str, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        raise Incomparable(f"{where}: {error}") from None
