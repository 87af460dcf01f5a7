"""The `track` stage against a real MLflow: `make test-trackers`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from trimtab_trainer.__main__ import main

from tests.trainer.tracking_records import METRICS, publish, record


def asked(uri: str, path: str, **body: Any) -> dict[str, Any]:
    """Return MLflow's answer, as another client gets it."""
    request = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    answer: dict[str, Any] = json.load(urllib.request.urlopen(request))
    return answer


def history(uri: str, run: str, key: str) -> list[tuple[int, float]]:
    url = f"{uri}/api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key={key}"
    found = json.load(urllib.request.urlopen(url)).get("metrics", [])
    return [(int(each["step"]), float(each["value"])) for each in found]


def runs(uri: str, experiment: str) -> list[dict[str, Any]]:
    url = f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name={experiment}"
    found = json.load(urllib.request.urlopen(url))["experiment"]["experiment_id"]
    answer: list[dict[str, Any]] = asked(uri, "runs/search", experiment_ids=[found])["runs"]
    return answer


def told(tmp_path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Run the stage as its pod does; return its last words."""
    (tmp_path / "run.json").write_text(json.dumps(document))
    words = tmp_path / "words.json"
    code = main(["track", "--config", str(tmp_path / "run.json"), "--termination-log", str(words)])
    last: dict[str, Any] = json.loads(words.read_text())
    assert code == 0, last
    return last


def test_a_run_is_told_with_all_its_points_and_twice_is_once(mlflow: str, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "output", METRICS)
    document = record(mlflow, tmp_path / "output", experiment="support", adapter=adapter)
    first = told(tmp_path, document)
    assert "/#/experiments/" in first["message"]
    (before,) = runs(mlflow, "support")
    told(tmp_path, document)
    (run,) = runs(mlflow, "support")
    assert run["data"] == before["data"]
    identity = run["info"]["run_id"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "team/demo"
    parameters = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert parameters["training.learningRate"] == "0.0002"
    assert parameters["lora.rank"] == "16"
    assert parameters["baseModel"] == "s3://models/base"
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert tags["trimtab.uid"] == document["run"]["uid"]
    assert tags["trimtab.adapter"] == adapter
    last = {each["key"]: each["value"] for each in run["data"]["metrics"]}
    assert last["testLoss"] == 1.25
    assert last["cost.acceleratorSeconds"] == 60.5
    assert len(history(mlflow, identity, "training/loss")) == 1500
    assert history(mlflow, identity, "validation/loss") == [(750, 1.5), (1500, 1.3)]


def test_a_run_that_failed_is_told_from_its_status(mlflow: str, tmp_path: Path) -> None:
    curve = {"steps": [1, 2], "loss": [2.0, 1.9]}
    document = record(mlflow, tmp_path, experiment="failed", succeeded=False, reason="OutOfMemory", curve=curve)
    told(tmp_path, document)
    (run,) = runs(mlflow, "failed")
    assert run["info"]["status"] == "FAILED"
    assert {"key": "trimtab.reason", "value": "OutOfMemory"} in run["data"]["tags"]
    assert history(mlflow, run["info"]["run_id"], "training/loss") == [(1, 2.0), (2, 1.9)]


def test_two_runs_of_one_experiment_are_two(mlflow: str, tmp_path: Path) -> None:
    for number in (1, 2):
        uid = f"00000000-0000-0000-0000-00000000000{number}"
        told(tmp_path, record(mlflow, tmp_path, experiment="two", uid=uid))
    assert len(runs(mlflow, "two")) == 2


def test_a_run_that_goes_on_is_running_until_it_has_ended(mlflow: str, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "output", METRICS)
    for step, loss in ((500, 1.8), (1000, 1.5), (1000, 1.5)):
        more: dict[str, Any] = {
            "step": step,
            "succeeded": False,
            "reason": "Training",
            "figures": {"trainingLoss": loss},
        }
        told(tmp_path, record(mlflow, tmp_path, experiment="live", **more))
    (run,) = runs(mlflow, "live")
    identity = run["info"]["run_id"]
    assert run["info"]["status"] == "RUNNING"
    assert history(mlflow, identity, "live/trainingLoss") == [(500, 1.8), (1000, 1.5)]
    assert history(mlflow, identity, "training/loss") == []
    told(tmp_path, record(mlflow, tmp_path / "output", experiment="live", adapter=adapter))
    (run,) = runs(mlflow, "live")
    assert (run["info"]["run_id"], run["info"]["status"]) == (identity, "FINISHED")
    assert {"key": "trimtab.reason", "value": "Completed"} in run["data"]["tags"]
    assert len(history(mlflow, identity, "training/loss")) == 1500
