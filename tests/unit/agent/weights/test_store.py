from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from trimtab_agent.failures import FailureReason, RevisionFailed
from trimtab_agent.weights.store import AdapterStore
from trimtab_agent.weights.tensors import examine
from trimtab_trainer.contract import canonical_json, digest_of

from tests.serving.adapters import BASE_DIGEST, Published, publish, safetensors


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    store = AdapterStore(tmp_path / "volume")
    store.prepare()
    return store


def bring(store: AdapterStore, adapter: Published) -> Any:
    store.fetch(adapter.uri, adapter.digest)
    return store.verify(adapter.digest)


def failure(store: AdapterStore, adapter: Published) -> RevisionFailed:
    with pytest.raises(RevisionFailed) as caught:
        bring(store, adapter)
    return caught.value


def left_over(store: AdapterStore, tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "volume").iterdir() if path.name.startswith(".")]


def test_an_adapter_is_brought_whole_and_read_only(store: AdapterStore, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "s3", 1, rank=4)
    found = bring(store, adapter)
    assert found.folder == store.folder(adapter.digest)
    assert (found.health.rank, found.health.tensors, found.base_model_digest) == (4, 2, BASE_DIGEST)
    names = {path.name for path in found.folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "MANIFEST.json"}
    assert (found.folder / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o444
    assert found.folder.stat().st_mode & 0o777 == 0o755
    (adapter.folder / "MANIFEST.json").unlink()
    assert bring(store, adapter) == found  # it is not fetched twice
    assert left_over(store, tmp_path) == []


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_one_flipped_bit_in_storage_is_found(store: AdapterStore, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "s3", 1)
    flip(adapter.folder / "adapter_model.safetensors", -1)
    error = failure(store, adapter)
    assert (error.reason, error.permanent) == (FailureReason.ARTIFACT_DAMAGED, False)
    assert not store.folder(adapter.digest).exists()
    assert left_over(store, tmp_path) == []
    flip(adapter.folder / "adapter_model.safetensors", -1)
    assert bring(store, adapter).digest == adapter.digest  # who restores the object need not do anything else


def test_one_flipped_bit_on_the_volume_is_found(store: AdapterStore, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "s3", 1)
    bring(store, adapter)
    file = store.folder(adapter.digest) / "adapter_model.safetensors"
    file.chmod(0o644)
    flip(file, -1)
    assert failure(store, adapter).reason is FailureReason.ARTIFACT_DAMAGED


def test_a_truncated_object_is_found(store: AdapterStore, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "s3", 1)
    file = adapter.folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert failure(store, adapter).reason is FailureReason.ARTIFACT_DAMAGED


def test_another_adapter_at_that_place_is_found(store: AdapterStore, tmp_path: Path) -> None:
    wanted, there = publish(tmp_path / "s3", 1), publish(tmp_path / "s3", 2)
    error = failure(store, Published(there.uri, wanted.digest, there.folder))
    assert (error.reason, error.permanent) == (FailureReason.DIGEST_MISMATCH, True)


def test_a_manifest_that_leaves_the_folder_is_refused(store: AdapterStore, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "s3", 1)
    manifest = adapter.folder / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"adapter_config.json"', b'"../../../outside.json"'))
    assert failure(store, adapter).reason is FailureReason.ARTIFACT_DAMAGED
    assert not (tmp_path / "outside.json").exists()


def test_what_is_not_there_can_come_later(store: AdapterStore, tmp_path: Path) -> None:
    missing = Published((tmp_path / "s3" / "none").as_uri(), BASE_DIGEST, tmp_path)
    error = failure(store, missing)
    assert (error.reason, error.permanent) == (FailureReason.ARTIFACT_MISSING, False)


def nan(numbers: numpy.ndarray[Any, Any]) -> None:
    numbers[3, 2] = numpy.nan


def infinite(numbers: numpy.ndarray[Any, Any]) -> None:
    numbers[0, 0] = -numpy.inf


def huge(numbers: numpy.ndarray[Any, Any]) -> None:
    numbers[5, 1] = 1.2e29


UNHEALTHY: dict[str, tuple[dict[str, Any], FailureReason]] = {
    "NaN": ({"spoil": nan}, FailureReason.NOT_FINITE),
    "infinite": ({"spoil": infinite}, FailureReason.NOT_FINITE),
    "finite, but 1.2e29": ({"spoil": huge}, FailureReason.MAGNITUDE_TOO_HIGH),
    "infinite in bfloat16": ({"scale": 1e39}, FailureReason.NOT_FINITE),
    "huge in bfloat16": ({"scale": 1e10}, FailureReason.MAGNITUDE_TOO_HIGH),
    "all zero": ({"zero": True}, FailureReason.CHANGES_NOTHING),
    "DoRA": ({"settings": {"use_dora": True}}, FailureReason.NOT_SUPPORTED),
    "with bias": ({"settings": {"bias": "all"}}, FailureReason.NOT_SUPPORTED),
    "whole modules": ({"settings": {"modules_to_save": ["lm_head"]}}, FailureReason.NOT_SUPPORTED),
    "not LoRA": ({"settings": {"peft_type": "IA3"}}, FailureReason.NOT_SUPPORTED),
    "no rank": ({"settings": {"r": None}}, FailureReason.ARTIFACT_DAMAGED),
}


@pytest.mark.parametrize("case", UNHEALTHY)
@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_that_would_harm_or_do_nothing_are_refused(store: AdapterStore, tmp_path: Path, case: str) -> None:
    changes, reason = UNHEALTHY[case]
    error = failure(store, publish(tmp_path / "s3", 1, **changes))
    assert (error.reason, error.permanent) == (reason, True)


def test_the_rank_is_that_of_the_weights_whatever_the_settings_say(store: AdapterStore, tmp_path: Path) -> None:
    assert bring(store, publish(tmp_path / "s3", 1, rank=32, settings={"r": 8})).health.rank == 32
    pattern = {"r": 8, "rank_pattern": {"q_proj": 64}}
    assert bring(store, publish(tmp_path / "s3", 2, rank=4, settings=pattern)).health.rank == 64


BAD_FILES: dict[str, bytes] = {
    "empty": b"",
    "header beyond the end": b"\xff" * 16,
    "header is no JSON": b"\x04\0\0\0\0\0\0\0nope",
    "bytes after the last tensor": safetensors({"x.lora_B.weight": ("F32", (1,), b"\0\0\x80?")}) + b"x",
    "offsets that lie": safetensors({"x.lora_B.weight": ("F32", (2,), b"\0\0\x80?")}),
    "a negative shape": safetensors({"x.lora_B.weight": ("F32", (-1,), b"\0\0\x80?")}),
    "no tensors": safetensors({}),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_no_safetensors_are_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (tmp_path / "adapter_model.safetensors").write_bytes(BAD_FILES[case])
    with pytest.raises(RevisionFailed) as caught:
        examine(tmp_path)
    assert caught.value.reason is FailureReason.ARTIFACT_DAMAGED


def test_eight_bit_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    file = safetensors({"x.lora_B.weight": ("F8_E4M3", (1,), b"\0")})
    (tmp_path / "adapter_model.safetensors").write_bytes(file)
    with pytest.raises(RevisionFailed, match="F8_E4M3"):
        examine(tmp_path)


def test_what_an_engine_lists_or_a_share_wants_is_kept(store: AdapterStore, tmp_path: Path) -> None:
    wanted, listed, gone = (publish(tmp_path / "s3", seed) for seed in range(3))
    for adapter in (wanted, listed, gone):
        bring(store, adapter)
    (tmp_path / "volume" / ".part-dead").mkdir()
    store.prepare()
    assert left_over(store, tmp_path) == []
    unwanted = store.unwanted({wanted.digest}, [str(store.folder(listed.digest)) + "/"])
    assert unwanted == {gone.digest}
    store.remove(gone.digest)
    store.remove(gone.digest)
    assert store.digests() == {wanted.digest, listed.digest}


def test_a_whole_model_is_refused_by_name_before_a_byte_of_it_is_fetched(store: AdapterStore, tmp_path: Path) -> None:
    folder = tmp_path / "s3/models/one"
    folder.mkdir(parents=True)
    files = [{"path": name, "size": 10**12, "sha256": "0" * 64} for name in ("config.json", "model.safetensors")]
    document = {"artifact": {"files": files, "baseModel": "sha256:" + "b" * 64}}
    (folder / "MANIFEST.json").write_bytes(canonical_json(document))
    with pytest.raises(RevisionFailed, match="a whole model, and engines load adapters") as failed:
        store.bring(folder.as_uri(), digest_of(document["artifact"]))
    assert failed.value.reason is FailureReason.NOT_SUPPORTED
    assert failed.value.permanent
    assert list((tmp_path / "volume").iterdir()) == []
