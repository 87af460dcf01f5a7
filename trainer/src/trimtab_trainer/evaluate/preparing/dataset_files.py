"""Where the rows of each task come from: the files of a uri, or what the target's training held out."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...contract import EvaluationConfig, EvaluationTask, Reason, TaskType
from ...data.reading.source import Source, copy, find, unread_warning
from ...errors import DataInvalid, SettingsInvalid
from .adapters import VerifiedAdapter


class DatasetFiles:
    """Local copies of the tasks' files; tasks that share a uri share the copy."""

    def __init__(self, config: EvaluationConfig, target: VerifiedAdapter | None, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._config, self._target, self._folder = config, target, folder
        self._copied: dict[str | None, Source] = {}

    def of(self, task: EvaluationTask) -> Source:
        """Return the files of a task.

        Raises:
            DataInvalid: DATASET_NOT_FOUND, DATASET_EMPTY, TEST_SPLIT_MISSING.
            SettingsInvalid: METRIC_NOT_APPLICABLE.
        """
        uri = task.dataset.uri
        if uri is None and task.type is TaskType.MULTIPLE_CHOICE:
            raise SettingsInvalid(
                f"task {task.name}: rows that training held out have no choices; give rows with choices by dataset.uri",
                Reason.METRIC_NOT_APPLICABLE,
            )
        if uri not in self._copied:
            folder = self._folder / str(len(self._copied))
            credentials = self._config.dataset_credentials
            self._copied[uri] = copy(uri, credentials, folder) if uri is not None else self._held_out(task, folder)
        return self._copied[uri]

    def unread_warnings(self) -> tuple[str, ...]:
        """Return what a person should know of files that lie beside those of the tasks and are not read."""
        told = (unread_warning(source.uri, source.unread) for source in self._copied.values())
        return tuple(filter(None, told))

    def _held_out(self, task: EvaluationTask, folder: Path) -> Source:
        if self._target is None:
            raise DataInvalid(
                f"task {task.name}: dataset.split Test means the rows that the target's training held out, but the "
                "target is the base model alone; give the rows by dataset.uri",
                Reason.TEST_SPLIT_MISSING,
            )
        files = self._target.test_rows(folder)
        if not files:
            raise DataInvalid(
                f"task {task.name}: the training of {self._target.uri} held out no rows; train it again with "
                "dataset.test, or give the rows by dataset.uri",
                Reason.TEST_SPLIT_MISSING,
            )
        return Source(self._target.uri, folder, files)


def check_dataset_files(config: EvaluationConfig) -> None:
    """Refuse what is not there before anything large is read.

    Raises:
        DataInvalid: DATASET_NOT_FOUND, DATASET_EMPTY.
    """
    for task in config.tasks:
        if task.dataset.uri is not None and task.type is not TaskType.HARNESS:
            find(task.dataset.uri, config.dataset_credentials)
