"""An installation of Trimtab on a real node, with a tiny base model and small data in its object storage.

One per session, shared with `make demo`: the same cluster number, chart and storage, with shorter patience.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from mypy_boto3_s3 import S3Client

from deploy.demo.api import Body
from deploy.demo.installation import Installation, open_installation
from tests.e2e.scenes import LOCAL_ONLY, SCENES, SIDE_BY_SIDE, Played
from tests.e2e.tenants import Tenant, new_tenant
from tests.trainer.tiny import make_tiny_model

SETTINGS = (
    "settings.podStartSeconds=25",
    "settings.nodeLossSeconds=5",
    "settings.retrySeconds=2",
    "settings.progressSeconds=1",
    "settings.auditSeconds=5",
    "work.scratchSize=96Mi",
    "networkPolicy.enabled=true",
)
"""Patience for tests; scratch space is small so that it can be exceeded; the operator reaches what it must, no more."""

DATASET = "s3://datasets/tiny/rows.jsonl"

HARNESS_TASK = {
    "task": "parity",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": ["even", "odd"],
    "doc_to_target": "{{completion}}",
    "metric_list": [{"metric": "acc"}],
}
"""JSON is YAML. Its rows are those of the task that asks the same without the harness."""


@contextmanager
def installed(*, engine: bool, settings: Sequence[str] = SETTINGS) -> Iterator[Installation]:
    """Install everything; a cluster that was not running before is taken down again. `settings` are the chart's."""
    if os.geteuid() != 0 and not os.environ.get("KUBECONFIG"):
        pytest.skip("needs root for a node of its own, or KUBECONFIG for another cluster")
    from trimtab_local import Cluster

    was_up = bool(os.environ.get("KUBECONFIG")) or Cluster(1).mode() is not None
    here = open_installation(engine=engine)
    try:
        here.install_storage()
        here.install_chart(*settings)
        yield here
    finally:
        if here.cluster is not None and not was_up:
            here.cluster.down()


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """The installation, with what the tests read in its storage."""
    with installed(engine=False) as here:
        with here.storage() as client:
            upload(client)
        yield here


def upload(client: S3Client) -> None:
    """Put the tiny base model, a damaged one, and data good and bad into the storage."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "tiny")
        for file in sorted(model.iterdir()):
            content = file.read_bytes()
            client.put_object(Bucket="models", Key=f"tiny/{file.name}", Body=content)
            if file.suffix == ".safetensors":
                content = content[: len(content) // 2]
            client.put_object(Bucket="models", Key=f"truncated/{file.name}", Body=content)
    good = "\n".join(json.dumps(row(number)) for number in range(400)) + "\n"
    bad = {
        "tiny/rows.jsonl": good,
        "malformed/rows.jsonl": good + '{"messages": [\n',
        "empty/rows.jsonl": "",
        "questions/rows.jsonl": json.dumps({"messages": [{"role": "user", "content": "and?"}]}) + "\n",
        "unknown/rows.jsonl": json.dumps({"question": "a", "reply": "b"}) + "\n",
        "harness/task.yaml": json.dumps(HARNESS_TASK),
        "harness/rows.jsonl": "".join(json.dumps(parity(number)) + "\n" for number in range(30, 90)),
        "parity/rows.jsonl": "".join(json.dumps(parity(number)) + "\n" for number in range(120)),
        "strange/rows.jsonl": "".join(json.dumps(parity(number, "perhaps")) + "\n" for number in range(3)),
    }
    for key, text in bad.items():
        client.put_object(Bucket="datasets", Key=key, Body=text.encode())
    wide = "\n".join(json.dumps(row(number, "lorem ipsum " * 400)) for number in range(40_000))
    client.put_object(Bucket="datasets", Key="large/rows.jsonl", Body=wide.encode())


def row(number: int, padding: str = "") -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": f"What is the square of {number}? {padding}"},
            {"role": "assistant", "content": f"It is {number * number}."},
        ]
    }


def parity(number: int, answer: str = "") -> dict[str, object]:
    """Return a question with one of two answers, and a column to group by."""
    return {
        "prompt": f"Is {number} even or odd? ",
        "completion": answer or ("odd" if number % 2 else "even"),
        "size": "large" if number >= 60 else "small",
    }


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of what the scenes came to last: until then the scenes are played beside the others."""
    items.sort(key=_asks_for_scenes)


def _asks_for_scenes(item: pytest.Item) -> bool:
    return "played" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Begin the scenes with the first test when any test asks for them."""
    if any(_asks_for_scenes(item) for item in request.session.items):
        request.getfixturevalue("played")


@pytest.fixture(scope="session")
def played(installation: Installation) -> Iterator[Played]:
    """Every scene, under way or over."""
    tenants: list[Tenant] = []

    def play(name: str) -> tuple[Tenant, Body]:
        tenant = new_tenant(installation)
        tenants.append(tenant)
        return tenant, SCENES[name](tenant)

    names = [name for name in SCENES if name not in LOCAL_ONLY or installation.cluster is not None]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {name: pool.submit(play, name) for name in names}
    for tenant in tenants:
        tenant.remove()


@pytest.fixture
def tenant(installation: Installation) -> Iterator[Tenant]:
    """A fresh namespace that enforces restricted Pod Security, with its Secret."""
    made = new_tenant(installation)
    yield made
    made.remove()
