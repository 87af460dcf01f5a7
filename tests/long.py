"""Sweeps of one rule over many cases: some of them are part of `make test`, all others of `make test-long`.

Cases are marked `long`, which pyproject.toml leaves out unless `-m long` asks for them: no test looks at where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")
LONG = pytest.mark.long
SOME_OR_EVERY = [pytest.param(False, id="some"), pytest.param(True, id="every one", marks=LONG)]
"""Whether a test that walks a sweep by itself takes all of it."""


def long_unless(kept: Callable[[T], bool], cases: Iterable[T]) -> list[ParameterSet]:
    """Return cases as parameters, in their order; those of which `kept` does not hold are marked `long`."""
    return [pytest.param(case, marks=() if kept(case) else LONG) for case in cases]


def first_and_last(kinds: Sequence[object]) -> list[int]:
    """Return the numbers, from 1, of the first and of the last of each kind, in order."""
    numbers = range(1, len(kinds) + 1)
    first = {kind: number for number, kind in zip(reversed(numbers), reversed(kinds), strict=True)}
    last = dict(zip(kinds, numbers, strict=True))
    return sorted({*first.values(), *last.values()})
