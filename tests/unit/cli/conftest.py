"""A cluster in a dictionary, and the command run against it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from trimtab.__main__ import main

from tests.unit.cli.cluster import EVALUATED, FAILED, SERVED, TRAINING, FakeCluster, kubeconfig, serve


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster without objects, which KUBECONFIG names."""
    cluster = FakeCluster()
    server = serve(cluster)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", cluster.address)))
    yield cluster
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(empty: FakeCluster) -> FakeCluster:
    """The same with a run, a failed one, a verdict and a rollout."""
    for body in (TRAINING, FAILED, EVALUATED, SERVED):
        empty.put(body)
    return empty


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def ran(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kubectl-trimtab", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return ran
