"""The documents of a harness task, as the harness reads them: which of them are asked, and in what groups. No torch.

Groups are told by the values that the harness itself is given, so they are read here by the same library in the same
way, before weights are loaded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract import EvaluationTask, Reason
from ...data.cleaning.steps import Finding
from ...data.reading.readers import Record
from ...errors import DataInvalid, SettingsInvalid
from ..preparing.group_column import group_of, refuse_ungrouped
from .files import HarnessTask
from .offline import local_datasets, offline


def loading(found: HarnessTask, scratch: Path) -> dict[str, Any]:
    """Return what a task's data are loaded with, beside dataset_path; `scratch` takes copies of them."""
    return {
        "data_files": {split: [str(file) for file in files] for split, files in found.data_files.items()},
        "cache_dir": str(scratch),
        **found.options,
    }


def place_of(index: int) -> str:
    """Return where a document stands, for people: its index in the split that is asked, from 0."""
    return f"doc {index}"


def chosen(documents: Any, limit: int | None) -> list[int]:
    """Return the documents to ask, in order: all, or those that come first by the hash of their content."""
    count = len(documents)
    if limit is None or limit >= count:
        return list(range(count))
    hashes = [
        (hashlib.sha256(json.dumps(each, sort_keys=True, default=str).encode()).digest(), index)
        for index, each in enumerate(documents)
    ]
    return sorted(index for _, index in sorted(hashes)[:limit])


@dataclass(frozen=True)
class AskedDocuments:
    """The documents that are asked, in order, and with groupBy the group of each."""

    documents: list[dict[str, Any]]
    groups: list[str]


def asked_documents(task: EvaluationTask, found: HarnessTask, scratch: Path) -> AskedDocuments:
    """Return the documents that are asked, having looked at the groups of those that are not asked as well.

    Args:
        task: the task, with groupBy or without.
        found: the task in its folder.
        scratch: a folder for copies of the data, which are gone afterwards.

    Raises:
        DataInvalid: DATASET_EMPTY; GROUP_MISSING, the column is not there or has no value in some document;
            DATASET_MALFORMED.
        SettingsInvalid: HARNESS_TASK_REFUSED, the data cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="harness-", dir=scratch) as copies, offline(found.name), local_datasets():
        documents = _documents(task, found, Path(copies))
        groups = _groups(task, task.group_by, documents) if task.group_by is not None else []
        numbers = chosen(documents, task.dataset.limit)
        return AskedDocuments(
            [dict(documents[index]) for index in numbers], [groups[index] for index in numbers] if groups else []
        )


def document_group(value: Any, column: str, index: int) -> str | None:
    """Return the group of a document with this value in the groupBy column; None where it has none.

    Raises:
        DataInvalid: DATASET_MALFORMED.
    """
    return group_of(Record({column: value}, place_of(index)), column)


def _documents(task: EvaluationTask, found: HarnessTask, copies: Path) -> Any:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        loaded = datasets.load_dataset(path=str(found.configuration["dataset_path"]), **loading(found, copies))
        return loaded[found.evaluated_split]
    except StopIteration as error:  # of JSON lines without a line
        raise DataInvalid(
            f"task {task.name}: the split {found.evaluated_split} of {found.name} holds no documents; upload its data",
            Reason.DATASET_EMPTY,
        ) from error
    except (DatasetsError, LookupError, TypeError, ValueError) as error:
        raise does_not_run(found, error) from error


def _groups(task: EvaluationTask, column: str, documents: Iterable[dict[str, Any]]) -> list[str]:
    names = [document_group(document.get(column), column, index) for index, document in enumerate(documents)]
    ungrouped = Finding()
    for index, name in enumerate(names):
        if name is None:
            ungrouped.add(place_of(index))
    refuse_ungrouped(task, ungrouped, len(names), some=ungrouped.count < len(names))
    return [name for name in names if name is not None]


def does_not_run(found: HarnessTask, error: Exception) -> SettingsInvalid:
    """Return the refusal of a task whose templates and data gave an error to the harness."""
    # What the datasets library says itself is only that it failed.
    told = error.__cause__ if type(error).__module__.startswith("datasets.") and error.__cause__ else error
    reason = str(told).strip().partition("\n")[0][:300]
    return SettingsInvalid(
        f"harness task {found.name} cannot be run ({type(told).__name__}: {reason}); its templates and its data "
        "do not fit together: run it with lm-evaluation-harness alone, and correct it there",
        Reason.HARNESS_TASK_REFUSED,
    )
