"""Writing the objects of a file, all or none, and the keys of the object storage without showing one."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.cluster import FakeCluster, Request
from tests.unit.cli.conftest import Run

FLAGS = ("--base-model", "s3://models/base", "--data", "s3://rows/", "--output", "s3://out/demo")
SECRET = "/api/v1/namespaces/team-a/secrets/object-storage"


@pytest.fixture
def written(empty: FakeCluster) -> FakeCluster:
    """A cluster that stores what is applied."""

    def store(known: dict[str, Any], request: Request) -> tuple[int, dict[str, Any]]:
        if request.query.get("dryRun") != "All":
            empty.objects[request.path] = {**known, **request.body}
        return 200, request.body

    empty.on_patch = store
    return empty


def test_a_file_is_written_once_and_then_it_is_there(written: FakeCluster, run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "demo.yaml")
    run("new", "demo", *FLAGS, "-f", file)
    assert run("apply", file, "--dry-run").out.splitlines()[0].startswith("finetunejob/demo created (dry run")
    assert written.objects == {}
    assert run("apply", file).out == "finetunejob/demo created\nevaluation/demo created\n"
    assert run("apply", file).out == "finetunejob/demo unchanged\nevaluation/demo unchanged\n"
    forced = [each for each in written.asked if each.method == "PATCH" and each.query.get("dryRun") != "All"]
    assert forced
    assert all("force" not in each.query for each in forced), "what others own stays theirs"


def test_of_a_file_with_a_fault_nothing_is_written(written: FakeCluster, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "demo.yaml"
    run("new", "demo", *FLAGS, "-f", str(file))
    file.write_text(file.read_text().replace("kind: Evaluation", "kind: Evaluations"))
    told = run("apply", str(file))
    assert told.code == 1
    assert "so nothing was written" in told.err
    assert written.objects == {}


def test_keys_are_written_and_not_shown(written: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    assert run("keys").err.startswith("error: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set: put the keys")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "shown-nowhere")
    assert run("keys").err.startswith("error: AWS_ACCESS_KEY_ID is not set: put the keys")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    told = run("keys")
    assert "shown-nowhere" not in told.out + told.err
    assert told.out.startswith("secret/object-storage created (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    assert base64.b64decode(written.objects[SECRET]["data"]["AWS_SECRET_ACCESS_KEY"]) == b"shown-nowhere"
    assert run("keys", "object-storage").out.startswith("secret/object-storage unchanged")


def test_what_others_keep_is_left_to_them(empty: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    message = 'Apply failed with 1 conflict: conflict with "kubectl-create": .data.AWS_ACCESS_KEY_ID'
    empty.on_patch = lambda _, request: (409, {"kind": "Status", "message": message})
    assert run("keys").err == f"error: {message}: who wrote these fields keeps them: change them there\n"
