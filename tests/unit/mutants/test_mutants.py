"""The table of mutants is true of the code as it is, and a mutant is caught by a failure of its test alone.

Whether each mutant is caught is what `make test-mutants` shows, in minutes.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants import running, tree
from tests.mutants.mutant import Mutant, Stale, Trap
from tests.mutants.page import PAGE, written
from tests.mutants.running import Ending, Pytest, Ran, judge, red_without_a_fault, try_mutant
from tests.mutants.table import MUTANTS

MUTANT = Mutant(
    "one more", Trap.SEAM, "a sum is wrong", "adding.py", "left + right", "left + right + 1", "test_adding.py::test_sum"
)


def named_in(file: Path) -> set[str]:
    """Return the tests of a file, as pytest names them but for parameters."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_replaced_is_there_once_and_what_comes_of_it_is_python(mutant: Mutant) -> None:
    text = (tree.ROOT / mutant.source).read_text()
    faulty = mutant.put_back(text)
    assert faulty != text
    ast.parse(faulty)
    assert mutant.node.partition("::")[2].partition("[")[0] in named_in(tree.ROOT / mutant.test_file)


def test_every_trap_has_its_mutants_and_every_mutant_its_name() -> None:
    assert {mutant.trap for mutant in MUTANTS} == set(Trap)
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


def test_the_page_says_what_is_in_the_table() -> None:
    assert written(PAGE.read_text(), MUTANTS) == PAGE.read_text(), "run python -m tests.mutants --write"


@pytest.mark.parametrize("text", ["return left - right", "left + right, left + right"])
def test_an_entry_that_the_code_has_left_behind_fails(text: str) -> None:
    with pytest.raises(Stale, match=r"one more: trainer/src/trimtab_trainer/adding\.py .* write the entry anew"):
        MUTANT.put_back(text)


JUDGED: dict[str, tuple[dict[str, Ending], str]] = {
    "an assertion": ({"": Ending("call", "failed", ("AssertionError", "Exception"), "assert 4 == 3")}, ""),
    "an exception of the code": ({"": Ending("call", "failed", ("ValueError", "Exception"), "no")}, ""),
    "one of its parameters": ({"[1]": Ending("call", "passed"), "[2]": Ending("call", "failed", ("Failed",))}, ""),
    "nothing": ({"": Ending("call", "passed")}, "the test passed"),
    "a test that is skipped": ({"": Ending("setup", "skipped", ("Skipped",))}, "the test skipped"),
    "a fixture": ({"": Ending("setup", "failed", ("ValueError",), "no")}, "only the setup of the test failed: no"),
    "a name that is not there": ({"": Ending("call", "failed", ("NameError",), "x")}, "the copy does not run: x"),
    "a module that is not there": (
        {"": Ending("call", "failed", ("ModuleNotFoundError", "ImportError"), "x")}, "the copy does not run: x",
    ),
    "a file that cannot be collected": ({}, "the test was not run: 1 error during collection"),
    "another test": ({"_of_three": Ending("call", "failed", ("AssertionError",))}, "the test was not run"),
}  # fmt: skip


@pytest.mark.parametrize("case", JUDGED)
def test_a_mutant_is_caught_by(case: str) -> None:
    endings, trouble = JUDGED[case]
    ran = Ran({MUTANT.node + name: each for name, each in endings.items()}, "1 error during collection")
    found = judge(MUTANT, ran)
    assert found.caught == (not trouble)
    assert found.words.startswith(trouble)


@pytest.fixture(scope="module")
def runs() -> Iterator[Pytest]:
    with Pytest(libraries=()) as started:
        yield started


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with one module and one test, instead of this one."""
    files = {
        "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n',
        "trainer/src/trimtab_trainer/__init__.py": "",
        "trainer/src/trimtab_trainer/adding.py": "def add(left, right):\n    return left + right\n",
        "tests/mutants/judge.py": (tree.ROOT / "tests/mutants/judge.py").read_text(),
        "tests/trainer/test_adding.py": (
            "from trimtab_trainer.adding import add\n\n\ndef test_sum():\n    assert add(1, 2) == 3\n\n\n"
            "def test_kind():\n    assert isinstance(add(1, 2), int)\n"
        ),
    }
    for name, text in files.items():
        file = tmp_path / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(tree, "ROOT", tmp_path / "tree")
    monkeypatch.setattr(tree, "_names", lambda: list(files))
    return tmp_path / "tree"


def test_a_fault_is_put_back_in_a_copy_and_its_test_turns_red(runs: Pytest, small: Path) -> None:
    assert red_without_a_fault(runs, [MUTANT]) == {}
    caught = try_mutant(runs, MUTANT)
    assert (caught.caught, caught.words) == (True, "assert 4 == 3")
    assert "left + right\n" in (small / MUTANT.source).read_text(), "the tree itself is left alone"


def test_a_fault_that_its_test_does_not_notice_survives(runs: Pytest, small: Path) -> None:
    blind = Mutant(**{**vars(MUTANT), "test": "test_adding.py::test_kind"})
    assert (try_mutant(runs, blind).caught, try_mutant(runs, blind).words) == (False, "the test passed")


def test_a_test_that_is_red_without_a_fault_shows_nothing(runs: Pytest, small: Path) -> None:
    (small / MUTANT.source).write_text("def add(left, right):\n    return left + right + 1\n")
    assert red_without_a_fault(runs, [MUTANT]) == {MUTANT.node: "failed in call: assert 4 == 3"}
    absent = Mutant(**{**vars(MUTANT), "test": "test_adding.py::test_that_is_gone"})
    assert "not found" in red_without_a_fault(runs, [absent])[absent.node]


def test_a_copy_that_is_not_the_one_that_is_imported_is_not_judged(
    runs: Pytest, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "trainer/src/trimtab_trainer/__init__.py").unlink()
    (small / MUTANT.source).unlink()
    monkeypatch.setattr(tree, "_names", lambda: ["pyproject.toml", "tests/mutants/judge.py", MUTANT.test_file])
    assert "is not in the copy" in red_without_a_fault(runs, [MUTANT])[MUTANT.node]


def test_a_test_that_hangs_is_ended_and_not_taken_for_red(
    runs: Pytest, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SECONDS", 3)
    hangs = Mutant(**{**vars(MUTANT), "new": "__import__('time').sleep(60)"})
    found = try_mutant(runs, hangs)
    assert (found.caught, found.words) == (False, "the test was not run: ended after 3 s")
