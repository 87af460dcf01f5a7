"""The base model on its way to an engine's volume."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trimtab_agent.weights.base_model import fetch_base_model
from trimtab_trainer.contract import Reason, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.storage import ObjectDamaged, ObjectInfo
from trimtab_trainer.storage.volume import FileStore

FILES = {
    "config.json": '{"model_type": "llama"}',
    "tokenizer.json": "{}",
    "model.safetensors": "weights",
    "README.md": "not a part of what the model computes",
}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "s3"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume" / "base"


def at(folder: Path, digest: str | None = None) -> StoredBaseModel:
    return StoredBaseModel(uri=f"file://{folder}", digest=digest)


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_files_that_a_model_computes_with_are_brought(stored: Path, volume: Path) -> None:
    digest = fetch_base_model(at(stored), volume)
    assert held(volume) == {name: text for name, text in FILES.items() if name != "README.md"}
    assert fetch_base_model(at(stored, digest), volume) == digest


def written(file: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written; reading it may change its time of access."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def test_a_volume_that_has_the_pinned_model_is_not_written_again(stored: Path, volume: Path) -> None:
    digest = fetch_base_model(at(stored), volume)
    before = written(volume / "model.safetensors")
    fetch_base_model(at(stored, digest), volume)
    assert written(volume / "model.safetensors") == before
    (volume / "model.safetensors").write_text("other 7")
    fetch_base_model(at(stored, digest), volume)
    assert (volume / "model.safetensors").read_text() == "weights"


def test_another_model_than_the_pinned_one_leaves_nothing(stored: Path, volume: Path) -> None:
    with pytest.raises(SettingsInvalid, match="TRIMTAB_BASE_MODEL_DIGEST") as caught:
        fetch_base_model(at(stored, f"sha256:{'0' * 64}"), volume)
    assert caught.value.reason is Reason.BASE_MODEL_CHANGED
    assert held(volume) == {}


def test_a_file_that_is_shorter_than_its_listing_leaves_nothing(
    stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FileStore.list

    def longer(store: FileStore, prefix: str = "") -> list[ObjectInfo]:
        return [ObjectInfo(info.path, info.size + info.path.endswith(".safetensors")) for info in whole(store, prefix)]

    monkeypatch.setattr(FileStore, "list", longer)
    with pytest.raises(ObjectDamaged, match="7 bytes, but 8"):
        fetch_base_model(at(stored), volume)
    assert held(volume) == {}


def killed_in_the_middle(stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what a fetch has left that was killed."""

    def killed_at_it(store: FileStore, path: str, file: Path, **more: object) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half of")
        os._exit(9)

    with monkeypatch.context() as killed:
        killed.setattr(FileStore, "download", killed_at_it)
        if (process := os.fork()) == 0:
            fetch_base_model(at(stored), volume)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    (left,) = volume.iterdir()
    return left


def grows_old(folder: Path, seconds: float) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_fetch_that_was_killed_has_left_takes_no_room_for_long(
    stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grows_old(killed_in_the_middle(stored, volume, monkeypatch), 4000)
    before = volume / f".part-{socket.gethostname()}"  # as earlier versions called theirs
    others = [volume / f".part-{host}-{'0' * 32}" for host in ("another-pod", f"{socket.gethostname()}-2")]
    for folder in (before, *others):
        folder.mkdir()
        grows_old(folder, 4000)
    fetch_base_model(at(stored), volume)
    assert {path.name for path in volume.iterdir()} == {*FILES, *(each.name for each in others)} - {"README.md"}


def test_a_download_in_progress_of_the_same_host_name_is_left_alone(
    stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods on a node's network have its name, and StatefulSets of one name in two namespaces may share a volume."""
    other = killed_in_the_middle(stored, volume, monkeypatch)
    os.utime(other, (time.time() - 4000,) * 2)  # it began long ago, and its file still grows
    (half,) = (path for path in other.rglob("*") if path.is_file())
    fetch_base_model(at(stored), volume)
    assert half.read_text() == "half of"


def test_a_download_that_cannot_be_tidied_away_ends_nothing_and_hides_no_error(
    stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def not_empty(path: str, **_: object) -> None:
        raise OSError(39, "Directory not empty", path)

    monkeypatch.setattr(os, "rmdir", not_empty)
    digest = fetch_base_model(at(stored), volume)
    assert "scratch not removed" in caplog.text
    assert fetch_base_model(at(stored, digest), volume) == digest
    with pytest.raises(SettingsInvalid, match="TRIMTAB_BASE_MODEL_DIGEST"):
        fetch_base_model(at(stored, f"sha256:{'0' * 64}"), volume)


def command(uri: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "trimtab_agent", "fetch-base-model", "--uri", uri, "--folder", str(folder)]
    return subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_the_command_tells_the_digest_to_pin(stored: Path, volume: Path) -> None:
    done = command(f"file://{stored}", volume)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["msg"], told["bytes"]) == (
        "base model fetched",
        sum(len(t) for n, t in FILES.items() if "." in n) - 37,
    )
    assert command(f"file://{stored}", volume, TRIMTAB_BASE_MODEL_DIGEST=told["digest"]).returncode == 0


def test_the_commands_last_line_says_what_is_wrong(tmp_path: Path, volume: Path) -> None:
    missing = command(f"file://{tmp_path}/nothing", volume)
    assert missing.returncode == 2
    assert "there is no" in json.loads(missing.stdout.splitlines()[-1])["err"]
    other = command("https://example.com/model", volume)
    assert (other.returncode, "uri" in other.stdout) == (2, True)
