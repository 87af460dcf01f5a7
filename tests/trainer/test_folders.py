"""Folders that are made anew hold nothing of before, and say so where they cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trimtab_trainer.folders import emptied, remove, tidy


def test_a_folder_that_is_not_there_is_made_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    remove(folder)
    assert list(emptied(folder).iterdir()) == []
    remove(folder)
    assert not folder.exists()


def test_nothing_of_before_stays_in_it(tmp_path: Path) -> None:
    (tmp_path / "folder" / "old").mkdir(parents=True)
    (tmp_path / "folder" / "old" / "file").write_text("of the attempt before")
    assert list(emptied(tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("made", [remove, emptied])
def test_what_cannot_be_removed_is_told_instead_of_being_taken_for_new(
    made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("of the attempt before")
    assert callable(made)

    def stale(path: object, **where: object) -> None:
        raise OSError(116, "Stale file handle", path)

    monkeypatch.setattr(os, "unlink", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        made(tmp_path)
    assert (tmp_path / "file").exists()


def test_tidying_removes_a_folder_and_says_nothing_of_one_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    said: list[object] = []
    for _ in range(2):
        tidy(tmp_path / "folder", lambda *words, **fields: said.append((words, fields)))
        assert list(tmp_path.iterdir()) == []
    assert said == []


def test_what_stays_when_tidying_is_told_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS keeps a file that is mapped as .nfs..., so that its folder cannot be removed."""
    (tmp_path / "folder").mkdir()
    for name in ("mapped", "other"):
        (tmp_path / "folder" / name).write_text("a checkpoint")
    unlink = os.unlink

    def busy(path: str, **where: int) -> None:
        if path == "mapped":
            raise OSError(16, "Device or resource busy", path)
        unlink(path, **where)

    monkeypatch.setattr(os, "unlink", busy)
    said: list[dict[str, object]] = []
    tidy(tmp_path / "folder", lambda message, **fields: said.append(fields))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mapped"]
    (fields,) = said
    assert (fields["folder"], "busy" in str(fields["error"])) == (str(tmp_path / "folder"), True)
