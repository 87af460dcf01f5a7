"""A new user's way, line by line as docs/quickstart.md has it, with nothing but `kubectl trimtab`.

The API server is real, and the proxy to the serving pod and the guard in it are; what an operator would write into the
statuses is played, and so is the engine behind the guard. `tests/engine` goes the same way with real training and vLLM.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.component.api_server import ApiServer
from tests.component.cli.test_verbs import COMPLETED, DIGEST, GROUP, TRAINING, Objects, condition
from tests.component.serving_pod import make_pod, serving
from tests.quickstart import Newcomer
from tests.serving.fake_engine import BASE, FakeEngine

pytestmark = pytest.mark.cluster

CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-shows",
    "AWS_ENDPOINT_URL": "https://s3.example.com",
}
REVISION = "guide@55555555"


def test_from_the_quickstart_to_an_answer(server: ApiServer, kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    objects = Objects(server, namespace)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    run = Newcomer(kubeconfig, namespace, tmp_path, KEYS).types

    assert run("keys") == f"secret/object-storage created ({', '.join(KEYS)})\n"
    stored = server.get(f"/api/v1/namespaces/{namespace}/secrets/object-storage").body["data"]
    assert set(stored) == set(KEYS)

    run("new")
    assert run("check") == ""
    assert "ACCELERATOR" in run("estimate")
    assert run("apply").splitlines() == [
        "finetunejob/guide created",
        "evaluation/guide created",
        "adapterrollout/guide created",
    ]
    assert run("apply").splitlines()[0] == "finetunejob/guide unchanged"

    objects.status("finetunejobs", "guide", TRAINING)
    assert re.search(r"^finetunejob/guide +Training +50%", run("list"), re.MULTILINE)
    assert "Training means" in run("describe")

    objects.status("finetunejobs", "guide", COMPLETED)
    passed: dict[str, Any] = {
        "conditions": [
            condition("Succeeded", "True", "Completed", "all tasks were asked"),
            condition("Passed", "True", "Passed", "every threshold is kept"),
        ]
    }
    objects.status("evaluations", "guide", passed)
    ready = {"conditions": [condition("Ready", "True", "Serving", "every pod answers with it")]}
    objects.status("adapterrollouts", "guide", ready)
    engine = FakeEngine()
    engine.loaded[REVISION], engine.markers[REVISION] = str(tmp_path), "ADAPTED"
    with serving(server, tmp_path, engine, {"guide": REVISION}) as (address, port):
        make_pod(server, namespace, address, port)
        told = run("list")
        assert re.search(r"^evaluation/guide +Completed +True", told, re.MULTILINE)
        assert re.search(r"^adapterrollout/guide +Serving +True", told, re.MULTILINE)
        assert run("ask") == f"== {BASE}\nbase\n\n== guide ({REVISION})\nADAPTED\n"
    assert DIGEST in json.dumps(server.get(f"{GROUP}/namespaces/{namespace}/finetunejobs/guide").body)
