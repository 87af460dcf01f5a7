"""Runs tests in a copy of the tree, and judges whether one of them turned red for the right reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .judge import ENDINGS
from .mutant import Mutant
from .tree import ROOT, copy_tree

SECONDS = 300
"""For the tests of one mutant; they take seconds."""
CLEAN_SECONDS = 1800
BROKEN = {"ImportError", "SyntaxError", "NameError"}
"""Errors of a copy that does not run at all: they say nothing of the test."""
LIBRARIES = ("boto3", "pyarrow", "torch", "transformers.models.llama.modeling_llama", "peft", "bitsandbytes")
"""What most of the trainer's tests import."""
WORDS = 160
"""Most characters that are told of a failure."""
OUTPUT = 800
"""Most characters that are told of what pytest printed last."""


@dataclass(frozen=True)
class Ending:
    """How a test ended.

    Attributes:
        phase: setup, call or teardown.
        outcome: passed, failed or skipped.
        kinds: the error's class and its bases, by name.
        words: the first line of what it says.
    """

    phase: str
    outcome: str
    kinds: tuple[str, ...] = ()
    words: str = ""

    @classmethod
    def of(cls, value: list[Any]) -> Ending:
        """Return the ending that `judge.py` wrote."""
        phase, outcome, kinds, words = value
        return cls(phase, outcome, tuple(kinds), words)


@dataclass(frozen=True)
class Ran:
    """What came of a process of pytest; `output` is the end of what it printed."""

    endings: dict[str, Ending]
    output: str

    def of(self, node: str) -> list[Ending]:
        """Return how a test ended: once, or once for each of its parameters."""
        return [ending for name, ending in self.endings.items() if name == node or name.startswith(f"{node}[")]


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant was caught, and by what; or why not."""

    mutant: Mutant
    caught: bool
    words: str


def judge(mutant: Mutant, ran: Ran) -> Verdict:
    """Tell whether the test of a mutant turned red for the fault: in the test itself, by a failure of its own."""
    verdicts = [Verdict(mutant, *_judged(ending)) for ending in ran.of(mutant.node)]
    caught = next((verdict for verdict in verdicts if verdict.caught), None)
    return caught or next(iter(verdicts), Verdict(mutant, False, f"the test was not run: {ran.output}"))


def _judged(ending: Ending) -> tuple[bool, str]:
    words = ending.words[:WORDS]
    if ending.outcome != "failed":
        return False, f"the test {ending.outcome}"
    if ending.phase != "call":
        return False, f"only the {ending.phase} of the test failed: {words}"
    if BROKEN & set(ending.kinds):
        return False, f"the copy does not run: {words}"
    return True, words


class Pytest:
    """Runs tests in copies of the tree, one after the other; a context, which ends its process."""

    def __init__(self, libraries: Sequence[str] = LIBRARIES) -> None:
        command = [sys.executable, "-m", "tests.mutants.preloaded", *libraries]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, root: Path, nodes: Sequence[str], seconds: float) -> Ran:
        """Run tests of a copy by their names; what takes longer is ended with all that it started."""
        endings, output = root.parent / f"{root.name}.json", root.parent / f"{root.name}.txt"
        paths = os.pathsep.join([str(root / "trainer/src"), str(root)])
        request = {
            "root": str(root),
            "arguments": ["-q", "-p", "no:cacheprovider", "-p", "tests.mutants.judge", *nodes],
            "environment": {ENDINGS: str(endings), "PYTHONPATH": paths},
            "output": str(output),
            "seconds": seconds,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        in_time = json.loads(self._process.stdout.readline())
        written = json.loads(endings.read_text()) if endings.exists() else {}
        told = output.read_text()[-OUTPUT:] if in_time else f"ended after {seconds} s"
        return Ran({node: Ending.of(value) for node, value in written.items()}, told)


def red_without_a_fault(pytest: Pytest, mutants: Sequence[Mutant]) -> dict[str, str]:
    """Return the tests of these mutants that do not pass in a clean copy, and why; all in one run."""
    nodes = sorted({mutant.node for mutant in mutants})
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        ran = pytest.run(copy_tree(Path(folder) / "clean"), nodes, CLEAN_SECONDS)
    red = {node: f"not run: {ran.output}" for node in nodes if not ran.of(node)}
    for node, ending in ran.endings.items():
        if ending.outcome != "passed":
            red[node] = f"{ending.outcome} in {ending.phase}: {ending.words}"
    return red


def try_mutant(pytest: Pytest, mutant: Mutant) -> Verdict:
    """Put a fault back in a fresh copy and run its test there.

    The copy is fresh because bytecode is told from its source by size and second of change.

    Raises:
        Stale
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = copy_tree(Path(folder) / "faulty")
        mutant.apply(root)
        return judge(mutant, pytest.run(root, [mutant.node], SECONDS))
