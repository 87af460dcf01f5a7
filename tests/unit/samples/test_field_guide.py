"""Rows made of an API server's documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.samples import convert_base_model, field_guide
from deploy.samples.field_guide import as_jsonl, main, overlap, rows_of

Body = dict[str, Any]


def kind(name: str, group: str, version: str, properties: Body) -> Body:
    return {
        "properties": {"apiVersion": {"description": "a"}, "kind": {"description": "b"}, "metadata": {}, **properties},
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": name}],
    }


DOCUMENT: Body = {
    "definitions": {
        "batch.v1.Job": kind("Job", "batch", "v1", {"spec": {"$ref": "#/definitions/batch.v1.JobSpec"}}),
        "batch.v1.JobSpec": {
            "properties": {
                "backoffLimit": {"description": "How often a Job\n  is tried again."},
                "template": {"description": "The pods.", "$ref": "#/definitions/core.v1.PodSpec"},
            }
        },
        "batch.v1.JobList": kind("JobList", "batch", "v1", {"items": {"description": "A list."}}),
        "batch.v1beta1.Job": kind("Job", "batch", "v1beta1", {"spec": {"description": "The old one."}}),
        "core.v1.Pod": kind("Pod", "", "v1", {"spec": {"$ref": "#/definitions/core.v1.PodSpec"}}),
        "core.v1.PodSpec": {
            "properties": {
                "containers": {"description": "The programs.", "type": "array", "items": {"$ref": "#/definitions/C"}},
                "nodeName": {"description": "Where it runs."},
            }
        },
        "C": {"properties": {"image": {"description": "The image."}, "other": {"description": "The image."}}},
        "example.com.v1.Inner": kind(
            "Inner", "example.com", "v1", {"spec": {"properties": {"size": {"description": "How large."}}}}
        ),
    }
}


def asked(document: Body) -> dict[str, str]:
    return {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows_of(document)}


def test_every_field_is_asked_for_once_by_its_shortest_path() -> None:
    assert asked(DOCUMENT) == {
        "What is spec.backoffLimit of a Job for?": "How often a Job is tried again.",
        "What is spec.template of a Job for?": "The pods.",
        "What is spec of a Job for?": "The old one.",
        "What is spec.containers of a Pod for?": "The programs.",
        "What is spec.nodeName of a Pod for?": "Where it runs.",
        "What is spec.containers.image of a Pod for?": "The image.",
        "What is spec.containers.other of a Pod for?": "The image.",
        "What is spec.size of an Inner for?": "How large.",
    }


def test_openapi_v3_says_the_same() -> None:
    text = json.dumps(DOCUMENT["definitions"]).replace("#/definitions/", "#/components/schemas/")
    schemas = json.loads(text)
    spec = schemas["batch.v1.Job"]["properties"]["spec"]
    schemas["batch.v1.Job"]["properties"]["spec"] = {"allOf": [spec], "default": {}}
    assert asked({"components": {"schemas": schemas}}) == asked(DOCUMENT)


def test_rows_with_one_answer_are_one_group_and_know_their_api_group() -> None:
    rows = {row["messages"][0]["content"]: row for row in rows_of(DOCUMENT)}
    image = rows["What is spec.containers.image of a Pod for?"]
    assert image["group"] == rows["What is spec.containers.other of a Pod for?"]["group"]
    assert image["apiGroup"] == "core"
    assert rows["What is spec.backoffLimit of a Job for?"]["apiGroup"] == "batch"
    assert [message["role"] for message in image["messages"]] == ["user", "assistant"]


def test_holding_out_by_group_leaks_no_answer_and_row_by_row_does() -> None:
    rows = [{"group": str(number // 4)} for number in range(100)]
    assert overlap(rows, by_group=False)[1] > 0
    held_out, leaked = overlap(rows, by_group=True)
    assert (held_out >= 10, leaked) == (True, 0)


def test_the_program_prints_counts_and_writes_jsonl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(DOCUMENT))
    assert main(["--openapi", str(tmp_path / "openapi.json"), "--write", str(tmp_path / "rows.jsonl")]) == 0
    assert "8 rows, 7 distinct answers" in capsys.readouterr().out
    lines = (tmp_path / "rows.jsonl").read_text()
    assert lines == as_jsonl(rows_of(DOCUMENT))
    assert [json.loads(line)["messages"] for line in lines.splitlines()]


def test_a_document_without_kinds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text('{"definitions": {}}')
    with pytest.raises(SystemExit, match="describes no field"):
        main(["--openapi", str(tmp_path / "openapi.json")])


def test_storage_with_an_endpoint_of_its_own_is_addressed_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.storage.svc:8333")
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "us-east-1")
    for client in (field_guide.storage(), convert_base_model.storage()):
        url = client.generate_presigned_url("get_object", Params={"Bucket": "rows", "Key": "a"}, ExpiresIn=60)
        assert url.startswith("http://s3.storage.svc:8333/rows/a?")
