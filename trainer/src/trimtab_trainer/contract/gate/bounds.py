"""Each bound of each threshold, held against what is known about it: kept, missed, undecided, or nothing known.

A bound without `confidence` compares the estimate with the limit. A bound with it is a test: it is kept only if values
beyond the limit are excluded, at alpha = 1 - confidence. Passing claims that all bounds are kept, so each test is at
its own alpha: if one of them is truly broken, all are passed no more often than that one alone (an intersection-union
test; Berger 1982, "Multiparameter hypothesis testing and acceptance sampling"). A correction would cost power for
nothing.

To be missed is a claim about one bound, any of which ends the evaluation. These claims are corrected together with
Holm's step-down procedure (Holm 1979, "A simple sequentially rejective multiple test procedure"): with m tests, the
ratios p_fail / alpha are put in order; the k-th smallest (k = 0, 1, ...) must be at most 1 / (m - k), and the first
that is not ends the procedure. With unequal confidences, the first wrong claim among t had p_fail <= alpha / t, which
by Bonferroni happens with at most the mean of their alphas: no more than the largest.

The gap between groups is no such test. Its lower bound is already simultaneous over all pairs of groups, and it is the
gap that has to be proven: what sampling noise explains is no reason to refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

from ..evaluation import GAPS, Against, Check, Threshold

ROUNDING = 1e-12
"""Relative slack of comparisons of probabilities, which are quotients."""


class Finding(IntEnum):
    """What is found about a bound, the worst last."""

    KEPT = 0
    UNDECIDED = 1
    MISSED = 2
    UNKNOWN = 3
    """A fact is missing: never a reason to open the gate."""


@dataclass(frozen=True)
class Bound:
    """One bound of one threshold, and what is found about it.

    Attributes:
        threshold: its index in the spec.
        name: of the bound.
        check: what the trainer knows about it, None where it says nothing.
        against: what it is held against, where it compares; each of two is a bound of its own, and all must be kept.
    """

    threshold: int
    metric: str
    name: str
    limit: float
    confidence: float | None
    check: Check | None
    finding: Finding = Finding.UNKNOWN
    against: Against = Against.BASELINE

    @property
    def tested(self) -> bool:
        """Whether confidence makes a test of it."""
        return self.confidence is not None and self.name not in GAPS

    @property
    def key(self) -> tuple[int, str, Against]:
        """What tells it from all others of the spec."""
        return self.threshold, self.name, self.against


def judge_bounds(thresholds: list[Threshold], checks: list[Check], *, anchored: bool = False) -> list[Bound]:
    """Return every bound with its finding, in the order of the spec; with an anchor, those that compare are two."""
    known: dict[tuple[int, str, Against], Check] = {}
    for check in checks:
        known.setdefault((check.threshold, check.bound, check.against), check)
    bounds = [
        _judged(
            Bound(
                index,
                threshold.metric,
                name,
                limit,
                threshold.confidence,
                known.get((index, name, against)),
                against=against,
            )
        )
        for index, threshold in enumerate(thresholds)
        for name, limit in threshold.limits.items()
        for against in threshold.sides(name, anchored=anchored)
    ]
    missed = _surely_missed([bound for bound in bounds if bound.tested])
    return [_tested(bound, bound.key in missed) for bound in bounds]


def _judged(bound: Bound) -> Bound:
    """Return the bound judged by its estimate, or as unknown where a fact is missing."""
    check = bound.check
    if check is None or not _known(check.estimate):
        return _found(bound, Finding.UNKNOWN)
    if bound.tested and not (_probability(check.p_pass) and _probability(check.p_fail)):
        return _found(bound, Finding.UNKNOWN)
    value = check.low if bound.name in GAPS else check.estimate
    if value is None or not _known(value):
        return _found(bound, Finding.UNKNOWN)
    kept = value >= bound.limit if bound.name == "minimum" else value <= bound.limit
    return _found(bound, Finding.KEPT if kept else Finding.MISSED)


def _tested(bound: Bound, missed: bool) -> Bound:
    """Return the bound with the verdict of its test, where it is one.

    An estimate beyond the limit is never kept, whatever the test says of it.
    """
    check = bound.check
    if not bound.tested or bound.finding is Finding.UNKNOWN or check is None or check.p_pass is None:
        return bound
    if bound.finding is Finding.KEPT and check.p_pass <= _alpha(bound) * (1 + ROUNDING):
        return bound
    return _found(bound, Finding.MISSED if missed else Finding.UNDECIDED)


def _surely_missed(tests: list[Bound]) -> set[tuple[int, str, Against]]:
    """Return the tests by which values within the limit are excluded, after Holm. Of the unknown nothing is."""
    ratios = {test.key: _ratio(test) for test in tests}
    missed: set[tuple[int, str, Against]] = set()
    for step, test in enumerate(sorted(ratios, key=lambda each: ratios[each])):
        if ratios[test] * (len(tests) - step) > 1 + ROUNDING:
            break
        missed.add(test)
    return missed


def _ratio(test: Bound) -> float:
    if test.finding is Finding.UNKNOWN or test.check is None or test.check.p_fail is None:
        return math.inf
    return test.check.p_fail / _alpha(test)


def _alpha(bound: Bound) -> float:
    return 1 - (bound.confidence or 0)


def _found(bound: Bound, finding: Finding) -> Bound:
    return replace(bound, finding=finding)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _probability(value: float | None) -> bool:
    return value is not None and 0 <= value <= 1
