"""`trimtab-trainer merge`: a published adapter and its base model become one model, for people.

    trimtab-trainer merge --base-model s3://models/base --adapter s3://adapters/x/adapters/<digest> --to s3://models/x

It is the `export` stage without a file for its settings; `__main__` calls `add_arguments` and `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from ..config import words_of
from ..contract import (
    Credentials,
    ExportConfig,
    ExportFormat,
    QuantizationSettings,
    RunIdentity,
    Stage,
    StoredArtifact,
    StoredBaseModel,
    StoredDestination,
    WeightType,
    from_hub,
)
from ..contract.exporting import OCI_SCHEME
from ..contract.settings import QuantizationType
from ..errors import SettingsInvalid
from ..progress import ProgressBoard
from ..report import Report

OPTIONS = {"StoredBaseModel": "--base-model", "StoredArtifact": "--adapter", "StoredDestination": "--to"}
"""Which option is of a part of the settings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trimtab-trainer merge`."""
    parser.add_argument("--base-model", required=True, metavar="URI", help="base model the adapter was trained on")
    parser.add_argument("--adapter", required=True, metavar="URI", help="folder of the adapter: .../adapters/<digest>")
    parser.add_argument(
        "--to",
        required=True,
        metavar="URI",
        help="where to store it: <to>/exports/<digest>, or oci://host/repository:tag",
    )
    parser.add_argument(
        "--weights",
        choices=[each.value for each in WeightType],
        default=WeightType.BFLOAT16.value,
        help="type that weights are stored in (%(default)s)",
    )
    parser.add_argument(
        "--quantization",
        choices=[each.value for each in QuantizationType],
        help="how training held the base model, where the adapter does not say (it was imported)",
    )
    parser.add_argument("--secret-directory", metavar="FOLDER", help="one file per access key; else environment")
    parser.add_argument("--registry-directory", metavar="FOLDER", help="with .dockerconfigjson, for --to oci://")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace, report: Report) -> int:
    """Merge for a person; return the exit code.

    Raises:
        TrainerError: as the stage says.
    """
    from ..exporting.stage import export

    credentials = Credentials(directory=options.secret_directory) if options.secret_directory else None
    to_image = options.to.startswith(OCI_SCHEME)
    registry = Credentials(directory=options.registry_directory) if options.registry_directory else None
    told = {"type": options.quantization} if options.quantization else None
    try:
        config = ExportConfig(
            run=RunIdentity(name="merged"),
            base_model=StoredBaseModel(uri=options.base_model, credentials=credentials),
            adapter=StoredArtifact(uri=options.adapter, credentials=credentials),
            format=ExportFormat.OCI if to_image else ExportFormat.MERGED,
            weight_type=WeightType(options.weights),
            quantization=QuantizationSettings.model_validate(told) if told is not None else None,
            destination=StoredDestination(uri=options.to, credentials=registry if to_image else credentials),
        )
    except ValidationError as error:
        raise SettingsInvalid(f"{OPTIONS.get(error.title, 'options')}: {words_of(error)}") from error
    if from_hub(config.base_model.uri):
        raise SettingsInvalid(
            f"--base-model: {config.base_model.uri} is on a hub; give the copy that training read, which lies in the "
            "output of its run, at models/<digest>"
        )
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        board = ProgressBoard(config.run.uid, 0, Stage.EXPORT)
        told_to = Report(report.context, report.stream or sys.stderr)  # stdout is for what was made
        made = export(config, Path(scratch), told_to, board)
    print(json.dumps(made.to_json()) if options.json else f"uri: {made.uri}\ndigest: {made.digest}")
    return 0
