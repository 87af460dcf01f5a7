"""sweep.yaml: a FineTuneSweep, or its spec, as a search without a cluster understands it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ..contract import RunConfig, RunIdentity
from ..contract.digest import digest_of
from ..contract.model import Model
from ..contract.sweeps.checks import check_search, check_template, check_test_split
from ..contract.sweeps.comparable import check_direction, check_loss, check_rows, check_tokens
from ..contract.sweeps.record import RecordedObjective, words_of
from ..contract.sweeps.settings import (
    MAXIMUM_PARAMETERS,
    MAXIMUM_TRIALS,
    NAME_LENGTH,
    SEARCHED,
    Algorithm,
    Dimension,
    Direction,
    Point,
    SweepParameter,
    Unsearchable,
    parameters_at,
    space_of,
    trial_id,
    value_at,
    with_parameters,
)
from ..errors import SettingsInvalid

METRIC = "validationLoss"
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Of an object in a cluster (RFC 1123)."""
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
    metadata: dict[str, Any] = Field(default_factory=dict)
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
        digits, folds = trial_id(parameters), self.spec.folds
        spec = _without_secrets(with_parameters(self.template, parameters))
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
    document = _document(file)
    kind, name = document.get("kind"), file.stem
    if kind not in (None, "FineTuneSweep"):
        raise SettingsInvalid(f"{file} is a {kind}; write a FineTuneSweep, or its spec")
    if "spec" in document:
        name = _name(file, document.get("metadata"))
        document = document["spec"]
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{file}: spec is no object; write the spec of a FineTuneSweep")
    try:
        return _search(name, document)
    except (ValidationError, Unsearchable) as error:
        raise SettingsInvalid(f"{file}: {words_of(error)}") from error


def _document(file: Path) -> dict[str, Any]:
    try:
        document = yaml.load(file.read_text(), Loader=SearchLoader)
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}; give a FineTuneSweep with --config") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{file} is neither YAML nor JSON: {error}") from error
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise SettingsInvalid(
            f"{file} has a value that JSON has not, such as a date; put it in quotes: {error}"
        ) from error
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{file} is no object; write a FineTuneSweep, or its spec")
    return document


class SearchLoader(yaml.SafeLoader):
    """Reads a FineTuneSweep as a cluster does: 1e-5 is a number, and no key is there twice.

    The command line has a loader of its own (`trimtab.loader.ManifestLoader`), because it is installed without this
    package, and has to stand what strangers write.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


SearchLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"), list("-+.0123456789")
)


def _name(file: Path, metadata: Any) -> str:
    """Return the name of a FineTuneSweep; that of the file where it has none."""
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if name is None:
        return file.stem
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise SettingsInvalid(
            f"{file}: metadata.name {json.dumps(name)} names none; write lowercase letters and digits, with - and . "
            "between them"
        )
    if len(name) > NAME_LENGTH:
        raise SettingsInvalid(f"{file}: metadata.name must have at most {NAME_LENGTH} characters")
    return name


def _search(name: str, document: dict[str, Any]) -> LoneSearch:
    known = {field.alias or key for key, field in SearchSpec.model_fields.items()}
    for key in document:
        if key not in known and key not in OF_A_CLUSTER:
            near = difflib.get_close_matches(str(key), [*known, *OF_A_CLUSTER], 1)
            raise Unsearchable(f"a sweep has no field {key}" + (f"; is {near[0]} meant?" if near else "; remove it"))
    objective = document.get("objective")
    if isinstance(objective, dict) and (unknown := set(objective) - {"metric", "direction", "evaluation"}):
        raise Unsearchable(
            f"objective has no field {', '.join(sorted(map(str, unknown)))}; it has metric and direction"
        )
    if isinstance(objective, dict) and ("evaluation" in objective or objective.get("metric", METRIC) != METRIC):
        raise Unsearchable(
            f"a search alone judges its trials by {METRIC}; set objective.metric to it, or apply the sweep to a cluster"
        )
    ignored = [f"{key} is of a cluster alone: {OF_A_CLUSTER[key]}" for key in document if key in OF_A_CLUSTER]
    # As JSON, which takes no text for a number, as the API server does not.
    said = json.dumps({key: value for key, value in document.items() if key in known})
    spec = SearchSpec.model_validate_json(said, strict=True)
    template, more = _template(spec.template.spec)
    dimensions = space_of(spec.parameters, RunConfig, SEARCHED, spec.algorithm.type)
    plain = tuple(
        each if each.values is None else replace(each, values=tuple(_without_secrets(each.values)))
        for each in dimensions
    )
    check_template(plain, RunConfig, template)
    check_search(plain, spec.algorithm.type, RunConfig, template)
    _check_objective(spec, plain, template)
    check_test_split("final", _asks_test_split(document.get("final")), template)
    return LoneSearch(name, spec, dimensions, template, (*ignored, *more))


def _asks_test_split(final: Any) -> bool:
    """Tell whether a final, which is of a cluster alone and read nowhere else, asks for the test split."""
    tasks = value_at({"final": final}, "final.evaluation.tasks")
    return isinstance(tasks, list) and any(value_at({"task": each}, "task.dataset.split") for each in tasks)


def _template(spec: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a run takes of a FineTuneJob's spec, and what it does not.

    Raises:
        Unsearchable: a field looks like a section that a run has, or a section is none.
    """
    for key in spec:
        if key not in SECTIONS and (near := difflib.get_close_matches(str(key), SECTIONS, 1)):
            raise Unsearchable(f"template.spec has no field {key}; is {near[0]} meant?")
    kept = {key: value for key, value in spec.items() if key in SECTIONS and value is not None}
    for key, section in kept.items():
        if not isinstance(section, dict):
            raise Unsearchable(f"template.spec.{key} is no object; write its fields")
    left = sorted(key for key in spec if key not in SECTIONS)
    ignored = [f"template.spec.{', '.join(left)} of a cluster alone: this machine runs the trials"] if left else []
    plain = _without_secrets(kept)
    if plain != kept:
        ignored.append("secretName of a cluster alone: keys are those of the environment")
    return plain, ignored


def _without_secrets(value: Any) -> Any:
    """Return JSON without the names of Secrets, wherever they are."""
    if isinstance(value, Mapping):
        return {key: _without_secrets(each) for key, each in value.items() if key != "secretName"}
    return [_without_secrets(each) for each in value] if isinstance(value, list | tuple) else value


def _check_objective(spec: SearchSpec, dimensions: tuple[Dimension, ...], template: dict[str, Any]) -> None:
    """Refuse what has no value, and values that could not be compared."""
    validation = value_at(template, "dataset.validation")
    if spec.folds is None and validation is None:
        raise Unsearchable(f"the metric {METRIC} needs template.spec.dataset.validation, or folds")
    if spec.folds is not None and isinstance(validation, dict) and validation.get("folds") is None:
        raise Unsearchable("folds take the place of template.spec.dataset.validation; remove its fraction or uri")
    check_direction("objective", METRIC, Direction.MINIMIZE, spec.objective.direction)
    check_tokens(RunConfig, dimensions, template)
    check_loss(RunConfig, dimensions, template)
    check_rows(RunConfig, dimensions, template, "validation", spec.folds)
