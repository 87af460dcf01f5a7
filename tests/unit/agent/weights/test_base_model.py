"""The base model on its way to an engine's volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def test_what_a_fetch_that_was_killed_has_left_takes_no_room(
    stored: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_at_it(store: FileStore, path: str, file: Path, **more: object) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half of")
        os._exit(9)

    with monkeypatch.context() as killed:
        killed.setattr(FileStore, "download", killed_at_it)
        if (process := os.fork()) == 0:
            fetch_base_model(at(stored), volume)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    (volume / ".part-another-pod").mkdir()  # at it, on a volume that both share
    fetch_base_model(at(stored), volume)
    assert {path.name for path in volume.iterdir()} == {*FILES, ".part-another-pod"} - {"README.md"}


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
