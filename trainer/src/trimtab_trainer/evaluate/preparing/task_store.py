"""The rows of an evaluation's tasks under their content address, as `prepare` stores and other stages read them.

    <output>/evaluations/data/<digest>/{tasks.json,rows/<task>.jsonl,harness/<task>/...}    and MANIFEST.json last

The address is the digest of what tasks.json says, which pins every file: each task's digest is made of the sha256 of
its rows (or of its harness files) and of the settings that decide how they are asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ...contract import Model, canonical_json, digest_of
from ...contract.settings import DIGEST
from ...storage import ObjectDamaged, Store, fetch_prepared, store_folder, whole
from ...storage.layout import evaluation_data_prefix, hexadecimal
from ..results import COMPARED, OtherTrained
from ..rows import EvaluationRow, read_lines

TASKS = "tasks.json"
DATA_VERSION = "trimtab.dev/evaluation-data/v1"


class PreparedTask(Model):
    """What is known of a task before it is asked."""

    name: str
    digest: DIGEST = Field(description="of its rows as they are asked")
    rows: int = Field(ge=0, description="rows; 0 of a Harness task, whose rows the harness reads")
    clusters: int = Field(default=0, ge=0, description="units of resampling")
    trained_on: int = Field(default=0, ge=0, description="trainedOn: rows that the target was trained on")
    compared: list[str] = Field(default=[], description=COMPARED)
    others: list[OtherTrained] = Field(
        default=[], exclude_if=lambda value: not value, description="the same of baseline and anchor"
    )
    dropped: int = Field(default=0, ge=0, description="rows that are blank, doubled, too long or beyond the limit")


@dataclass(frozen=True)
class PreparedTasks:
    """Tasks in the order of the configuration, and a verified local copy of their files."""

    folder: Path
    tasks: list[PreparedTask]

    def rows(self, name: str) -> list[EvaluationRow]:
        """Return the rows of a task that is not a Harness task."""
        return read_lines(rows_file(self.folder, name), EvaluationRow)

    def harness_folder(self, name: str) -> Path:
        """Return the folder with the YAML files and data of a Harness task."""
        return harness_folder(self.folder, name)


def rows_file(folder: Path, name: str) -> Path:
    """Where a task's rows lie below the folder of all tasks."""
    return folder / "rows" / f"{name}.jsonl"


def harness_folder(folder: Path, name: str) -> Path:
    """Where a harness task's files lie below the folder of all tasks."""
    return folder / "harness" / name


def data_digest(tasks: list[PreparedTask]) -> str:
    """Return the content address of some tasks' files."""
    return digest_of({"version": DATA_VERSION, "tasks": [task.to_json() for task in tasks]})


def store_tasks(store: Store, folder: Path, tasks: list[PreparedTask]) -> tuple[str, bool]:
    """Put a folder of rows and harness files in place, manifest last, unless it is all there and verifies.

    Returns:
        The data digest, and whether something had to be uploaded.

    Raises:
        ObjectDamaged: other bytes are there for the same address.
    """
    digest = data_digest(tasks)
    prefix = evaluation_data_prefix(digest)
    (folder / TASKS).write_bytes(canonical_json([task.to_json() for task in tasks]))
    # Every byte is read: a reader that finds them damaged sends the evaluation back to here.
    manifest = whole(store, prefix)
    if manifest is not None and all(
        store.digest(f"{prefix}/{entry.path}").sha256 == entry.sha256 for entry in manifest.files
    ):
        return digest, False
    store_folder(store, folder, prefix, {"version": DATA_VERSION, "digest": digest})
    return digest, True


def load_tasks(store: Store, digest: str, scratch: Path) -> PreparedTasks:
    """Download what `store_tasks` stored, every file verified.

    Raises:
        PreparedDataMissing: it is not there, or not as it was written.
    """
    prefix = evaluation_data_prefix(digest)
    folder = scratch / "evaluation-data" / hexadecimal(digest)
    fetch_prepared(store, prefix, folder)
    try:
        tasks = [PreparedTask.model_validate(task) for task in json.loads((folder / TASKS).read_bytes())]
    except (OSError, ValueError) as error:
        raise ObjectDamaged(f"{store.address(prefix)}/{TASKS} cannot be read; delete its folder") from error
    if data_digest(tasks) != digest:
        raise ObjectDamaged(f"{store.address(prefix)}/{TASKS} is not that of {digest}; delete its folder")
    return PreparedTasks(folder, tasks)
