"""Checkpoints in object storage: written whole or not at all, verified when read, and only as many as are told.

    runs/<run digest>/checkpoints/step-000150-<uid8>-<attempt>/{adapter.safetensors,optimizer.safetensors,state.json}

and MANIFEST.json, put last. Where all weights are trained they are `model.safetensors`; what is larger than a part is
in several files (`parts`). Only safetensors and JSON: nothing that is read can run code. Names carry uid and attempt,
so a pod that was thought lost and comes back writes beside its successor, never over it. Dropout is seeded by step
(see `schedule.step_seed`), so adapter, optimizer and `TrainingState` are all that a run is. `loop` writes them, on a
thread, while it goes on; `train` resumes from them.

A checkpoint names the one that has the best weights, and never one that is not stored: whatever became of that (its
upload failed and was tolerated, another attempt deleted it), its weights are put in place before the manifest that
names them. What is good is deleted only after something newer is whole.

Training waits neither for the copy of what it trained, which a thread makes while the next step computes its gradient
(`begin`, `made`), nor for storage. While one checkpoint is on its way the newest of those made since waits, and those
between are left out: whatever storage takes, no more is lost than what was trained during two transfers and everySteps.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as ended
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from ..contract import RunConfig
from ..contract.parsing import read_object
from ..errors import StorageFailed, TrainerError
from ..folders import emptied, remove, tidy
from ..progress import ProgressBoard
from ..report import Report
from ..storage import (
    MANIFEST,
    FileEntry,
    ObjectDamaged,
    ObjectMissing,
    Store,
    commit,
    fetch,
    read_manifest,
    upload_folder,
)
from ..storage.layout import checkpoints_prefix
from .machine.exhausted import is_out_of_memory
from .parts import ADAPTER, is_weights, load_parts, save_parts, weights_in
from .state import Best, TrainingState

OPTIMIZER, STATE_FILE = "optimizer", "state.json"
NAME = re.compile(r"step-(?P<step>\d{6,})-(?P<uid>[0-9a-z]{1,8})-(?P<attempt>\d+)")
ADAPTER_ONLY = "adapterOnly"
"""Set in the manifest of best weights that were stored without the rest of their checkpoint."""
STATE_BYTES = 64 << 20
UNREADABLE = (ObjectDamaged, ObjectMissing, ValueError, KeyError, TypeError, SafetensorError, FileNotFoundError)
"""What reading a checkpoint raises that is not all there, or not as it was written."""
FAILURES_TOLERATED = 2
"""Checkpoints in a row that storage may refuse before training ends: an outage costs nothing until it matters."""


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of one step: all tensors on the processor, by published parameter names.

    Attributes:
        kept_as: what the files of the weights are called: `adapter`, or `model` where all are trained.
    """

    state: TrainingState
    weights: dict[str, Tensor]
    optimizer_tensors: dict[str, Tensor]
    optimizer_numbers: dict[str, dict[str, Any]]
    base_hash: str
    kept_as: str = ADAPTER

    def write(self, folder: Path) -> None:
        """Write its files into an empty folder."""
        folder.mkdir(parents=True)
        save_parts(self.weights, folder, self.kept_as)
        save_parts(self.optimizer_tensors, folder, OPTIMIZER)
        self.write_state(folder)

    def write_state(self, folder: Path) -> None:
        """Write the file that has no tensors."""
        state = {
            "state": self.state.model_dump(mode="json"),
            "optimizer": self.optimizer_numbers,
            "baseHash": self.base_hash,
        }
        (folder / STATE_FILE).write_text(json.dumps(state, sort_keys=True, allow_nan=False))

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """Read what `write` wrote.

        Raises:
            ValueError, KeyError, SafetensorError, OSError: it is not that.
        """
        document = read_object((folder / STATE_FILE).read_bytes(), STATE_BYTES)
        kept_as, weights = weights_in(folder)
        return cls(
            state=TrainingState.model_validate(document["state"]),
            weights=weights,
            optimizer_tensors=load_parts(folder, OPTIMIZER),
            optimizer_numbers={name: dict(numbers) for name, numbers in dict(document["optimizer"]).items()},
            base_hash=str(document["baseHash"]),
            kept_as=kept_as,
        )


@dataclass
class _Due:
    """A checkpoint that is to be stored.

    Attributes:
        started: when it was saved, of the monotonic clock.
        best: weights that it says are the best, and what their files are called, where their checkpoint gave way to it.
    """

    checkpoint: Checkpoint
    started: float
    best: tuple[dict[str, Tensor], str] | None = None


class Checkpoints:
    """The checkpoints of one run, written by one attempt."""

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        run_digest: str,
        attempt: int,
        *,
        scratch: Path,
        report: Report,
        board: ProgressBoard,
    ) -> None:
        self.best_folder = scratch / "best"
        """Weights of the best evaluation, kept at hand for publishing."""
        self.store, self._report, self._board = store, report, board
        self._prefix = checkpoints_prefix(run_digest)
        self._keep = config.checkpoint.keep
        self.attempt = attempt
        self._suffix = f"{short_uid(config.run.uid)}-{attempt}"
        self._scratch = scratch / "checkpoints"
        self._lock = threading.Lock()  # of what follows, which the thread that stores them and that of the loop share
        self._thread: threading.Thread | None = None
        self._maker = ThreadPoolExecutor(1, "checkpoint-copy")
        self._making: Future[None] | None = None
        self._unmade: Callable[[], Checkpoint | None] | None = None  # for which there was no memory
        self._busy = False
        self._waiting: _Due | None = None
        self._best_given_way: tuple[int, dict[str, Tensor], str] | None = None
        self._error: BaseException | None = None
        self._failures = 0
        # What this attempt may delete (its own, and what it resumed past), and whether one can resume from it.
        self._mine: dict[str, bool] = {}
        self._offered: set[str] = set()  # what was yielded to be resumed from
        self._whole: set[str] = set()  # what this attempt stored or verified
        self.newest_step: int | None = None
        """Step of the newest checkpoint known to be whole in storage."""

    def name(self, step: int) -> str:
        """Return the name of this attempt's checkpoint of a step."""
        return f"step-{step:06d}-{self._suffix}"

    # -- writing ------------------------------------------------------------------------------------------------------

    def begin(self, make: Callable[[], Checkpoint | None]) -> None:
        """Have a checkpoint made and saved by a thread, while what it is made of stays as it is.

        Whoever is about to change that calls `made` first.

        Args:
            make: copies tensors; returns None where there is nothing to save. It calls `give_way` as soon as it knows
                that there is. Where memory runs out it is called again by `made`.

        Raises:
            Exception: as of `made`, of the one before.
        """
        self.made()

        def saved() -> None:
            try:
                checkpoint = make()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._report.warn("no memory for a checkpoint beside a step, which waits for it now", error=str(error))
                self._unmade = make
                return
            if checkpoint is not None:
                self.save(checkpoint)

        self._making = self._maker.submit(saved)

    def made(self) -> None:
        """Wait until what was begun is a copy of its own.

        Memory that ran out beside a step may be there after it: then it is made here.

        Raises:
            Exception: what `make` raised, or `save`.
        """
        making, self._making = self._making, None
        if making is not None:
            making.result()
        make, self._unmade = self._unmade, None
        if make is not None and (checkpoint := make()) is not None:
            self.save(checkpoint)

    def save(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint written by a thread, on disk and then in storage, in the order in which they are saved.

        One may wait while another is on its way. It gives way to one that is newer, so that training never waits for
        storage, however slow that is: the newest one is stored next. Tensors are copies in the host's memory.

        Raises:
            TrainerError: checkpoints before this one could not be stored.
        """
        self._raise(everything=False)
        due = _Due(checkpoint, time.monotonic())
        self.give_way()
        with self._lock:
            due.best = self._best_of(checkpoint.state)
            self._best_given_way, self._waiting = None, due
            if self._busy:
                return
            self._busy = True
            self._thread = threading.Thread(target=self._store_waiting, name="checkpoint")
            self._thread.start()

    def give_way(self) -> None:
        """Forget the checkpoint that waits, if one does, for a newer one is about to be saved: its memory is free then.

        The best weights, if these are its own or were kept with it, are kept for those that will name them.
        """
        with self._lock:
            given, self._waiting = self._waiting, None
            if given is None:
                return
            best = given.checkpoint.state.best
            if best is not None:
                own = best.step == given.checkpoint.state.step
                weights = (given.checkpoint.weights, given.checkpoint.kept_as) if own else given.best
                self._best_given_way = None if weights is None else (best.step, *weights)
        self._report.warn(
            "storage is slower than checkpoints are made, so one was left out; raise checkpoint.everySteps",
            step=given.checkpoint.state.step,
        )

    def _best_of(self, state: TrainingState) -> tuple[dict[str, Tensor], str] | None:
        """Return the weights that a state says are the best, if their checkpoint gave way to that of the state."""
        kept = self._best_given_way
        return kept[1:] if kept is not None and state.best is not None and state.best.step == kept[0] else None

    def keep_best(self, tensors: dict[str, Tensor], kept_as: str = ADAPTER) -> None:
        """Keep weights at hand as the best, where no checkpoint is saved with them: one has them already."""
        emptied(self.best_folder)
        save_parts(tensors, self.best_folder, kept_as)

    def wait(self, everything: bool = False) -> None:
        """Wait until what was begun or saved is stored.

        Raises:
            TrainerError: it could not be stored; a passing failure only with `everything`, or when it keeps on.
            Exception: as of `made`.
        """
        try:
            self.made()
        finally:
            self.settle()
        self._raise(everything)

    def settle(self) -> None:
        """Before the process ends, however it ends: wait for what is on its way. Its errors were or are told."""
        if self._making is not None:
            ended([self._making])
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise(self, everything: bool) -> None:
        """Raise what kept the newest checkpoint from being stored, unless it may pass."""
        with self._lock:
            error = self._error
            if error is None or (self._passes(error) and not everything):
                return
            self._error = None
        raise error

    def _passes(self, error: BaseException) -> bool:
        return isinstance(error, StorageFailed) and self._failures <= FAILURES_TOLERATED

    def _store_waiting(self) -> None:
        """Store what waits until nothing does; the body of the thread."""
        while True:
            with self._lock:
                due, self._waiting = self._waiting, None
                self._busy = due is not None
            if due is None:
                return
            try:
                self._store(due)
                with self._lock:
                    self._failures, self._error = 0, None
            except BaseException as error:  # kept for `save` and `wait`: an error on a thread must not get lost
                with self._lock:
                    self._failures += 1
                    self._error = error
                self._board.checkpoint_failures.inc()
                if self._passes(error):
                    self._report.warn("checkpoint not stored, training goes on", error=str(error))

    def _store(self, due: _Due) -> None:
        if due.best is not None:
            self.keep_best(*due.best)
            due.best = None
        step, best = due.checkpoint.state.step, due.checkpoint.state.best
        name = self.name(step)
        folder = self._scratch / name
        try:
            remove(folder)
            due.checkpoint.write(folder)
            due.checkpoint = replace(due.checkpoint, weights={}, optimizer_tensors={})  # they are on disk by now
            if best is not None and best.checkpoint == name:
                self._keep_best_of(folder)
            if best is not None and best.checkpoint != name:
                stored = best.model_copy(update={"checkpoint": self._stored_best(best)})
                if stored != best:
                    state = due.checkpoint.state.model_copy(update={"best": stored})
                    replace(due.checkpoint, state=state).write_state(folder)
                best = stored
            self._delete([name])  # a damaged one that this attempt wrote before and did not resume from
            self._commit(name, upload_folder(self.store, folder, f"{self._prefix}/{name}"), {"step": step})
            self._mine[name] = True
            self.newest_step = step
            self._board.checkpointed(step)
            self._board.checkpoints.inc()
            seconds = time.monotonic() - due.started
            self._board.checkpoint_seconds.inc(seconds)
            self._report("checkpoint stored", step=step, checkpoint=name, seconds=round(seconds, 3))
            try:
                self._prune(best.checkpoint if best else None)
            except TrainerError as error:  # more is kept than was asked for: no reason to stop
                self._report.warn("old checkpoints not deleted", error=str(error))
        finally:
            tidy(folder, self._report.warn)

    def _stored_best(self, best: Best) -> str:
        """Return the name under which the best weights are stored; they are stored now if they are not.

        Raises:
            TrainerError: they cannot be stored.
        """
        mine = self.name(best.step)
        for name in (best.checkpoint, mine):
            if name in self._whole and self.store.exists(f"{self._prefix}/{name}/{MANIFEST}"):
                return name
        self._delete([mine])
        files = upload_folder(self.store, self.best_folder, f"{self._prefix}/{mine}")
        self._commit(mine, files, {"step": best.step, ADAPTER_ONLY: True})
        self._mine[mine] = False
        self._report("best weights stored", step=best.step, checkpoint=mine)
        return mine

    def _keep_best_of(self, folder: Path) -> None:
        """Keep the weights that are in a folder as the best."""
        emptied(self.best_folder)
        for file in folder.iterdir():
            if is_weights(file.name):
                shutil.copyfile(file, self.best_folder / file.name)

    def _commit(self, name: str, files: tuple[FileEntry, ...], document: dict[str, Any]) -> None:
        document = {**document, "files": [entry.to_json() for entry in files]}
        if not commit(self.store, f"{self._prefix}/{name}", document):
            raise StorageFailed(f"another process writes checkpoint {name} too; end one of them")
        self._whole.add(name)

    def _prune(self, best: str | None) -> None:
        newest_first = sorted(self._mine.keys() - {best}, key=_order, reverse=True)
        kept = [name for name in newest_first if self._mine[name]][: self._keep]
        old = [name for name in newest_first if name not in kept]
        self._delete(old)
        for name in old:
            del self._mine[name]

    def delete_all(self) -> None:
        """Delete every checkpoint of the run: its adapter is published. Failing to is no failure of the run."""
        try:
            self._delete(sorted(self._listed()))
        except TrainerError as error:
            self._report.warn("checkpoints not deleted; a lifecycle rule on runs/ can", error=str(error))

    def _delete(self, names: list[str]) -> None:
        for name in names:
            prefix = f"{self._prefix}/{name}/"
            self._whole.discard(name)
            # Manifest first: what has none does not exist, so no reader ever meets half a checkpoint.
            self.store.delete([prefix + MANIFEST])
            self.store.delete([entry.path for entry in self.store.list(prefix)])

    # -- reading ------------------------------------------------------------------------------------------------------

    def _listed(self) -> dict[str, set[str]]:
        """Return the names of the checkpoints in storage, and the files of each."""
        found: dict[str, set[str]] = {}
        for entry in self.store.list(f"{self._prefix}/"):
            name, _, file = entry.path.removeprefix(f"{self._prefix}/").partition("/")
            if NAME.fullmatch(name):
                found.setdefault(name, set()).add(file)
        return found

    def newest_first(self) -> Iterator[Checkpoint]:
        """Yield the checkpoints that are whole, the newest first, each with its best one's weights at hand.

        A checkpoint that is damaged is left alone. One whose best one is, or is gone, is whole all the same: of those
        that are left, the best one takes its place.

        Raises:
            TrainerError: storage cannot be read at all.
        """
        listed = self._listed()
        names = sorted((name for name, files in listed.items() if MANIFEST in files), key=_order, reverse=True)
        for index, name in enumerate(names):
            folder = self._scratch / "resumed"
            remove(folder)
            try:
                manifest = read_manifest(self.store, f"{self._prefix}/{name}")
                if manifest is None or manifest.document.get(ADAPTER_ONLY) is True:
                    continue
                if fetch(self.store, f"{self._prefix}/{name}", folder) is None:
                    continue
                checkpoint = Checkpoint.read(folder)
            except UNREADABLE as error:
                self._report.warn("checkpoint is damaged, trying the one before", checkpoint=name, error=str(error))
                continue
            finally:
                tidy(folder, self._report.warn)
            self._whole.add(name)
            self._offered.add(name)
            state = self._with_best_at_hand(checkpoint.state, names[index:])
            self._mine = {
                other: {MANIFEST, STATE_FILE} <= files
                for other, files in listed.items()
                if _order(other) <= _order(name)
            }
            self.newest_step = state.step
            self._board.checkpointed(state.step)
            yield replace(checkpoint, state=state)

    def forget(self) -> None:
        """Take none of those that were found for one to resume from: they are deleted once something newer is whole."""
        self._mine = dict.fromkeys(self._mine.keys() | self._offered, False)
        self.newest_step = None

    def _with_best_at_hand(self, state: TrainingState, names: list[str]) -> TrainingState:
        """Return the state with a best whose weights are at hand: its own, or the best of what these names hold."""
        if state.best is None:
            return state
        try:
            self._fetch_best(state.best.checkpoint)
        except UNREADABLE as error:
            left = self._best_left(names)
            self._report.warn(
                "the best checkpoint cannot be read; the best of those that are left takes its place",
                checkpoint=state.best.checkpoint,
                step=state.best.step,
                error=str(error),
                instead=left and left.checkpoint,
                instead_step=left and left.step,
            )
            return state.model_copy(update={"best": left})
        return state

    def _best_left(self, names: list[str]) -> Best | None:
        """Return the whole checkpoint of the lowest validation loss, its weights at hand; None: none was evaluated."""
        found = []
        folder = self._scratch / "state"
        for name in names:
            remove(folder)
            try:
                fetch(self.store, f"{self._prefix}/{name}", folder, wanted=lambda path: path == STATE_FILE)
                state = TrainingState.model_validate(
                    read_object((folder / STATE_FILE).read_bytes(), STATE_BYTES)["state"]
                )
            except UNREADABLE:
                continue
            finally:
                tidy(folder, self._report.warn)
            if state.validation_loss is not None and state.evaluated_step == state.step:
                found.append(Best(step=state.step, loss=state.validation_loss, checkpoint=name))
        for best in sorted(found, key=lambda best: best.loss):
            try:
                self._fetch_best(best.checkpoint)
            except UNREADABLE:
                continue
            return best
        return None

    def best_weights(self, best: Best) -> dict[str, Tensor]:
        """Return the weights of the best evaluation.

        Raises:
            StorageFailed: what was kept of them cannot be read; resuming reads them from storage, or finds others.
        """
        try:
            return weights_in(self.best_folder)[1]
        except (OSError, ValueError, SafetensorError) as error:
            raise StorageFailed(
                f"the weights of the best step {best.step} were kept on disk and cannot be read ({error}); the next "
                "attempt reads them from storage"
            ) from error

    def _fetch_best(self, name: str) -> None:
        folder = self._scratch / "best"
        remove(folder)
        try:
            if not NAME.fullmatch(name) or not fetch(self.store, f"{self._prefix}/{name}", folder, wanted=is_weights):
                raise ValueError(f"its best checkpoint {name} is gone")
            weights_in(folder)
            self._keep_best_of(folder)
            self._whole.add(name)
        finally:
            tidy(folder, self._report.warn)


def short_uid(uid: str) -> str:
    """Return the first eight letters and digits of a run's uid."""
    return re.sub(r"[^0-9a-z]", "", uid.lower())[:8] or "0"


def _order(name: str) -> tuple[int, int, str]:
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no checkpoint")
    return int(found["step"]), int(found["attempt"]), name
