"""The analysis of canaries against its law: how often it errs where nothing is wrong, and what it sees where it is."""

from __future__ import annotations

import pytest
from trimtab_operator.domain.adapterrollout.canary.analysis import FALSE_ERRORS, FALSE_LATENCY

from tests.unit.domain.rollout.canaries import Side, rate

LAW = FALSE_ERRORS + FALSE_LATENCY
TIMES = 300
LARGEST = LAW + 4 * (LAW * (1 - LAW) / TIMES) ** 0.5
"""Four standard deviations above the law."""


def test_the_law_is_below_what_is_promised() -> None:
    assert LAW < 0.013


EQUAL = {
    "rare errors": (60, 0.005, 0.3),
    "errors that both have": (600, 0.05, 0.3),
    "many errors and long tails of times": (200, 0.2, 1.5),
}


@pytest.mark.parametrize(("requests", "errors", "spread"), EQUAL.values(), ids=EQUAL)
def test_an_equally_good_revision_is_hardly_ever_taken_back(requests: int, errors: float, spread: float) -> None:
    new, old = (Side(each, errors=errors, spread=spread) for each in (requests, 2 * requests))
    assert rate("ErrorRatio Latency", new, old, times=TIMES, seed=1) <= LARGEST


SEEN = {
    "a tenth fails, 60 requests": (Side(60, errors=0.1), 0.005, "ErrorRatio", 0.5),
    "a twentieth fails, 200 requests": (Side(200, errors=0.05), 0.005, "ErrorRatio", 0.65),
    "a twentieth fails, 600 requests": (Side(600, errors=0.05), 0.005, "ErrorRatio", 0.99),
    "all fail, 20 requests": (Side(20, errors=1.0), 0.005, "ErrorRatio", 1.0),
    "twice as slow, 60 requests": (Side(60, median=4.0), 0.0, "Latency", 0.95),
    "twice as slow with long tails, 200 requests": (Side(200, median=4.0, spread=1.0), 0.0, "Latency", 0.95),
    "nineteen in twenty hang": (Side(200, hang=0.95), 0.0, "Held", 1.0),
    "most are left by their clients": (Side(200, leave=0.75), 0.0, "Held", 1.0),
}


@pytest.mark.parametrize(("new", "errors", "word", "least"), SEEN.values(), ids=SEEN)
def test_what_is_worse_is_seen(new: Side, errors: float, word: str, least: float) -> None:
    assert rate(word, new, Side(2 * new.requests, errors=errors), times=60, seed=2) >= least


def test_what_is_worse_and_within_the_margins_is_promoted() -> None:
    errors, slow = Side(2000, errors=0.006), Side(2000, median=2.6)
    assert rate("Promoted", errors, Side(4000), times=20, seed=3) == 1.0
    assert rate("Promoted", slow, Side(4000), times=20, seed=3) == 1.0
