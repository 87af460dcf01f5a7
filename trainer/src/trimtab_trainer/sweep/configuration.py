"""sweep.yaml: a FineTuneSweep, or its spec, as a search without a cluster understands it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ..contract import RunConfig, RunIdentity
from ..contract.digest import digest_of
from ..contract.model import Model
from ..contract.sweeps.record import RecordedObjective
from ..contract.sweeps.rows import OF_THE_TOKENS, differ, fields_of_loss, fields_of_rows
from ..contract.sweeps.settings import (
    MAXIMUM_PARAMETERS,
    MAXIMUM_TRIALS,
    OF_ANOTHER_TYPE,
    SEARCHED,
    Algorithm,
    Dimension,
    Point,
    SweepParameter,
    check_template,
    of_another_type,
    parameters_at,
    space_of,
    trial_id,
    value_at,
    with_parameters,
)
from ..errors import SettingsInvalid

METRIC = "validationLoss"
SECTIONS = ("baseModel", "dataset", "output", "lora", "quantization", "training", "checkpoint")
"""Of a FineTuneJob's spec: those that a run has as well."""
OF_A_CLUSTER: Mapping[str, str] = {
    "parallelTrials": "trials run one after another",
    "suspend": "stop it with Ctrl-C, and start it again to go on",
    "retainTrials": "everything stays",
    "ttlSecondsAfterFinished": "everything stays",
    "activeDeadlineSeconds": "stop it when you want to",
    "pruning": "every trial is trained to its end",
    "final": "evaluate the best by `trimtab-trainer evaluate`",
}
"""Fields of a sweep that say nothing to a search alone, each with what it does instead."""


class Budget(Model):
    accelerator_seconds: int | None = Field(default=None, ge=1)


class Template(Model):
    metadata: dict[str, Any] = {}  # noqa: RUF012  pydantic copies it
    spec: dict[str, Any]


class SearchSpec(Model):
    """The part of a FineTuneSweep's spec that a search alone goes by."""

    template: Template
    parameters: list[SweepParameter] = Field(min_length=1, max_length=MAXIMUM_PARAMETERS)
    algorithm: Algorithm = Algorithm()
    objective: RecordedObjective = RecordedObjective()
    folds: int | None = Field(default=None, ge=2, le=20)
    max_trials: int = Field(default=20, ge=1, le=MAXIMUM_TRIALS)
    budget: Budget | None = None
    stop_after_trials_without_improvement: int | None = Field(default=None, ge=1, le=MAXIMUM_TRIALS)


@dataclass(frozen=True)
class Trial:
    """A point, and the runs that it consists of, by name."""

    id: str
    point: Point
    parameters: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class LoneSearch:
    """What is searched, and how.

    Attributes:
        ignored: what of the file says nothing to a search alone, a sentence each.
    """

    name: str
    spec: SearchSpec
    dimensions: tuple[Dimension, ...]
    template: Mapping[str, Any]
    ignored: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of what makes points and values mean something: trials of another search are not comparable."""
        said = self.spec.to_json()
        defining = {name: said.get(name) for name in ("parameters", "algorithm", "objective", "folds")}
        return digest_of({**defining, "template": dict(self.template)})

    def at(self, point: Point) -> Trial:
        """Return the trial of a point."""
        parameters = parameters_at(self.dimensions, point)
        digits, spec = trial_id(parameters), with_parameters(self.template, parameters)
        folds = self.spec.folds
        if folds is None:
            return Trial(digits, point, parameters, {"run": spec})
        held = {f"f{n}": {"dataset.validation": {"folds": folds, "fold": n}} for n in range(folds)}
        return Trial(digits, point, parameters, {name: with_parameters(spec, each) for name, each in held.items()})

    def config(self, trial: Trial, name: str) -> RunConfig:
        """Return the configuration of one of a trial's runs.

        Raises:
            ValidationError: settings that exclude each other: a bad point.
        """
        run = RunIdentity(name=f"{self.name}-{trial.id}", uid=f"{trial.id}-{name}")
        return RunConfig.model_validate({**trial.runs[name], "run": run.to_json()})


def read_search(file: Path) -> LoneSearch:
    """Return the search that a file describes.

    Raises:
        SettingsInvalid: it cannot be read, or cannot be carried out; the message names the file, the line or the field.
    """
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}; give a FineTuneSweep with --config") from error
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{file} is neither YAML nor JSON: {error}") from error
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise SettingsInvalid(
            f"{file} has a value that JSON has not, such as a date; put it in quotes: {error}"
        ) from error
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{file} is no object; write a FineTuneSweep, or its spec")
    kind, name = document.get("kind"), file.stem
    if kind not in (None, "FineTuneSweep"):
        raise SettingsInvalid(f"{file} is a {kind}; write a FineTuneSweep, or its spec")
    if "spec" in document:
        metadata = document.get("metadata")
        name = str(metadata.get("name") or name) if isinstance(metadata, dict) else name
        document = document["spec"]
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{file}: spec is no object; write the spec of a FineTuneSweep")
    return _search(file, name, document)


def _search(file: Path, name: str, document: dict[str, Any]) -> LoneSearch:
    known = {field.alias or key for key, field in SearchSpec.model_fields.items()}
    for key in document:
        if key not in known and key not in OF_A_CLUSTER:
            near = difflib.get_close_matches(str(key), [*known, *OF_A_CLUSTER], 1)
            raise SettingsInvalid(
                f"{file}: a sweep has no field {key}" + (f"; is {near[0]} meant?" if near else "; remove it")
            )
    objective = document.get("objective")
    if isinstance(objective, dict) and (unknown := set(objective) - {"metric", "direction", "evaluation"}):
        raise SettingsInvalid(
            f"{file}: objective has no field {', '.join(sorted(map(str, unknown)))}; it has metric and direction"
        )
    if isinstance(objective, dict) and ("evaluation" in objective or objective.get("metric", METRIC) != METRIC):
        raise SettingsInvalid(
            f"{file}: a search alone judges its trials by {METRIC}; set objective.metric to it, or apply the sweep to "
            "a cluster"
        )
    ignored = [f"{key} is of a cluster alone: {OF_A_CLUSTER[key]}" for key in document if key in OF_A_CLUSTER]
    try:
        spec = SearchSpec.model_validate({key: value for key, value in document.items() if key in known})
        template, more = _template(spec.template.spec)
        dimensions = space_of(spec.parameters, RunConfig, SEARCHED, spec.algorithm.type)
        check_template(dimensions, template)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise SettingsInvalid(f"{file}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    except ValueError as error:
        raise SettingsInvalid(f"{file}: {error}") from error
    _comparable(file, spec, dimensions, template)
    return LoneSearch(name, spec, dimensions, template, (*ignored, *more))


def _template(spec: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a run takes of a FineTuneJob's spec, and what it does not.

    Raises:
        ValueError: a field looks like a section that a run has.
    """
    for key in spec:
        if key not in SECTIONS and (near := difflib.get_close_matches(str(key), SECTIONS, 1)):
            raise ValueError(f"template.spec has no field {key}; is {near[0]} meant?")
    kept = {key: value for key, value in spec.items() if key in SECTIONS}
    left = sorted(key for key in spec if key not in SECTIONS)
    ignored = [f"template.spec.{', '.join(left)} of a cluster alone: this machine runs the trials"] if left else []
    secrets = []
    for name, section in kept.items():
        if isinstance(section, dict) and "secretName" in section:
            kept[name] = {key: value for key, value in section.items() if key != "secretName"}
            secrets.append(f"{name}.secretName")
    if secrets:
        ignored.append(f"template.spec.{', '.join(secrets)} of a cluster alone: keys are those of the environment")
    return kept, ignored


def _comparable(file: Path, spec: SearchSpec, dimensions: tuple[Dimension, ...], template: dict[str, Any]) -> None:
    """Refuse what has no value, values that could not be compared, and a template that nothing can be made of."""
    dataset = template.get("dataset")
    validation = dataset.get("validation") if isinstance(dataset, dict) else None
    if spec.folds is None and validation is None:
        raise SettingsInvalid(f"{file}: the metric {METRIC} needs template.spec.dataset.validation, or folds")
    if spec.folds is not None and isinstance(validation, dict) and validation.get("folds") is None:
        raise SettingsInvalid(
            f"{file}: folds take the place of template.spec.dataset.validation; remove its fraction or uri"
        )
    for each in dimensions:
        for path, noun in OF_THE_TOKENS.items():
            if differ(RunConfig, each, template, path):
                raise SettingsInvalid(
                    f"{file}: parameter {each.name}: {METRIC} is a loss of each token, and another {noun} has other "
                    f"tokens, so values could not be compared; search one {noun} at a time"
                )
        part = spec.folds is not None or not isinstance(validation, dict) or validation.get("uri") is None
        for path in fields_of_rows("validation", part_of_training=part):
            if differ(RunConfig, each, template, path):
                raise SettingsInvalid(
                    f"{file}: parameter {each.name}: {path} decides which rows the validation split has, or what of "
                    "them counts, so values could not be compared; remove it, or apply the sweep to a cluster, with "
                    "an evaluation as its objective"
                )
        for path in fields_of_loss(template):
            if differ(RunConfig, each, template, path):
                raise SettingsInvalid(
                    f"{file}: parameter {each.name}: {path} decides what {METRIC} is, so values could not be compared; "
                    "remove it, or apply the sweep to a cluster, with an evaluation of type Preference as its objective"
                )
        for value in each.values or ():
            _check_value(file, each.name, value, template)
    _check_template(file, dimensions, template)


def _check_value(file: Path, name: str, value: Any, template: dict[str, Any]) -> None:
    """Refuse a value that its field cannot have, whatever the others are."""
    for found in _errors(with_parameters(template, {name: value})):
        where = ".".join(str(part) for part in found["loc"])
        if f"{where}.".startswith(f"{name}.") and found["type"] != "value_error":
            raise SettingsInvalid(f"{file}: parameter {name}: {value!r} is refused: {found['msg']}")
    try:
        read = RunConfig.model_validate(with_parameters(template, {name: value}))
    except ValidationError:
        return  # what is wrong beside it is said of the template, or is a bad point
    if of_another_type(value, value_at(read.to_json(), name)):
        raise SettingsInvalid(f"{file}: parameter {name}: {value!r} is refused: {OF_ANOTHER_TYPE}")


def _check_template(file: Path, dimensions: tuple[Dimension, ...], template: dict[str, Any]) -> None:
    """Refuse a template that nothing can be made of. What two settings forbid each other is a bad point."""
    first = {each.name: each.value(each.low if each.values is None else 0) for each in dimensions}
    for found in _errors(with_parameters(template, first)):
        if found["type"] != "value_error":
            where = ".".join(str(part) for part in found["loc"])
            raise SettingsInvalid(f"{file}: template.spec.{where}: {found['msg']}")


def _errors(spec: dict[str, Any]) -> list[Any]:
    try:
        RunConfig.model_validate(spec)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False, include_context=False)
    return []
