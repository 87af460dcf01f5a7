"""Checkpoints: whole or absent, verified, only as many as told, and never somebody else's deleted."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file
from trimtab_trainer.errors import SettingsInvalid, StorageFailed
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.storage import FileEntry, Store, open_store
from trimtab_trainer.training.checkpoint import Checkpoint, Checkpoints, short_uid
from trimtab_trainer.training.state import Best, TrainingState

from .runs import RUN_DIGEST, board, held_uploads, run_config

UID = "0123ABCD-9999"


class Run:
    """One attempt's checkpoints on a local store."""

    def __init__(self, root: Path, attempt: int = 0, keep: int = 2) -> None:
        config = run_config(root, run={"uid": UID}, checkpoint={"keep": keep})
        self.log = io.StringIO()
        self.board: ProgressBoard = board()
        self.store: Store = open_store(config.output.uri, None)
        self.checkpoints = Checkpoints(
            self.store,
            config,
            RUN_DIGEST,
            attempt,
            scratch=root / f"scratch-{attempt}",
            report=Report(stream=self.log),
            board=self.board,
        )

    def save(self, step: int, best: tuple[int, str] | None = None, loss: float | None = None) -> None:
        """Save a checkpoint; `loss` if the step was evaluated."""
        self.checkpoints.save(checkpoint(step, best and Best(step=best[0], loss=1.0, checkpoint=best[1]), loss))
        self.checkpoints.wait(everything=True)

    def kept_best(self) -> float:
        """Return the step that made the best weights that are at hand."""
        return float(load_file(self.checkpoints.best_folder / "adapter.safetensors")["b"][0, 0])

    def newest(self) -> Checkpoint | None:
        return next(self.checkpoints.newest_first(), None)

    def names(self) -> list[str]:
        return sorted({info.path.split("/")[3] for info in self.store.list("runs/")})


def fails(*_: object) -> NoReturn:
    raise StorageFailed("the storage answered 503")


def checkpoint(step: int, best: Best | None = None, loss: float | None = None) -> Checkpoint:
    evaluated = step if loss is not None else 0
    return Checkpoint(
        state=TrainingState(
            step=step, best=best, recent=((1.5, 3),), curve=(), evaluated_step=evaluated, validation_loss=loss
        ),
        weights={"b": torch.full((2, 3), float(step)), "a": torch.arange(4.0)},
        optimizer_tensors={"a/exp_avg": torch.rand(4), "a/state1": torch.arange(4, dtype=torch.uint8)},
        optimizer_numbers={"a": {"step": step}},
        base_hash="cafe",
    )


def test_what_is_written_is_read_and_lies_where_the_design_says(tmp_path: Path) -> None:
    run = Run(tmp_path)
    written = checkpoint(150)
    run.checkpoints.save(written)
    run.checkpoints.wait(everything=True)
    prefix = f"runs/{'0' * 64}/checkpoints/step-000150-0123abcd-0"
    assert [info.path for info in run.store.list("runs/")] == [
        f"{prefix}/{name}" for name in ("MANIFEST.json", "adapter.safetensors", "optimizer.safetensors", "state.json")
    ]
    read = Run(tmp_path, attempt=1).newest()
    assert read is not None
    assert read.state == written.state
    assert (read.optimizer_numbers, read.base_hash) == (written.optimizer_numbers, "cafe")
    for one, other in ((read.weights, written.weights), (read.optimizer_tensors, written.optimizer_tensors)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
    assert run.board.read().checkpoint_step == 150


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert Run(tmp_path).newest() is None


def test_the_newest_are_kept_beside_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=2)
    best = (20, run.checkpoints.name(20))
    for step in (10, 20, 30, 40, 50):
        run.save(step, best if step >= 20 else None)
    assert run.names() == [run.checkpoints.name(step) for step in (20, 40, 50)]


def test_an_attempt_deletes_what_it_resumed_past_and_nothing_newer(tmp_path: Path) -> None:
    first = Run(tmp_path, attempt=0, keep=5)
    for step in (10, 20, 30):
        first.save(step)
    second = Run(tmp_path, attempt=1, keep=1)
    assert second.newest() is not None
    # The first attempt's node was only thought to be lost: it goes on.
    first.save(40)
    second.save(35)
    assert second.names() == [second.checkpoints.name(35), first.checkpoints.name(40)]


def damage(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def apply(folder: Path) -> object:
        file = folder / name
        return file.write_bytes(change(file.read_bytes()))

    return apply


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a truncated file": damage("optimizer.safetensors", lambda data: data[:-8]),
    "a flipped bit": damage("adapter.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "an empty state": damage("state.json", lambda data: b""),
    "a missing file": lambda folder: (folder / "adapter.safetensors").unlink(),
    "no manifest yet": lambda folder: (folder / "MANIFEST.json").unlink(),
    "half a manifest": damage("MANIFEST.json", lambda data: data[:20]),
    "a manifest of something else": damage("MANIFEST.json", lambda data: b'{"files": []}'),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, case: str) -> None:
    run = Run(tmp_path)
    for step in (10, 20):
        run.save(step)
    DAMAGES[case](tmp_path / "output" / "runs" / ("0" * 64) / "checkpoints" / run.checkpoints.name(20))
    later = Run(tmp_path, attempt=1)
    found = later.newest()
    assert found is not None
    assert found.state.step == 10
    assert ("damaged" in later.log.getvalue()) == (case != "no manifest yet")
    # The same attempt again, as on a laptop: it writes step 20 anew, over the damaged one.
    again = Run(tmp_path)
    assert again.newest() is not None
    again.save(20)
    newest = Run(tmp_path, attempt=2).newest()
    assert newest is not None
    assert newest.state.step == 20


def never_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no folder be removed, as NFS does not one that has a file which is still mapped."""

    def not_empty(path: str, **_: object) -> NoReturn:
        raise OSError(39, "Directory not empty", path)

    monkeypatch.setattr(os, "rmdir", not_empty)


def test_scratch_that_cannot_be_removed_afterwards_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, later = Run(tmp_path), Run(tmp_path, attempt=1)
    with monkeypatch.context() as nfs:
        never_removed(nfs)
        run.save(10, (10, run.checkpoints.name(10)), loss=3.0)
        run.save(20, (10, run.checkpoints.name(10)))
        found = later.newest()
    assert found is not None
    assert (found.state.step, later.kept_best()) == (20, 10.0)
    assert "scratch not removed" in run.log.getvalue()
    assert "Directory not empty" in later.log.getvalue()


def test_scratch_that_cannot_be_removed_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    never_removed(monkeypatch)
    monkeypatch.setattr(run.store, "upload", fails)
    with pytest.raises(StorageFailed, match="503"):
        run.save(10)


BestLost = Callable[[Run, Path], None]


def best_never_stored(run: Run, folder: Path) -> None:
    """As attempts of an older version left it: named by all that follow, and not there."""
    (folder / "MANIFEST.json").unlink()


def best_damaged(run: Run, folder: Path) -> None:
    damage("adapter.safetensors", lambda data: data[:-1])(folder)


def best_deleted(run: Run, folder: Path) -> None:
    run.store.delete([info.path for info in run.store.list("runs/") if folder.name in info.path])


LOST = [best_never_stored, best_damaged, best_deleted]


@pytest.mark.parametrize("lose", LOST)
def test_when_the_best_one_is_lost_the_newest_is_resumed_with_the_best_that_is_left(
    tmp_path: Path, lose: BestLost
) -> None:
    run = Run(tmp_path, keep=5)
    best = (20, run.checkpoints.name(20))
    run.save(10, (10, run.checkpoints.name(10)), loss=3.0)
    run.save(20, best, loss=1.0)
    run.save(30, best, loss=2.0)
    run.save(40, best)  # not evaluated
    lose(run, tmp_path / "output" / "runs" / ("0" * 64) / "checkpoints" / best[1])
    later = Run(tmp_path, attempt=1)
    found = later.newest()
    assert found is not None
    assert (found.state.step, found.state.best) == (40, Best(step=30, loss=2.0, checkpoint=run.checkpoints.name(30)))
    assert later.kept_best() == 30.0
    assert "the best checkpoint cannot be read" in later.log.getvalue()
    assert found.state.best is not None
    later.save(50, (30, found.state.best.checkpoint))
    last = Run(tmp_path, attempt=2)
    assert [each.state.step for each in [last.newest()] if each] == [50]
    assert last.kept_best() == 30.0


def test_when_no_other_was_evaluated_the_newest_is_resumed_without_a_best(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=5)
    run.save(10, (10, run.checkpoints.name(10)), loss=3.0)
    run.save(20, (10, run.checkpoints.name(10)))
    run.store.delete([info.path for info in run.store.list("runs/") if run.checkpoints.name(10) in info.path])
    found = Run(tmp_path, attempt=1).newest()
    assert found is not None
    assert (found.state.step, found.state.best) == (20, None)


def test_a_best_one_that_could_not_be_stored_is_stored_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.save(10, (10, run.checkpoints.name(10)), loss=3.0)
    best = (20, run.checkpoints.name(20))
    with monkeypatch.context() as outage:
        outage.setattr(run.store, "upload", fails)
        run.checkpoints.save(checkpoint(20, Best(step=20, loss=1.0, checkpoint=best[1]), 1.0))
        run.checkpoints.wait()  # tolerated
    manifests: list[str] = []
    whole = run.store.put_once

    def committed(path: str, data: bytes) -> bool:
        manifests.append(path.split("/")[3])
        return whole(path, data)

    monkeypatch.setattr(run.store, "put_once", committed)
    for step in (30, 40, 50):
        run.save(step, best)
    assert manifests == [run.checkpoints.name(step) for step in (20, 30, 40, 50)]
    assert run.names() == [run.checkpoints.name(step) for step in (20, 40, 50)]
    later = Run(tmp_path, attempt=1)
    found = later.newest()
    assert found is not None
    assert (found.state.step, found.state.best) == (50, Best(step=20, loss=1.0, checkpoint=best[1]))
    assert later.kept_best() == 20.0
    assert later.log.getvalue() == "", "weights without a state are no damaged checkpoint"
    # What has no state to resume from takes nobody's place among those that are kept, and goes when another is best.
    later.save(60, (60, later.checkpoints.name(60)), loss=0.5)
    assert later.names() == [*(run.checkpoints.name(step) for step in (40, 50)), later.checkpoints.name(60)]


def test_until_the_best_one_is_stored_nothing_that_names_it_is_and_nothing_older_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, keep=1)
    run.save(10, (10, run.checkpoints.name(10)), loss=3.0)
    whole = run.store.upload

    def refuses_the_best(source: Path, path: str) -> FileEntry:
        return fails() if run.checkpoints.name(20) in path else whole(source, path)

    monkeypatch.setattr(run.store, "upload", refuses_the_best)
    for step in (20, 30):
        best = Best(step=20, loss=1.0, checkpoint=run.checkpoints.name(20))
        run.checkpoints.save(checkpoint(step, best, 1.0 if step == 20 else None))
        run.checkpoints.wait()
    assert run.names() == [run.checkpoints.name(10)]
    assert Run(tmp_path, attempt=1).newest() is not None


def test_best_weights_that_another_attempt_deletes_are_stored_again(tmp_path: Path) -> None:
    first = Run(tmp_path, keep=1)
    first.save(10, (10, first.checkpoints.name(10)), loss=1.0)
    first.save(20, (10, first.checkpoints.name(10)))
    second = Run(tmp_path, attempt=1)
    resumed = second.newest()
    assert resumed is not None
    # The first attempt's node was only thought to be lost: it finds a better one, which is never stored whole.
    first.store.delete([info.path for info in first.store.list("runs/") if first.checkpoints.name(10) in info.path])
    second.save(30, (10, first.checkpoints.name(10)))
    second.save(40, (10, first.checkpoints.name(10)))
    third = Run(tmp_path, attempt=2)
    found = third.newest()
    assert found is not None
    assert (found.state.step, found.state.best) == (40, Best(step=10, loss=1.0, checkpoint=second.checkpoints.name(10)))
    assert third.kept_best() == 10.0


def test_a_process_that_writes_the_same_checkpoint_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr(run.store, "put_once", lambda path, data: False)
    monkeypatch.setattr(run.store, "read", lambda path: b"of another")
    run.checkpoints.save(checkpoint(10))
    with pytest.raises(StorageFailed, match="another process"):
        run.checkpoints.wait(everything=True)


def test_best_weights_that_cannot_be_read_when_they_are_published_end_the_attempt_by_name(tmp_path: Path) -> None:
    run = Run(tmp_path)
    best = Best(step=10, loss=1.0, checkpoint=run.checkpoints.name(10))
    run.save(10, (10, best.checkpoint))
    assert run.checkpoints.best_weights(best).keys() == {"a", "b"}
    file = run.checkpoints.best_folder / "adapter.safetensors"
    for spoil in (lambda: file.write_bytes(b"rot"), file.unlink):
        spoil()
        with pytest.raises(StorageFailed, match="step 10"):
            run.checkpoints.best_weights(best)


def test_nobody_meets_a_checkpoint_half_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    for step in (10, 20):
        run.save(step)
    deleted: list[str] = []
    whole = run.store.delete

    def one(paths: list[str]) -> None:
        deleted.extend(paths)
        whole(paths)

    monkeypatch.setattr(run.store, "delete", one)
    run.checkpoints.delete_all()
    assert run.names() == []
    for name in (run.checkpoints.name(10), run.checkpoints.name(20)):
        mine = [path for path in deleted if name in path]
        assert mine[0].endswith("MANIFEST.json")


def test_an_outage_of_storage_is_survived_twice_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    whole = run.store.put_once
    monkeypatch.setattr(run.store, "put_once", fails)
    for step in (10, 20, 30):
        run.checkpoints.save(checkpoint(step))
        run.checkpoints.settle()
    assert run.log.getvalue().count("checkpoint not stored") == 2
    with pytest.raises(StorageFailed, match="503"):
        run.checkpoints.save(checkpoint(40))
    monkeypatch.setattr(run.store, "put_once", whole)
    run.save(50)
    newest = run.newest()
    assert newest is not None
    assert newest.state.step == 50


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Run, threading.Event, threading.Event]]:
    """A run whose uploads wait for the second event; the first says that one has begun."""
    run = Run(tmp_path, keep=5)
    begun, released = held_uploads(run.store, monkeypatch)
    yield run, begun, released
    released.set()
    run.checkpoints.settle()


def test_training_never_waits_for_storage_and_the_newest_checkpoint_is_stored_next(
    tmp_path: Path, slow: tuple[Run, threading.Event, threading.Event]
) -> None:
    run, begun, released = slow
    run.checkpoints.save(checkpoint(10))
    assert begun.wait(60)
    for step in (20, 30, 40):
        run.checkpoints.save(checkpoint(step))  # would hang here if it waited
    assert run.names() == []
    released.set()
    run.checkpoints.wait(everything=True)
    assert run.names() == [run.checkpoints.name(10), run.checkpoints.name(40)]
    assert run.log.getvalue().count("one was left out") == 2
    assert run.board.read().checkpoint_step == 40
    run.save(50)
    assert run.names()[-1] == run.checkpoints.name(50)


@pytest.mark.parametrize("passed", [(20,), (20, 30)], ids=["at once", "over another one"])
def test_best_weights_of_a_checkpoint_that_was_left_out_are_stored_before_they_are_named(
    tmp_path: Path, slow: tuple[Run, threading.Event, threading.Event], passed: tuple[int, ...]
) -> None:
    run, begun, released = slow
    best = Best(step=20, loss=1.0, checkpoint=run.checkpoints.name(20))
    run.checkpoints.save(checkpoint(10))
    assert begun.wait(60)
    for step in (*passed, 40):
        run.checkpoints.save(checkpoint(step, best, 1.0 if step == 20 else None))
    released.set()
    run.checkpoints.wait(everything=True)
    assert run.kept_best() == 20.0
    later = Run(tmp_path, attempt=1)
    found = later.newest()
    assert found is not None
    assert (found.state.step, found.state.best) == (40, best)
    assert later.kept_best() == 20.0


def test_best_weights_that_were_left_out_give_way_to_better_ones(
    tmp_path: Path, slow: tuple[Run, threading.Event, threading.Event]
) -> None:
    run, begun, released = slow
    run.checkpoints.save(checkpoint(10))
    assert begun.wait(60)
    for step in (20, 30):
        best = Best(step=step, loss=1.0 / step, checkpoint=run.checkpoints.name(step))
        run.checkpoints.save(checkpoint(step, best, 1.0 / step))
    released.set()
    run.checkpoints.wait(everything=True)
    assert run.kept_best() == 30.0
    assert run.names() == [run.checkpoints.name(10), run.checkpoints.name(30)]


def test_a_failure_that_a_newer_checkpoint_made_good_ends_nothing(
    tmp_path: Path, slow: tuple[Run, threading.Event, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, begun, released = slow
    whole = run.store.put_once
    monkeypatch.setattr(
        run.store, "put_once", lambda path, data: fails() if run.checkpoints.name(10) in path else whole(path, data)
    )
    run.checkpoints.save(checkpoint(10))
    assert begun.wait(60)
    run.checkpoints.save(checkpoint(20))
    released.set()
    run.checkpoints.wait(everything=True)
    assert "checkpoint not stored" in run.log.getvalue()
    assert run.newest() is not None
    assert run.checkpoints.newest_step == 20


def test_before_an_early_end_a_single_failure_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)

    def denied(path: str, data: bytes) -> bool:
        raise SettingsInvalid("access denied")

    monkeypatch.setattr(run.store, "put_once", denied)
    run.checkpoints.save(checkpoint(10))
    with pytest.raises(SettingsInvalid):
        run.checkpoints.wait(everything=True)


def test_a_uid_of_any_form_gives_a_name_that_is_found_again() -> None:
    assert [short_uid(uid) for uid in ("0123ABCD-99", "a_b/c", "---")] == ["0123abcd", "abc", "0"]
