"""The client in a notebook, and what starting the command costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trimtab
from rich.console import Console
from trimtab import Client, Evaluation, FineTuneJob, logs
from trimtab.manifests import NAME
from trimtab_operator.api.finetunejob import NAME_LENGTH
from trimtab_operator.domain.views import CONTAINER, JOB_NAME_LABEL

from tests.unit.cli.cluster import FakeCluster, kubeconfig


def drawn(value: object) -> str:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(value)
    return captured.get()


def test_values_are_typed_and_drawn(cluster: FakeCluster, tmp_path: Path) -> None:
    with Client("team-a", kubeconfig=kubeconfig(tmp_path / "k", cluster.address)) as client:
        job, gate = client.get("demo"), client.get("demo-gate")
        assert isinstance(job, FineTuneJob)
        assert isinstance(gate, Evaluation)
        assert (job.state, job.status, job.ended, job.stopped) == ("Training", "Unknown", False, False)
        assert (job.attempts[1].reason, job.attempts[1].end_step) == ("NodeLost", 50)
        assert job.progress["percent"] == 50
        assert (gate.passed, gate.ended) == (False, True)
        assert client.curve("demo").validation_loss == ((50, 1.7), (100, 1.4))
        assert "Training" in drawn(client.list())
        assert "⠒" in drawn(client.curve("demo"))
        assert "What" in drawn(client.describe("demo"))
        assert "do not differ" in drawn(client.compare("demo", "broken"))
        assert "<pre" in client.list()._repr_html_()
        assert {job, gate, job} == {job, gate}, "values can be kept in sets"


def test_everything_that_is_offered_is_there() -> None:
    for name in trimtab.__all__:
        assert getattr(trimtab, name).__name__ == name


def test_what_is_written_twice_is_the_same() -> None:
    """The command knows nothing of the operator, and a few of its words."""
    assert logs.CONTAINER == CONTAINER
    assert logs.JOB_NAME_LABEL == JOB_NAME_LABEL
    assert NAME.fullmatch("a" * NAME_LENGTH)
    assert not NAME.fullmatch("a" * (NAME_LENGTH + 1))


SLOW = ("kubernetes", "pydantic", "yaml", "urllib3", "requests", "rich", "torch", "trimtab_operator")


def test_the_command_imports_nothing_slow_before_a_verb_needs_it() -> None:
    program = f"import sys, trimtab.command; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_verb_needs_none_of_the_operator_and_no_training_library() -> None:
    foreign = ("torch", "trimtab_operator", "trimtab_trainer", "kopf", "aiohttp")
    program = f"import sys, trimtab.client, trimtab.rendering; print([n for n in {foreign} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
