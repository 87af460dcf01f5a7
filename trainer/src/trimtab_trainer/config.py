"""Reads the configuration and what earlier stages found, and says in words what is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .contract import (
    EXPORT_VERSION,
    EvaluationConfig,
    ExportConfig,
    Mirrored,
    Prepared,
    PreparedEvaluation,
    RunConfig,
    Stage,
    relocated,
)
from .contract.evaluation import EVALUATION_VERSION
from .contract.model import speaks
from .contract.outcome import CONTRACT_VERSION
from .errors import SettingsInvalid

ERRORS_SHOWN = 5
INPUT_SHOWN = 120
FORMS = {
    "s3://": "s3://bucket/prefix",
    "file:///": "file:///absolute/path",
    "hf://[": "hf://org/name@revision",
    "hf://datasets/": "hf://datasets/org/name@revision",
    "oci://": "oci://registry/name:tag",
}
"""URIs, by what stands in the pattern of those that may be of that kind."""
FORMS_OF_EACH = [FORMS["s3://"], FORMS["file:///"]]
FORMS_OF_SOME = {"baseModel": FORMS["hf://["], "dataset": FORMS["hf://datasets/"]}
"""Of a text that is too short for any pattern: further forms by the section that it stands in."""
SECRET = re.compile(r"\?.*|(?<=//)[^/]*@", re.DOTALL)
"""What of a URL may be a key: a query that was signed, a user's name and password."""
ONE_VERSION = "take the trainer image of the operator's version"

Found = TypeVar("Found", Prepared, PreparedEvaluation, Mirrored)
Config = TypeVar("Config", RunConfig, EvaluationConfig)


def read_config(file: Path, stage: Stage = Stage.TRAIN) -> RunConfig | EvaluationConfig:
    """Return the configuration in a YAML or JSON file: of a run, or of an evaluation as its `version` says.

    People who leave the version out mean an evaluation only where the stage is one.

    Raises:
        SettingsInvalid: it cannot be read, or belongs to another stage; the message names file, line or fields.
    """
    value = _read(file)
    version = value.get("version") if isinstance(value, dict) else None
    evaluation = speaks(version, EVALUATION_VERSION)
    if version is not None and not evaluation and not speaks(version, CONTRACT_VERSION):
        raise SettingsInvalid(
            f"{file} is of version {str(version)[:80]!r}, and this trainer reads {CONTRACT_VERSION} and "
            f"{EVALUATION_VERSION}; {ONE_VERSION}"
        )
    evaluates = stage in (Stage.EVALUATE, Stage.JUDGE)
    if evaluates and version is None and isinstance(value, dict):
        value.setdefault("version", EVALUATION_VERSION)
        evaluation = True
    if (stage is Stage.TRAIN and evaluation) or (evaluates and not evaluation):
        kind, right = ("an evaluation", "evaluate") if evaluation else ("a training run", "train")
        raise SettingsInvalid(f"{file} is the configuration of {kind}; run `trimtab-trainer {right}` with it")
    _check_sections(file, value, "tasks" if evaluation else "dataset")
    try:
        return EvaluationConfig.model_validate(value) if evaluation else RunConfig.model_validate(value)
    except ValidationError as error:
        raise SettingsInvalid(f"{file}: {words_of(error)}") from error


def _check_sections(file: Path, value: Any, middle: str) -> None:
    """Refuse a file without any sections, and an object of Kubernetes that has them within.

    Raises:
        SettingsInvalid
    """
    sections = f"baseModel, {middle} and output"
    if not isinstance(value, dict):
        what = "empty" if value is None else "a list" if isinstance(value, list) else "a text or a number"
        raise SettingsInvalid(f"{file} is {what}; give the sections {sections}")
    if isinstance(value.get("spec"), dict):
        kind = str(value.get("kind", "Kubernetes object"))[:80]
        raise SettingsInvalid(
            f"{file} is a {kind}; give the sections of its spec alone ({sections}), with credentials.directory instead "
            "of each secretName"
        )


def read_export(file: Path) -> ExportConfig:
    """Return the configuration of an export in a YAML or JSON file; people may leave the version out.

    Raises:
        SettingsInvalid: it cannot be read, or is none; the message names file, line or fields.
    """
    value = _read(file)
    version = value.get("version") if isinstance(value, dict) else None
    if version is not None and not speaks(version, EXPORT_VERSION):
        raise SettingsInvalid(
            f"{file} is of version {str(version)[:80]!r}, and this trainer exports by {EXPORT_VERSION}; {ONE_VERSION}"
        )
    try:
        return ExportConfig.model_validate(value)
    except ValidationError as error:
        raise SettingsInvalid(f"{file}: {words_of(error)}") from error


def _read(file: Path) -> Any:
    try:
        # JSON is tried first: YAML reads 1e-4 as text, and takes ten times as long.
        text = file.read_text()
        return json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}; give the run configuration with --config") from error
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{file} is neither YAML nor JSON: {error}") from error


def read_found(text: str | None, kind: type[Found], option: str = "--prepared") -> Found | None:
    """Return what an earlier stage found, from JSON or the file that holds it.

    Raises:
        SettingsInvalid: it is neither.
    """
    if text is None:
        return None
    try:
        return kind.model_validate_json(text if text.lstrip().startswith("{") else Path(text).read_text())
    except OSError as error:
        raise SettingsInvalid(f"{option} {text}: {error.strerror}") from error
    except ValidationError as error:
        raise SettingsInvalid(f"{option}: {words_of(error)}") from error


def at_the_mirror(config: Config, mirrored: Mirrored | None) -> Config:
    """Return a configuration that reads what it names on a hub from its mirror.

    Raises:
        SettingsInvalid: something of it was not mirrored; no stage but `mirror` asks a hub.
    """
    try:
        return relocated(config, mirrored or Mirrored())
    except ValueError as error:
        raise SettingsInvalid(
            f"{error} is on a hub, which this stage does not ask; run `trimtab-trainer mirror --config ... --found "
            "mirrored.json` first, and give that file to this one with --mirrored"
        ) from None


def words_of(error: ValidationError) -> str:
    found = error.errors(include_url=False)
    shown = [f"{'.'.join(str(part) for part in item['loc']) or 'configuration'}: {_trouble(item)}" for item in found]
    more = f" and {len(shown) - ERRORS_SHOWN} more" if len(shown) > ERRORS_SHOWN else ""
    # A value that is unknown may be one of a later version as well.
    later = any(item["type"] in ("extra_forbidden", "enum", "literal_error") for item in found)
    return "; ".join(shown[:ERRORS_SHOWN]) + more + (f"; correct it, or {ONE_VERSION}" if later else "")


def _trouble(item: ErrorDetails) -> str:
    """Return what is wrong with a value; of a URI what it may be, for nobody reads that from its pattern."""
    pattern = item.get("ctx", {}).get("pattern", "")
    is_uri = item["loc"][-1:] == ("uri",) and item["type"] == "string_too_short"
    if not is_uri and "s3://" not in pattern:
        return item["msg"].removeprefix("Value error, ")
    given = SECRET.sub("", str(item["input"]))[:INPUT_SHOWN]
    if given.startswith("s3://"):
        return f"{given!r} names no bucket: its name has 3 to 63 small letters, digits, points and hyphens"
    some = [form for section, form in FORMS_OF_SOME.items() if section in item["loc"]]
    forms = [form for beginning, form in FORMS.items() if beginning in pattern] or [*FORMS_OF_EACH, *some]
    return f"{given!r} is none of {', '.join(forms[:-1])} and {forms[-1]}"
