"""The search space of a sweep, and the FineTuneJobs of a trial. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from trimtab_trainer.contract import digest_of
from trimtab_trainer.contract.sweep import Dimension, Point, parameters_at, space_of, trial_id, with_parameters

from trimtab_operator.api import API_VERSION, FineTuneJobSpec, FineTuneSweep

from ..plan import Body
from ..views import SWEEP_LABEL

TRIAL_LABEL = "trimtab.dev/trial"
FOLD_LABEL = "trimtab.dev/fold"

SEARCHED: Mapping[str, frozenset[str]] = {
    "baseModel": frozenset({"secretName"}),
    "dataset": frozenset({"secretName", "validation"}),
    "lora": frozenset(),
    "quantization": frozenset(),
    "training": frozenset({"microBatchSize"}),
}
"""The sections of a FineTuneJob's spec that define its result, each with those of its fields that do not."""

INCOMPARABLE = ("baseModel",)
"""Losses of a token are not of one unit where tokens are not the same."""


class SweepInvalid(Exception):
    """The sweep cannot be carried out, and never will; the message says why."""


@dataclass(frozen=True)
class Trial:
    """A point of the search, and the FineTuneJobs that it consists of, by name."""

    id: str
    point: Point
    parameters: Mapping[str, Any]
    jobs: Mapping[str, Mapping[str, Any]]
    """The spec of each, as JSON."""
    trouble: str = ""
    """Why these settings are refused, before anything is begun."""


def space(sweep: FineTuneSweep) -> tuple[Dimension, ...]:
    """Return what is searched.

    Raises:
        SweepInvalid: a parameter is none that can be.
    """
    spec = sweep.spec
    for each in spec.parameters:
        if each.name.split(".")[0] in INCOMPARABLE and each.values is not None and len(each.values) > 1:
            raise SweepInvalid(
                f"parameter {each.name}: validationLoss is a loss of each token, and another model has other tokens, "
                "so values could not be compared; search one base model at a time"
            )
    try:
        found = space_of(spec.parameters, FineTuneJobSpec, SEARCHED, spec.algorithm.type)
    except ValueError as error:
        raise SweepInvalid(str(error)) from None
    for dimension in found:
        _check_values(sweep, dimension)
    return found


def _check_values(sweep: FineTuneSweep, dimension: Dimension) -> None:
    """Refuse a value that its field cannot have, whatever the others are."""
    for value in dimension.values or ():
        spec = with_parameters(template_of(sweep), {dimension.name: value})
        try:
            FineTuneJobSpec.model_validate(spec)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                where = ".".join(str(part) for part in found["loc"])
                if where.startswith(dimension.name) and found["type"] != "value_error":
                    raise SweepInvalid(f"parameter {dimension.name}: {value!r} is refused: {found['msg']}") from None


def search_digest(sweep: FineTuneSweep) -> str:
    """Return the digest of what makes points mean something. The API server does not compare values of any type."""
    search = sweep.spec.to_json()
    return digest_of({name: search.get(name) for name in ("parameters", "algorithm", "objective", "folds")})


def template_of(sweep: FineTuneSweep) -> dict[str, Any]:
    """Return the spec that every trial begins with, as JSON."""
    spec = sweep.spec.template.spec.to_json()
    return {key: value for key, value in spec.items() if key not in ("suspend", "ttlSecondsAfterFinished")}


def trial_at(sweep: FineTuneSweep, dimensions: Sequence[Dimension], point: Point) -> Trial:
    """Return the trial of a point."""
    parameters = parameters_at(dimensions, point)
    digits, spec, trouble = trial_id(parameters), with_parameters(template_of(sweep), parameters), ""
    name, folds = f"{sweep.metadata.name}-{digits}", sweep.spec.folds
    jobs: dict[str, Mapping[str, Any]] = {name: spec}
    if folds is not None:
        jobs = {
            f"{name}-f{fold}": with_parameters(spec, {"dataset.validation": {"folds": folds, "fold": fold}})
            for fold in range(folds)
        }
    try:
        for each in jobs.values():
            FineTuneJobSpec.model_validate(each)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        trouble = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return Trial(digits, point, parameters, jobs, trouble)


def job_of(sweep: FineTuneSweep, trial: Trial, name: str) -> Body:
    """Return one of a trial's FineTuneJobs, to be created."""
    chosen, me = sweep.spec.template.metadata, sweep.metadata
    labels = {**chosen.labels, SWEEP_LABEL: me.name, TRIAL_LABEL: trial.id}
    if "-f" in name.removeprefix(f"{me.name}-{trial.id}"):
        labels[FOLD_LABEL] = name.rpartition("-f")[2]
    owner = {
        "apiVersion": API_VERSION,
        "kind": "FineTuneSweep",
        "name": me.name,
        "uid": me.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {
            "name": name,
            "namespace": me.namespace,
            "labels": labels,
            **({"annotations": dict(chosen.annotations)} if chosen.annotations else {}),
            "ownerReferences": [owner],
        },
        "spec": dict(trial.jobs[name]),
    }


def rows_of(spec: Mapping[str, Any]) -> tuple[object, object]:
    """Return what the tokenised rows of a FineTuneJob are made from: trials that share it prepare them once."""
    dataset = {k: v for k, v in spec["dataset"].items() if k not in ("validation", "test", "splitSeed", "secretName")}
    return spec["baseModel"], dataset
