"""Folders that nobody sound publishes: each ends as a named refusal with a pause, and none as an error that escapes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from trimtab_agent.documents import Probe, Revision
from trimtab_agent.failures import FailureReason
from trimtab_agent.rounds.revisions import Bringer, Work
from trimtab_agent.weights.store import AdapterStore
from trimtab_trainer.contract import canonical_json, digest_of

DAMAGED = {FailureReason.ARTIFACT_DAMAGED}
CONFIG = b'{"peft_type": "LORA", "r": 4}'
ONES = numpy.ones(16, dtype="<f4").tobytes()
A, B = "m.lora_A.weight", "m.lora_B.weight"


def weights(header: Any, data: bytes = ONES + ONES) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: Any = 0, end: Any = 64, shape: Any = (4, 4), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SOUND = weights({A: tensor(), B: tensor(64, 128)})
DEEP = b"[" * 100_000

WEIGHTS: dict[str, bytes] = {
    "a header nested 100,000 deep": weights(DEEP),
    "a header nested 500 deep": weights(b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}"),
    "a header that is a list": weights([]),
    "a header of numbers": weights({A: 3}),
    "a header longer than the file": struct.pack("<Q", 1 << 60) + b"{}",
    "a header longer than any": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "a header that is not UTF-8": weights(b'{"\xff": 1}'),
    "lora_A of shape []": weights({A: tensor(0, 4, []), B: tensor(4, 68)}, ONES[:4] + ONES),
    "lora_embedding_A of shape []": weights({"lora_embedding_A.w": tensor(0, 4, [])}, ONES[:4]),
    "a vector": weights({A: tensor(0, 64, [16]), B: tensor(64, 128)}),
    "a shape of booleans": weights({A: tensor(0, 4, [True, True])}, ONES[:4]),
    "a shape of floats": weights({A: tensor(0, 64, [4.0, 4.0]), B: tensor(64, 128)}),
    "a shape that is text": weights({A: tensor(0, 64, "44"), B: tensor(64, 128)}),
    "a shape whose product wraps around 64 bits": weights({A: tensor(0, 64, [1 << 62, 4, 1]), B: tensor(64, 128)}),
    "a shape of numbers of 300 digits": weights({A: tensor(0, 64, [10**300, 0]), B: tensor(64, 128)}),
    "a shape of a million dimensions": weights({A: tensor(0, 64, [1] * 1_000_000), B: tensor(64, 128)}),
    "negative offsets": weights({A: tensor(-64, 0), B: tensor(0, 128, (8, 4))}),
    "offsets the wrong way round": weights({A: tensor(64, 0), B: tensor(64, 128)}),
    "offsets of booleans": weights({A: tensor(False, 64), B: tensor(64, 128)}),
    "offsets of text": weights({A: tensor("0", "64"), B: tensor(64, 128)}),
    "three offsets": weights({A: {**tensor(), "data_offsets": [0, 64, 64]}, B: tensor(64, 128)}),
    "no offsets": weights({A: {"dtype": "F32", "shape": [4, 4]}}),
    "two tensors in one place": weights({A: tensor(), B: tensor(0, 64)}, ONES),
    "tensors that overlap": weights({A: tensor(0, 64), B: tensor(32, 96)}, ONES + ONES[:32]),
    "a gap between tensors": weights({A: tensor(0, 64), B: tensor(68, 132)}, ONES + b"1234" + ONES),
    "a tensor beyond the end": weights({A: tensor(), B: tensor(64, 1 << 50, [1 << 20, 1 << 28])}),
    "a tensor that is there twice": weights(
        f'{{"{B}": {json.dumps(tensor())}, "{B}": {json.dumps(tensor())}}}'.encode()
    ),
    "an infinite offset": weights(b'{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 1e999]}}'),
    "a shape of NaN": weights(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 0]}}'),
    "a name with a line break": weights({f"{A}\n": tensor(), B: tensor(64, 128)}),
    "a name of half a surrogate pair": weights(b'{"\\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'),
    "a name of a million letters": weights({"a" * 1_000_000: tensor(), B: tensor(64, 128)}),
    "a type that is a list": weights({A: tensor(dtype=["F32"]), B: tensor(64, 128)}),
    "no bytes at all": b"",
}
CONFIGS: dict[str, bytes] = {
    "settings nested 100,000 deep": DEEP,
    "objects nested 100,000 deep": b'{"a":' * 100_000,
    "settings that are a list": b"[]",
    "settings that are not UTF-8": b'{"peft_type": "LORA", "r": 4, "x": "\xff"}',
    "a rank that is there twice": b'{"peft_type": "LORA", "r": 4, "r": 400}',
    "a rank of a million digits": b'{"peft_type": "LORA", "r": ' + b"9" * 1_000_000 + b"}",
    **{
        f"a rank of {rank}": b'{"peft_type": "LORA", "r": ' + rank.encode() + b"}"
        for rank in ("Infinity", "-Infinity", "NaN", "1e999", "true", "-4", "0", "4.0", '"4"', "[4]", "null", "1" * 19)
    },
    "a pattern that is a list": b'{"peft_type": "LORA", "r": 4, "rank_pattern": [1]}',
    "a pattern of NaN": b'{"peft_type": "LORA", "r": 4, "rank_pattern": {"q": NaN}}',
    "a pattern of lists": b'{"peft_type": "LORA", "r": 4, "rank_pattern": {"q": [[]]}}',
    "more bytes than any settings have": b'{"peft_type": "LORA", "r": 4, "x": "' + b"x" * (17 << 20) + b'"}',
}
SHA = hashlib.sha256(b"").hexdigest()


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "x", "size": 0, "sha256": SHA, **changes}


ENTRIES: dict[str, Any] = {
    "a path with NUL": entry(path="x\0y"),
    "a path with a line break": entry(path="x\ny"),
    "a path that leaves the folder": entry(path="../x"),
    "a path that leaves the folder from below": entry(path="a/../../x"),
    "an absolute path": entry(path="/etc/passwd"),
    "an empty path": entry(path=""),
    "a path that is no text": entry(path=["x"]),
    "a path of 100,000 letters": entry(path="x" * 100_000),
    "a name longer than file systems take": entry(path="x" * 300),
    "the manifest itself": entry(path="MANIFEST.json"),
    "one path twice": entry(path="adapter_config.json"),
    "a file that is a folder": entry(path="adapter_config.json/x"),
    "a size of text": entry(size="0"),
    "a size of true": entry(size=True),
    "a negative size": entry(size=-1),
    "a size of 0.0": entry(size=0.0),
    "a size beyond 64 bits": entry(size=1 << 64),
    "a hash that is none": entry(sha256=""),
    "a hash in capitals": entry(sha256=SHA.upper()),
    "no hash": {"path": "x", "size": 0},
    "a number": 3,
    "a list": [],
    "null": None,
}
MANIFESTS: dict[str, bytes] = {
    "nested 100,000 deep": DEEP,
    "objects nested 100,000 deep": b'{"artifact":' * 100_000,
    "nested 300 deep and closed": b'{"artifact": {"files": [], "x": ' + b"[" * 300 + b"]" * 300 + b"}}",
    "a size of 1e999": b'{"artifact": {"files": [{"path": "a", "size": 1e999, "sha256": ""}]}}',
    "NaN": b'{"artifact": {"files": [], "x": NaN}}',
    "not UTF-8": b'{"artifact": {"files": [], "x": "\xff"}}',
    "half a surrogate pair": b'{"artifact": {"files": [], "x": "\\udfff"}}',
    "two artifacts": b'{"artifact": {"files": []}, "artifact": {"files": []}}',
    "a number of a million digits": b'{"artifact": {"files": [], "x": ' + b"9" * 1_000_000 + b"}}",
    "files that are an object": b'{"artifact": {"files": {}}}',
    "files that are text": b'{"artifact": {"files": "abc"}}',
    "an artifact that is a list": b'{"artifact": []}',
    "no artifact": b"{}",
    "a list": b"[]",
    "empty": b"",
    "more bytes than any manifest has": b'{"artifact": {"files": []}, "x": "' + b"x" * (17 << 20) + b'"}',
}


def publish(folder: Path, files: dict[str, bytes], more: tuple[Any, ...] = ()) -> str:
    """Write files and the manifest that names them, and more entries; return the digest."""
    folder.mkdir(parents=True)
    entries = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        entries.append({"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    artifact = {"files": [*entries, *more]}
    (folder / "MANIFEST.json").write_bytes(canonical_json({"artifact": artifact}))
    return digest_of(artifact)


def bring(tmp_path: Path, digest: str, seconds: float = 120) -> Work:
    """Let the agent bring in what lies in the folder `s3`."""
    store = AdapterStore(tmp_path / "volume")
    store.prepare()
    work = Work(Revision(name=f"guide@{digest[7:15]}", uri=(tmp_path / "s3").as_uri(), digest=digest), Probe())

    async def run() -> None:
        engine: Any = None  # not reached
        async with asyncio.timeout(seconds):
            await Bringer(store, engine, clock=lambda: 100.0).bring(work, None, set)

    asyncio.run(run())
    assert [path.name for path in (tmp_path / "volume").iterdir() if path.name.startswith(".part")] == []
    return work


def refused(work: Work) -> FailureReason:
    assert work.adapter is None
    assert work.failure is not None
    assert not work.due(100.0, None, False), "the next try comes after a pause"
    assert work.next_try > 100.0
    assert len(work.failure.message) <= 1024
    work.answer(False, None).model_dump_json()
    return work.failure.reason


def test_a_sound_one_is_taken(tmp_path: Path) -> None:
    files = {"adapter_model.safetensors": SOUND, "adapter_config.json": CONFIG}
    work = bring(tmp_path, publish(tmp_path / "s3", files))
    assert work.failure is None
    assert work.adapter is not None


@pytest.mark.parametrize("case", WEIGHTS)
def test_hostile_weights(tmp_path: Path, case: str) -> None:
    files = {"adapter_model.safetensors": WEIGHTS[case], "adapter_config.json": CONFIG}
    assert refused(bring(tmp_path, publish(tmp_path / "s3", files))) in DAMAGED


@pytest.mark.parametrize("case", CONFIGS)
def test_hostile_settings(tmp_path: Path, case: str) -> None:
    files = {"adapter_model.safetensors": SOUND, "adapter_config.json": CONFIGS[case]}
    assert refused(bring(tmp_path, publish(tmp_path / "s3", files))) in DAMAGED


@pytest.mark.parametrize("case", ENTRIES)
def test_hostile_entries_of_a_manifest(tmp_path: Path, case: str) -> None:
    files = {"adapter_model.safetensors": SOUND, "adapter_config.json": CONFIG}
    assert refused(bring(tmp_path, publish(tmp_path / "s3", files, (ENTRIES[case],)))) in DAMAGED


@pytest.mark.parametrize("case", MANIFESTS)
def test_hostile_manifests(tmp_path: Path, case: str) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "s3" / "MANIFEST.json").write_bytes(MANIFESTS[case])
    assert refused(bring(tmp_path, "sha256:" + "0" * 64)) in DAMAGED


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def elsewhere(file: Path) -> None:
    """Exactly the bytes that the manifest names, but not in the folder."""
    file.rename(file.parent.parent / "outside")
    file.symlink_to("../outside")


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES: list[tuple[Callable[[Path], None], FailureReason]] = [
    (pipe, FailureReason.ARTIFACT_DAMAGED),
    (endless, FailureReason.ARTIFACT_DAMAGED),
    (circle, FailureReason.ARTIFACT_DAMAGED),
    (elsewhere, FailureReason.ARTIFACT_DAMAGED),
    (folder, FailureReason.ARTIFACT_MISSING),
]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "MANIFEST.json"])
@pytest.mark.parametrize(("change", "reason"), FILES)
def test_hostile_files_of_a_volume(
    tmp_path: Path, change: Callable[[Path], None], reason: FailureReason, name: str
) -> None:
    digest = publish(tmp_path / "s3", {"adapter_model.safetensors": SOUND, "adapter_config.json": CONFIG})
    change(tmp_path / "s3" / name)
    assert refused(bring(tmp_path, digest)) is reason


def test_what_the_volume_cannot_hold_is_refused_before_it_is_full(tmp_path: Path) -> None:
    files = {"adapter_model.safetensors": SOUND, "adapter_config.json": CONFIG}
    digest = publish(tmp_path / "s3", files, (entry(path="large", size=1 << 62),))
    assert refused(bring(tmp_path, digest)) is FailureReason.STORAGE_FAILED


@pytest.mark.parametrize("uri", ["file:///x%00y", "file:///%ff/x", "s3://a[", "s3://a%00b/x", "s3://a b/x"])
def test_hostile_uris(tmp_path: Path, uri: str) -> None:
    store = AdapterStore(tmp_path / "volume")
    store.prepare()
    digest = "sha256:" + "0" * 64
    work = Work(Revision(name=f"guide@{digest[7:15]}", uri=uri, digest=digest), Probe())
    asyncio.run(Bringer(store, None, clock=lambda: 100.0).bring(work, None, set))  # type: ignore[arg-type]
    assert refused(work) in {FailureReason.STORAGE_FAILED, FailureReason.ARTIFACT_MISSING, FailureReason.ACCESS_DENIED}


def test_a_bug_of_ours_is_told_and_not_met_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a canary of the bug")

    monkeypatch.setattr("trimtab_agent.weights.store.read_manifest", bug)
    work = bring(tmp_path, publish(tmp_path / "s3", {"adapter_config.json": CONFIG}))
    assert refused(work) is FailureReason.ARTIFACT_DAMAGED
    assert work.failure is not None
    assert not work.failure.permanent
    assert "canary" not in work.failure.message
    assert "a canary of the bug" in caplog.text
