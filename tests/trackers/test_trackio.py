"""The `track` stage against a real Trackio server: `make test-trackers`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from trimtab_trainer.__main__ import main

from tests.trackers.conftest import WRITE_TOKEN
from tests.trainer.tracking_records import METRICS, publish, record


def asked(uri: str, name: str, **arguments: Any) -> Any:
    """Return the server's answer, as its own pages get it."""
    request = urllib.request.Request(
        f"{uri}/api/{name}",
        data=json.dumps({"kwargs": arguments}).encode(),
        headers={"Content-Type": "application/json"},
    )
    return json.load(urllib.request.urlopen(request))["data"]


def document(uri: str, output: Path, project: str, token: str = WRITE_TOKEN, **more: Any) -> dict[str, Any]:
    keys = output / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / "TRACKIO_WRITE_TOKEN").write_text(token)
    found = {**record(uri, output, **more)}
    del found["mlflow"]
    return {**found, "trackio": {"uri": uri, "project": project, "credentials": {"directory": str(keys)}}}


def told(folder: Path, about: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Run the stage as its pod does; return its exit code and its last words."""
    (folder / "run.json").write_text(json.dumps(about))
    words = folder / "words.json"
    code = main(["track", "--config", str(folder / "run.json"), "--termination-log", str(words)])
    return code, json.loads(words.read_text())


def values(uri: str, project: str, run: str, metric: str) -> list[tuple[int, float]]:
    found = asked(uri, "get_metric_values", project=project, run=run, metric_name=metric)
    return sorted((each["step"], each["value"]) for each in found)


def test_a_run_is_told_while_it_goes_on_and_whole_at_its_end_and_twice_is_once(trackio: str, tmp_path: Path) -> None:
    adapter = publish(tmp_path / "output", METRICS)
    for step, loss in ((500, 1.8), (1000, 1.5)):
        live = document(
            trackio, tmp_path, "support", step=step, succeeded=False, reason="Training", figures={"trainingLoss": loss}
        )
        assert told(tmp_path, live)[0] == 0
    assert values(trackio, "support", "team/demo", "live/trainingLoss") == [(500, 1.8), (1000, 1.5)]
    assert values(trackio, "support", "team/demo", "training/loss") == []
    ended = document(trackio, tmp_path / "output", "support", adapter=adapter)
    for _ in range(2):
        code, last = told(tmp_path, ended)
        assert code == 0, last
    assert f"{trackio}/?project=support" in last["message"]
    (run,) = asked(trackio, "get_runs_for_project", project="support")
    assert run["name"] == "team/demo"
    assert len(values(trackio, "support", "team/demo", "training/loss")) == 1500
    assert values(trackio, "support", "team/demo", "validation/loss") == [(750, 1.5), (1500, 1.3)]
    assert values(trackio, "support", "team/demo", "succeeded") == [(1500, 1.0)]
    (config,) = asked(trackio, "get_run_configs", project="support").values()
    assert config["lora.rank"] == "16"
    assert config["trimtab.reason"] == "Completed"


def test_a_wrong_token_is_told_from_a_wrong_address(trackio: str, tmp_path: Path) -> None:
    code, last = told(tmp_path, document(trackio, tmp_path, "denied", token="wrong"))
    assert (code, last["reason"]) == (10, "AccessDenied")
    assert "TRACKIO_WRITE_TOKEN" in last["message"]
    assert "denied" not in asked(trackio, "get_all_projects")
    code, last = told(tmp_path, document(f"{trackio}/elsewhere", tmp_path, "denied"))
    assert code == 10
    assert "elsewhere" in last["message"]
