"""What follows: verbs, kinds, options and names of objects, for the shells and for kubectl."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trimtab.completion import completed

from tests.unit.cli.cluster import FakeCluster
from tests.unit.cli.conftest import Run

BIN = Path(sys.executable).parent
WAYS: dict[str, Callable[[list[str]], dict[str, str]]] = {
    "bash": lambda words: {"COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)},
    "zsh": lambda words: {"_TYPER_COMPLETE_ARGS": " ".join(words)},
    "fish": lambda words: {"_TYPER_COMPLETE_ARGS": " ".join(words), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    "powershell": lambda words: {
        "_TYPER_COMPLETE_ARGS": " ".join(words),
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
    },
}
"""What the script of each shell puts into the environment, for the words of a line."""


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["des"], ["describe"]),
        (["list", "fine"], ["finetunejob", "finetunesweep"]),
        (["list", "--all"], ["--all-namespaces"]),
        (["describe", "dem"], ["demo", "demo-gate"]),
        (["describe", ""], ["broken", "demo", "demo-gate", "served"]),
        (["compare", "demo", "br"], ["broken"]),
    ],
    ids=shlex.join,
)
def test_kubectl_reads_a_line_for_each_way_to_go_on(words: list[str], wanted: list[str]) -> None:
    *found, directive = completed(words).splitlines()
    assert (sorted(found), directive) == (wanted, ":4")


def test_where_nothing_is_known_files_may_follow(cluster: FakeCluster) -> None:
    assert completed(["check", "man"]) == ":0\n"
    cluster.refuse("/apis/trimtab.dev/v1alpha1/namespaces/team-a/finetunejobs", 500, "broken")
    assert completed(["describe", "dem"]) == ":0\n", "a cluster that fails is no output in the middle of a line"


@pytest.mark.usefixtures("cluster")
def test_the_plugin_completes_itself(run: Run) -> None:
    assert run("__complete", "susp").out == "suspend\n:4\n"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("shell", WAYS)
def test_every_shell_is_told(shell: str) -> None:
    told = WAYS[shell](["trimtab", "describe", "demo-"])
    environment = {**os.environ, **told, "_TRIMTAB_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [str(BIN / "trimtab")], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert "demo-gate" in done.stdout
    assert "broken" not in done.stdout


@pytest.mark.usefixtures("cluster")
def test_bash_completes_by_the_script_that_it_is_given() -> None:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    script = (
        'eval "$(trimtab --show-completion bash)"\n'
        "COMP_WORDS=(trimtab describe demo-) COMP_CWORD=2\n"
        "_trimtab_completion trimtab demo- describe\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "demo-gate\n"


def test_completion_of_the_plugin_is_kubectls_own(run: Run) -> None:
    """A script for a command of two words would complete nothing."""
    told = run("--install-completion")
    assert told.code == 1
    assert "kubectl_complete-trimtab" in told.err
