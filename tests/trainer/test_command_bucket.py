"""`kubectl trimtab logs --storage` on a real S3 server, of what the trainer's own code wrote there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trimtab.bucket import record_of
from trimtab.errors import NotAllowed, NotFound, Problem, Unreachable
from trimtab.kinds import kind_named
from trimtab.objects import CustomObject, parse
from trimtab_trainer.storage import FileEntry, open_store
from trimtab_trainer.storage.layout import ADAPTER_METRICS, adapter_prefix, checkpoints_prefix
from trimtab_trainer.storage.manifest import commit
from trimtab_trainer.training.state import Point, TrainingPoint, TrainingState

from tests.trainer.conftest import ObjectStorage

DIGEST = "sha256:" + "5" * 64
METRICS = f"{adapter_prefix(DIGEST)}/{ADAPTER_METRICS}"
STATE = TrainingState(
    step=20,
    curve=(TrainingPoint(step=10, loss=3.0, tokens_per_second=5000.4), TrainingPoint(step=20, loss=2.5)),
    evaluations=(Point(step=20, loss=2.75),),
)
LINES = ("step 10: loss 3, 5,000 tokens/s", "step 20: loss 2.5", "step 20: validation loss 2.75")


@pytest.fixture
def keys(object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of a user who may read, in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, (object_storage.folder / "reader" / name).read_text().strip())
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def write(object_storage: ObjectStorage, output: str, path: str, told: dict[str, Any], folder: Path) -> None:
    """Write a folder of one file as the trainer does."""
    store = open_store(output, object_storage.credentials())
    prefix, _, name = path.rpartition("/")
    file = folder / name
    file.write_text(json.dumps(told))
    store.upload(file, path)
    assert commit(store, prefix, {"records": {"files": [FileEntry.read(file, name).to_json()]}})


def job(output: str, **status: Any) -> CustomObject:
    return parse(
        kind_named("ftj"), {"metadata": {"name": "demo"}, "spec": {"output": {"uri": output}}, "status": status}
    )


@pytest.mark.usefixtures("keys")
def test_of_a_published_adapter_its_metrics(object_storage: ObjectStorage, tmp_path: Path) -> None:
    output = object_storage.uri("out")
    told = {name: value for name, value in STATE.model_dump(mode="json").items() if name in ("curve", "evaluations")}
    write(object_storage, output, METRICS, told, tmp_path)
    uri = f"{output}/{adapter_prefix(DIGEST)}"
    found = record_of(job(output, artifact={"uri": uri, "digest": DIGEST}))
    assert found.lines == LINES
    assert found.uri == f"{uri}/metrics.json"


@pytest.mark.usefixtures("keys")
def test_of_a_run_that_stopped_its_newest_whole_checkpoint(object_storage: ObjectStorage, tmp_path: Path) -> None:
    output = object_storage.uri("out")
    about = job(output, runDigest=DIGEST)
    with pytest.raises(NotFound, match="no checkpoint of demo"):
        record_of(about)
    state = STATE.model_dump(mode="json")
    older = {**state, "curve": state["curve"][:1], "evaluations": []}
    for step, told in (("step-000010-abcdef01-1", older), ("step-000020-abcdef01-2", state)):
        write(object_storage, output, f"{checkpoints_prefix(DIGEST)}/{step}/state.json", told, tmp_path)
    torn = open_store(output, object_storage.credentials())
    torn.put(f"{checkpoints_prefix(DIGEST)}/step-000030-abcdef01-3/state.json", b"{}")
    found = record_of(about)
    assert found.lines == LINES
    assert "step-000020" in found.uri


@pytest.mark.usefixtures("keys")
def test_what_was_changed_later_is_not_shown(object_storage: ObjectStorage, tmp_path: Path) -> None:
    output = object_storage.uri("out")
    write(object_storage, output, METRICS, {"curve": []}, tmp_path)
    store = open_store(output, object_storage.credentials())
    store.put(METRICS, b'{"curve": [{"step": 1, "loss": 0}]}')
    with pytest.raises(Problem, match="is not what its manifest names"):
        record_of(job(output, artifact={"uri": f"{output}/{adapter_prefix(DIGEST)}"}))


@pytest.mark.usefixtures("keys")
def test_keys_that_are_wrong_and_a_storage_that_is_away_say_what_to_do(
    object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = job(object_storage.uri("out"), runDigest=DIGEST)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(NotAllowed, match="AWS_ACCESS_KEY_ID"):
        record_of(about)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="does not answer"):
        record_of(about)
