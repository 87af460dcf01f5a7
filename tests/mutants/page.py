"""docs/mutants.md: its table is written from the table of mutants."""

from __future__ import annotations

from collections.abc import Sequence

from .mutant import Mutant, Trap
from .tree import ROOT

PAGE = ROOT / "docs/mutants.md"
HEAD = "| Put back | Where nobody notices | In | Turns red |\n" + "| --- " * 4 + "|\n"
CODE, TESTS = "../trainer/src/trimtab_trainer", "../tests/trainer"


def written(text: str, mutants: Sequence[Mutant]) -> str:
    """Return the page's text with its table made anew: all behind the first heading of a trap."""
    before = text.partition(f"## {_title(next(iter(Trap)))}\n")[0]
    return before + "\n".join(_section(trap, [each for each in mutants if each.trap is trap]) for trap in Trap)


def _section(trap: Trap, mutants: Sequence[Mutant]) -> str:
    return f"## {_title(trap)}\n\n{HEAD}" + "".join(map(_row, mutants))


def _row(mutant: Mutant) -> str:
    file, _, test = mutant.test.partition("::")
    sentence = test.partition("[")[0].rpartition("::")[2].removeprefix("test_").replace("_", " ")
    cells = (
        mutant.name,
        mutant.wrong,
        f"[{mutant.file}]({CODE}/{mutant.file})",
        f"[{file.rpartition('/')[2]}]({TESTS}/{file}): {sentence}",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _title(trap: Trap) -> str:
    number = list(Trap).index(trap) + 1
    return f"{number}. {trap.value[0].upper()}{trap.value[1:]}"
