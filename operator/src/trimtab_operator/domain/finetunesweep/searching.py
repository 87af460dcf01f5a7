"""The search space of a sweep, and the FineTuneJobs of a trial. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from trimtab_trainer.contract import canonical_json, digest_of
from trimtab_trainer.contract.sweeps.record import words_of
from trimtab_trainer.contract.sweeps.settings import (
    SEARCHED,
    Dimension,
    Point,
    parameters_at,
    space_of,
    trial_id,
    with_parameters,
)

from trimtab_operator.api import API_VERSION, FineTuneJobSpec, FineTuneSweep

from ..ownership import controlled_by
from ..plan import Body
from ..views import SWEEP_LABEL

TRIAL_LABEL = "trimtab.dev/trial"
FOLD_LABEL = "trimtab.dev/fold"

DEFINING = {"parameters", "algorithm", "objective", "folds"}
"""The fields of a sweep that its points are of."""


@dataclass(frozen=True)
class Trial:
    """A point of the search, and the FineTuneJobs that it consists of, by name."""

    id: str
    point: Point
    parameters: Mapping[str, Any]
    jobs: Mapping[str, Mapping[str, Any]]
    """The spec of each, as JSON."""

    @property
    def settings(self) -> str:
        """The parameters in words."""
        return ", ".join(f"{name} = {value}" for name, value in self.parameters.items())

    @property
    def trouble(self) -> str:
        """Why these settings are refused, "" if they are not: to be asked before anything of it is begun."""
        try:
            for spec in self.jobs.values():
                FineTuneJobSpec.model_validate(spec, extra="ignore")
        except ValidationError as error:
            return words_of(error)
        return ""


@dataclass(frozen=True)
class Search:
    """What is searched, read once for a round.

    Attributes:
        name: of the sweep.
        template: the spec that every trial begins with, as JSON.
    """

    name: str
    dimensions: tuple[Dimension, ...]
    template: Mapping[str, Any]
    folds: int | None

    def at(self, point: Point) -> Trial:
        """Return the trial of a point."""
        parameters = parameters_at(self.dimensions, point)
        digits, spec = trial_id(parameters), with_parameters(self.template, parameters)
        name, folds = f"{self.name}-{digits}", self.folds
        jobs: dict[str, Mapping[str, Any]] = {name: spec}
        if folds is not None:
            jobs = {
                f"{name}-f{fold}": with_parameters(spec, {"dataset.validation": {"folds": folds, "fold": fold}})
                for fold in range(folds)
            }
        return Trial(digits, point, parameters, jobs)


def search_of(sweep: FineTuneSweep) -> Search:
    """Return what a sweep searches.

    Raises:
        Unsearchable: a parameter names no field, or has a range that its field cannot have.
    """
    spec = sweep.spec
    dimensions = space_of(spec.parameters, FineTuneJobSpec, SEARCHED, spec.algorithm.type)
    template = spec.template.spec.to_json_as_read()
    kept = {key: value for key, value in template.items() if key not in ("suspend", "ttlSecondsAfterFinished")}
    return Search(sweep.metadata.name, dimensions, kept, spec.folds)


def search_digest(sweep: FineTuneSweep) -> str:
    """Return the digest of what makes points mean something. The API server does not compare values of any type."""
    said = sweep.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=DEFINING)
    if sweep.spec.objective.evaluation is None:
        said["objective"]["metric"] = sweep.spec.objective.figure  # as it was when the API server filled it in
    return digest_of({name: said.get(name) for name in DEFINING})


def job_of(sweep: FineTuneSweep, trial: Trial, name: str, spec: Mapping[str, Any] | None = None) -> Body:
    """Return one of a trial's FineTuneJobs, or one with another spec, to be created."""
    chosen, me = sweep.spec.template.metadata, sweep.metadata
    spec = trial.jobs[name] if spec is None else spec
    labels = {**chosen.labels, SWEEP_LABEL: me.name, TRIAL_LABEL: trial.id}
    if sweep.spec.folds is not None and "validation" in spec["dataset"]:
        labels[FOLD_LABEL] = str(spec["dataset"]["validation"]["fold"])
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": {
            "name": name,
            "namespace": me.namespace,
            "labels": labels,
            **({"annotations": dict(chosen.annotations)} if chosen.annotations else {}),
            "ownerReferences": [controlled_by("FineTuneSweep", me)],
        },
        "spec": dict(spec),
    }


def refit_of(search: Search, trial: Trial, steps: float | None) -> Mapping[str, Any]:
    """Return the spec that trains on all rows with the settings of a trial of folds.

    Nothing is held out to stop it early: where that was asked for, it trains for `steps`.
    """
    spec = with_parameters(search.template, trial.parameters)
    dataset = {key: value for key, value in spec["dataset"].items() if key != "validation"}
    training = dict(spec.get("training") or {})
    if training.pop("earlyStopping", None) is not None and steps is not None:
        training = {key: value for key, value in training.items() if key != "epochs"}
        training["maxSteps"] = max(1, round(steps))
    return {**spec, "dataset": dataset, "training": training}


def rows_of(spec: Mapping[str, Any]) -> bytes:
    """Return what the tokenised rows of a FineTuneJob are made from: trials that share it prepare them once."""
    dataset = {k: v for k, v in spec["dataset"].items() if k not in ("validation", "test", "splitSeed", "secretName")}
    return canonical_json([spec["baseModel"], dataset])
