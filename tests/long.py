"""Sweeps of one rule over many cases: some of them are part of `make test`, all others of `make test-long`.

Cases are marked `long`, which pyproject.toml leaves out unless `-m long` asks for them: no test looks at where it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

T = TypeVar("T")


def long_unless(kept: Callable[[T], bool], cases: Iterable[T]) -> list[ParameterSet]:
    """Return cases as parameters, in their order; those of which `kept` does not hold are marked `long`."""
    return [pytest.param(case, marks=() if kept(case) else pytest.mark.long) for case in cases]
