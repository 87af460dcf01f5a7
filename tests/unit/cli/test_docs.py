"""docs/cli.md has the command's verbs, and what it shows is what the command says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from trimtab.client import Client
from trimtab.command import app

from tests.unit.cli.cluster import LOSS, SERVED, STEPS, WAITS, FakeCluster, condition, finetunejob
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_asking import Engines, events, model

DOCUMENT = (Path(__file__).parents[3] / "docs/cli.md").read_text()
TRANSCRIPTS = re.findall(r"^```console\n\$ (.+)\n((?:.*\n)*?)^```$", DOCUMENT, re.MULTILINE)
VERBS = {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}


@pytest.fixture
def documented(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """The cluster of the document, which has a second run too; files go where the test is."""
    other = finetunejob(
        "demo-2",
        conditions=[condition("Succeeded", "True", "Completed", "the adapter is published")],
        curve={"steps": STEPS, "loss": [value * 0.9 for value in LOSS]},
    )
    other["spec"]["lora"]["rank"] = 32
    cluster.put(other)
    cluster.put({**SERVED, "spec": {**SERVED["spec"], "serving": {"selector": {"matchLabels": {"app": "vllm"}}}}})
    engines = Engines(cluster)
    engines.pod("vllm-0", [model("base-model"), model("served", owner="trimtab")])
    engines.answers = {
        "base-model": (200, events("The backoff limit of a Job ", "is a limit of its backoff.")),
        "served": (200, events("The number of times ", "that a failed Job is tried again.")),
    }
    monkeypatch.chdir(tmp_path)
    return cluster


@pytest.fixture
def waiting(documented: FakeCluster, command: str) -> FakeCluster:
    """The same with a rollout that waits, where that is what is shown."""
    if "guide" in command:
        documented.put(WAITS)
    return documented


def test_the_verbs_are_those_of_the_command() -> None:
    _, _, verbs = DOCUMENT.partition("\n## Verbs\n")
    assert set(re.findall(r"^### (\w+)$", verbs, re.MULTILINE)) == VERBS


def test_the_client_has_every_verb() -> None:
    assert all(callable(getattr(Client, verb)) for verb in VERBS - {"ui"})  # which is a process, and no question


@pytest.mark.parametrize(("command", "shown"), TRANSCRIPTS, ids=[command for command, _ in TRANSCRIPTS])
def test_what_is_shown_is_what_it_says(
    command: str, shown: str, documented: FakeCluster, waiting: FakeCluster, run: Run
) -> None:
    """Lines of stdout and stderr are one stream in a terminal, so their order is not compared."""
    program, plugin, *arguments = shlex.split(command)
    assert (program, plugin) == ("kubectl", "trimtab")
    if arguments[0] in ("check", "apply"):
        documented.on_patch = lambda _, request: (200, request.body)
        new = next(told for told, _ in TRANSCRIPTS if " new " in told)
        assert run(*shlex.split(new)[2:]).code == 0
    ran = run(*arguments)
    assert sorted((ran.out + ran.err).splitlines()) == sorted(shown.splitlines())
