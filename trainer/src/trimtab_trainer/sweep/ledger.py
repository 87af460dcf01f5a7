"""What a search alone knows, in a folder: the points it chose, and what came of each. It outlives being killed.

search.json           what is searched, and the points in the order they were begun; written before a trial begins
trials/<id>/          configuration, events and last words of each run, and result.json once the trial is over
lock                  held by the process that searches here
"""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..contract.parsing import Unreadable, read_object
from ..contract.sweeps.record import RecordedTrial
from ..contract.sweeps.settings import Point, TrialState
from ..errors import SettingsInvalid
from ..storage.store import replacing
from .configuration import LoneSearch, Trial

STATE, RESULT, LOCK = "search.json", "result.json", "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system says that has no locks: two searches in one folder of it are not kept apart."""


@dataclass
class Ledger:
    """The trials of a search in the order they were begun, and the results of those that are over."""

    folder: Path
    search: LoneSearch
    trials: list[Trial] = field(default_factory=list)
    results: dict[str, RecordedTrial] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, search: LoneSearch) -> Ledger:
        """Return what a folder knows of a search; a fresh one where there is nothing yet.

        Raises:
            SettingsInvalid: the folder is of another search, or cannot be read; the message names it.
        """
        ledger, state = cls(folder, search), folder / STATE
        told = _read(state)
        if told is None:
            return ledger
        if told.get("search") != search.digest:
            raise SettingsInvalid(
                f"{folder} is of another search: parameters, algorithm, objective, folds or the template were changed "
                "since its first trial; set them back, or give another folder with --folder"
            )
        try:
            points = [tuple(float(each) for each in point) for point in told["points"]]
            ledger.trials = [search.at(point) for point in points]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SettingsInvalid(f"{state} was not written by this command; give another folder") from error
        for trial in ledger.trials:
            file = ledger.of(trial) / RESULT
            if (found := _read(file)) is not None:
                try:
                    ledger.results[trial.id] = RecordedTrial.model_validate(found)
                except ValidationError as error:
                    raise SettingsInvalid(f"{file} was not written by this command; delete it") from error
        return ledger

    def of(self, trial: Trial) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / trial.id

    def begin(self, point: Point) -> Trial:
        """Write a point down, and return its trial."""
        trial = self.search.at(point)
        points = [list(each.point) for each in (*self.trials, trial)]
        _write(self.folder / STATE, {"search": self.search.digest, "points": points})
        self.trials.append(trial)
        return trial

    def end(self, trial: Trial, result: RecordedTrial) -> None:
        """Write down what came of a trial."""
        _write(self.of(trial) / RESULT, result.to_json())
        self.results[trial.id] = result

    @property
    def unfinished(self) -> Trial | None:
        """The trial that was begun and is not over: whoever ran it was killed."""
        return next((each for each in self.trials if each.id not in self.results), None)

    @property
    def recorded(self) -> list[RecordedTrial]:
        """The trials as a record has them."""
        running = TrialState.RUNNING.value
        return [
            self.results.get(each.id) or RecordedTrial(id=each.id, parameters=dict(each.parameters), state=running)
            for each in self.trials
        ]


@contextmanager
def searching(folder: Path) -> Iterator[None]:
    """Keep a folder for this process: two that search in it would train the same trials.

    Raises:
        SettingsInvalid: another one searches there, or nothing can be written to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("wb")
    except OSError as error:
        raise SettingsInvalid(f"{folder}: {error.strerror}; give another folder with --folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsInvalid(
                f"another process searches in {folder}; wait for its end, stop it, or give another folder with --folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise SettingsInvalid(
                    f"{folder} cannot be locked ({error.strerror}), so another process could search in it too; give "
                    "another folder with --folder"
                ) from error
        yield


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return read_object(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, Unreadable) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsInvalid(f"{file} cannot be read: {words}; mend or delete it") from error


def _write(file: Path, value: Mapping[str, Any]) -> None:
    with replacing(file) as opened:
        opened.write((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
