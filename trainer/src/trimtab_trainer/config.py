"""Reads the configuration and what earlier stages found, and says in words what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

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
    if stage is Stage.EVALUATE and version is None and isinstance(value, dict):
        value.setdefault("version", EVALUATION_VERSION)
        evaluation = True
    if (stage is Stage.TRAIN and evaluation) or (stage is Stage.EVALUATE and not evaluation):
        kind, right = ("an evaluation", "evaluate") if evaluation else ("a training run", "train")
        raise SettingsInvalid(f"{file} is the configuration of {kind}; run `trimtab-trainer {right}` with it")
    try:
        return EvaluationConfig.model_validate(value) if evaluation else RunConfig.model_validate(value)
    except ValidationError as error:
        raise SettingsInvalid(f"{file}: {words_of(error)}") from error


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
    found = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(str(part) for part in item['loc']) or 'configuration'}: {item['msg']}" for item in found]
    more = f" and {len(shown) - ERRORS_SHOWN} more" if len(shown) > ERRORS_SHOWN else ""
    # A value that is unknown may be one of a later version as well.
    later = any(item["type"] in ("extra_forbidden", "enum", "literal_error") for item in found)
    return "; ".join(shown[:ERRORS_SHOWN]) + more + (f"; correct it, or {ONE_VERSION}" if later else "")
