"""What the trainer reads back from a bucket may be anybody's: it is refused by name or made again, without a crash."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import (
    Artifact,
    Curve,
    Reason,
    StoredArtifact,
    StoredBaseModel,
    Summary,
    canonical_json,
    digest_of,
)
from trimtab_trainer.contract.parsing import DEPTH, Unreadable, read_json, read_object
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.evaluate.preparing.adapters import VerifiedAdapter, find_adapter
from trimtab_trainer.publishing.result import Result, read_result, write_result
from trimtab_trainer.report import Report
from trimtab_trainer.storage import MANIFEST, ObjectDamaged, Store, open_store, read_manifest
from trimtab_trainer.storage.layout import adapter_prefix, result_path
from trimtab_trainer.storage.tensor_header import TensorPlace, read_header

RUN, BASE = "sha256:" + "1" * 64, "sha256:" + "b" * 64
HOSTILE: dict[str, bytes] = {
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested and closed": b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a number beyond a float": b'{"a": -1e999}',
    "a number of a million digits": b'{"a": ' + b"1" * 1_000_000 + b"}",
    "a number of 65 bits": b'{"a": 18446744073709551616}',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, far inside": b'[[[{"b": [{"a": 1, "\\u0061": 2}]}]]]',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a surrogate pair": b'{"a": "\\ud83d"}',
    "half a surrogate pair in a key": b'{"\\uD83D": 1}',
    "a control character": b'{"a": "\x01"}',
    "two documents": b"{}{}",
    "nothing": b"",
    "spaces": b"   ",
    "too many bytes": b" " * 2000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_json_that_is_refused(case: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_json(HOSTILE[case], 1000 if case == "too many bytes" else 2_000_000)
    assert len(str(caught.value)) < 80, "nothing is quoted"


def test_json_that_is_taken() -> None:
    value = {"a": [1, -(2**63), 2**63 - 1, 1.5, "\u00fc \U0001f600", None, True, {}]}
    assert read_json(json.dumps(value).encode()) == read_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert read_json(b"[" * DEPTH + b"]" * DEPTH)
    with pytest.raises(Unreadable, match="no JSON object"):
        read_object(b"[]")


def test_a_header_is_read_in_the_order_that_tensors_lie() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "a": {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]},
        "none": {"dtype": "F32", "shape": [0, 4], "data_offsets": [10, 10]},
        "new": {"dtype": "F99", "shape": [3], "data_offsets": [10, 11]},
    }
    assert read_header(json.dumps(header).encode() + b"   ", 11) == (
        TensorPlace("b", "F32", (2, 1), 0, 8),
        TensorPlace("a", "BF16", (), 8, 10),
        TensorPlace("none", "F32", (0, 4), 10, 10),
        TensorPlace("new", "F99", (3,), 10, 11),
    )


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


TENSORS = {f"m.lora_{half}.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]} for half in "AB"}
OVERLAPPING = safetensors(json.dumps(TENSORS).encode(), b"1234")
TENSORS["m.lora_B.weight"]["data_offsets"] = [4, 8]
SOUND = safetensors(json.dumps(TENSORS).encode(), b"12345678")
FILES: dict[str, dict[str, bytes]] = {
    "weights nested deep": {"adapter_model.safetensors": safetensors(b"[" * 100_000)},
    "weights that share their place": {"adapter_model.safetensors": OVERLAPPING},
    "weights without bytes": {"adapter_model.safetensors": b""},
    "weights that lie about their place": {
        "adapter_model.safetensors": safetensors(b'{"m": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}')
    },
    "settings nested deep": {"adapter_config.json": b"[" * 100_000},
    "settings of NaN": {"adapter_config.json": b'{"r": NaN}'},
    "settings that are a list": {"adapter_config.json": b"[]"},
    "a rank of true": {"adapter_config.json": b'{"peft_type": "LORA", "r": true}'},
}


def publish(store: Store, files: dict[str, bytes]) -> Artifact:
    """Publish files as an adapter whose digest and hashes are right."""
    files = {"adapter_model.safetensors": SOUND, "adapter_config.json": b'{"peft_type": "LORA", "r": 1}', **files}
    artifact: dict[str, Any] = {
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        ]
    }
    artifact["baseModel"] = BASE
    digest = digest_of(artifact)
    prefix = adapter_prefix(digest)
    for path, data in files.items():
        store.put(f"{prefix}/{path}", data)
    store.put(f"{prefix}/{MANIFEST}", canonical_json({"artifact": artifact}))
    return Artifact(uri=store.address(prefix), digest=digest, rank=1, target_modules=["m"], base_model_digest=BASE)


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store((tmp_path / "output").as_uri(), None)


def find(artifact: Artifact) -> VerifiedAdapter:
    return find_adapter(StoredArtifact(uri=artifact.uri, digest=artifact.digest), "target", BASE)


def test_a_sound_adapter_is_found(output: Store) -> None:
    artifact = publish(output, {})
    assert find(artifact).digest == artifact.digest
    result = Result.of(artifact, Summary(step=3, loss=1.5, curve=Curve(steps=(1, 3), loss=(2.0, 1.5))))
    assert write_result(output, RUN, result) == read_result(output, RUN) == result
    assert result.artifact == artifact


def test_a_note_of_a_trainer_of_before_is_a_result_without_figures(output: Store) -> None:
    artifact = publish(output, {})
    output.put(result_path(RUN), canonical_json(artifact.to_json()))
    assert read_result(output, RUN) == Result.of(artifact, Summary())


@pytest.mark.parametrize("case", FILES)
def test_an_adapter_that_cannot_be_loaded_is_not_evaluated(output: Store, case: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        find(publish(output, FILES[case]))
    assert caught.value.reason is Reason.ARTIFACT_INVALID


@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "too many bytes"])
def test_a_note_of_a_result_that_is_none_is_no_result(output: Store, case: str) -> None:
    output.put(result_path(RUN), HOSTILE[case])
    log = io.StringIO()
    assert read_result(output, RUN, Report(stream=log)) is None
    assert "it is trained again" in log.getvalue()


@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "too many bytes"])
def test_a_manifest_that_is_none_is_damaged(output: Store, case: str) -> None:
    output.put(f"x/{MANIFEST}", HOSTILE[case])
    with pytest.raises(ObjectDamaged, match="no manifest"):
        read_manifest(output, "x")


def test_a_base_model_is_refused_by_name(tmp_path: Path) -> None:
    from trimtab_trainer.base.architecture import read_shapes
    from trimtab_trainer.base.base_model import find_base_model

    settings = StoredBaseModel(uri=(tmp_path / "base").as_uri())
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    for header in (b"[" * 100_000, b'{"a": {"shape": [1e999], "data_offsets": [0, 1e999]}}', b"{}" + b"\0" * 9):
        (tmp_path / "base" / "config.json").write_text("{}")
        (tmp_path / "base" / "model.safetensors").write_bytes(safetensors(header))
        with pytest.raises(SettingsInvalid) as caught:
            read_shapes(find_base_model(settings))
        assert caught.value.reason is Reason.BASE_MODEL_INVALID
        (tmp_path / "base" / "config.json").write_bytes(header)
        with pytest.raises(SettingsInvalid) as caught:
            read_shapes(find_base_model(settings))
        assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_a_name_that_is_no_text_can_be_reported() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Report(stream=stream).warn("odd name", file=b"rows-\xff.jsonl".decode(errors="surrogateescape"))
    stream.seek(0)
    assert json.loads(stream.read())["file"] == "rows-\udcff.jsonl"
