"""`python -m tests.mutants`: put every fault back, one at a time, and expect red. `--write` writes docs/mutants.md."""

from __future__ import annotations

import argparse
import json
import sys
import time

from .page import PAGE, written
from .running import Pytest, Verdict, red_without_a_fault, try_mutant
from .table import MUTANTS


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every mutant is caught, 1 if one survives, 2 if a test is red without any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="WORDS", default="", help="those whose name has these words")
    parser.add_argument("--write", action="store_true", help="write the table of docs/mutants.md, run nothing")
    options = parser.parse_args(arguments)
    if options.write:
        PAGE.write_text(written(PAGE.read_text(), MUTANTS))
        return 0
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    started, verdicts = time.monotonic(), list[Verdict]()
    with Pytest() as pytest:
        red = red_without_a_fault(pytest, chosen)
        for node, why in red.items():
            print(f"red without any fault: {node}: {why}")
        if red:
            return 2
        print(f"{len({mutant.node for mutant in chosen})} tests pass without a fault", flush=True)
        for mutant in chosen:
            verdicts.append(verdict := try_mutant(pytest, mutant))
            print(line(verdict), flush=True)
    survivors = [verdict.mutant.name for verdict in verdicts if not verdict.caught]
    seconds = round(time.monotonic() - started, 1)
    figures = {"mutants": len(verdicts), "caught": len(verdicts) - len(survivors), "survivors": survivors}
    print(json.dumps({**figures, "seconds": seconds}))
    return 1 if survivors else 0


def line(verdict: Verdict) -> str:
    """Return the row of a mutant: whether it was caught, its name, the test, and what the test said."""
    mutant = verdict.mutant
    caught, test = "caught" if verdict.caught else "NOT   ", mutant.test.partition("::")[2]
    return f"{caught}  {mutant.name:<66}  {test}  ({verdict.words})"


if __name__ == "__main__":
    sys.exit(main())
