"""The rule of the gate, as a table: what is known about each bound, and what follows."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_operator.api import RESULTS_KEPT
from trimtab_operator.domain.evaluation.verdict import Verdict, judge
from trimtab_trainer.contract import EvaluationOutcome, Threshold

from tests.unit.domain.makers import sha

NAN, INFINITY = math.nan, math.inf


def threshold(metric: str = "t/m", **bounds: Any) -> Threshold:
    return Threshold.model_validate({"metric": metric, **bounds})


def check(bound: str, index: int = 0, **facts: Any) -> dict[str, Any]:
    return {"threshold": index, "bound": bound, **facts}


def judged(
    thresholds: list[Threshold], checks: list[dict[str, Any]], *, anchored: bool = False, **outcome: Any
) -> Verdict:
    facts = {"report_uri": "s3://o/report.html", "results_digest": sha("a"), "rows": 200, **outcome}
    return judge(thresholds, EvaluationOutcome.model_validate({**facts, "checks": checks}), anchored=anchored)


@dataclass(frozen=True)
class Case:
    thresholds: list[Threshold]
    checks: list[dict[str, Any]]
    reason: str
    words: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return self.reason in ("Passed", "NoThresholds")


def one(bound: str, limit: float, reason: str, *words: str, **facts: Any) -> Case:
    """A single bound without confidence."""
    return Case([Threshold.model_validate({"metric": "t/m", bound: limit})], [check(bound, **facts)], reason, words)


def with_confidence(
    bound: str, reason: str, *words: str, confidence: float = 0.95, limit: float = 0.1, **facts: Any
) -> Case:
    """A single bound with confidence."""
    return Case(
        [Threshold.model_validate({"metric": "t/m", "confidence": confidence, bound: limit})],
        [check(bound, **facts)],
        reason,
        words,
    )


def family(reason: str, *tests: tuple[float, float], words: tuple[str, ...] = (), p_fail: float = 0.5) -> Case:
    """Several regressions with (confidence, p_pass), estimates within their limits."""
    thresholds = [threshold(f"t/m{i}", maximumRegression=0.1, confidence=c) for i, (c, _) in enumerate(tests)]
    checks = [check("maximumRegression", i, estimate=0.05, p_pass=p, p_fail=p_fail) for i, (_, p) in enumerate(tests)]
    return Case(thresholds, checks, reason, words)


def losses(reason: str, *p_fail: float, words: tuple[str, ...] = ()) -> Case:
    """Several regressions at 0.95, estimates beyond their limits."""
    thresholds = [threshold(f"t/m{i}", maximumRegression=0.1, confidence=0.95) for i in range(len(p_fail))]
    checks = [check("maximumRegression", i, estimate=0.3, p_pass=0.99, p_fail=p) for i, p in enumerate(p_fail)]
    return Case(thresholds, checks, reason, words)


REGRESSION = "maximumRegression"
RELATIVE = "maximumRelativeRegression"
GAP = "maximumGroupGap"

CASES = {
    "without thresholds whatever could be measured passes": Case([], [], "NoThresholds", ("not judged",)),
    "checks of no threshold are not looked at": Case([], [check("minimum", estimate=0)], "NoThresholds"),
    # estimates alone
    "a value above its minimum": one("minimum", 0.3, "Passed", "1 bound on 200 rows", estimate=0.4),
    "a value at its minimum": one("minimum", 0.3, "Passed", estimate=0.3),
    "a value below its minimum": one(
        "minimum", 0.3, "ThresholdMissed", "t/m is 0.2", "below its minimum", estimate=0.2
    ),
    "a value below its maximum": one("maximum", 12, "Passed", estimate=9.5),
    "a value at its maximum": one("maximum", 12, "Passed", estimate=12.0),
    "a value above its maximum": one(
        "maximum", 12, "ThresholdMissed", "t/m is 13", "above its maximum 12", estimate=13
    ),
    "a regression within what is allowed": one(REGRESSION, 0.02, "Passed", estimate=0.02),
    "an improvement": one(REGRESSION, 0.0, "Passed", estimate=-0.4),
    "a regression beyond it": one(REGRESSION, 0.02, "Regressed", "worse by 0.03", estimate=0.03),
    "any regression where none is allowed": one(REGRESSION, 0.0, "Regressed", estimate=1e-6),
    "a relative regression within what is allowed": one(RELATIVE, 0.05, "Passed", estimate=0.04),
    "a relative regression beyond it": one(RELATIVE, 0.05, "Regressed", "relative to", estimate=0.06),
    "p-values are not looked at without confidence": one(REGRESSION, 0.1, "Passed", estimate=0.05, p_pass=0.9),
    "a missing p-value is not missed without confidence": one("maximum", 1, "Passed", estimate=0.5),
    # groups
    "a gap that chance explains": one(GAP, 0.1, "Passed", estimate=0.3, low=0.08),
    "a gap whose lower bound is at the limit": one(GAP, 0.1, "Passed", estimate=0.3, low=0.1),
    "a gap beyond chance": one(
        GAP, 0.1, "GroupGap", "'pods'", "'nodes'", "0.15", estimate=0.3, low=0.15, best="pods", worst="nodes"
    ),
    "a gap beyond chance of groups without names": one(GAP, 0.1, "GroupGap", "t/m differs", estimate=0.3, low=0.15),
    "a gap without a lower bound": one(GAP, 0.1, "MetricMissing", estimate=0.05),
    "a gap without an estimate": one(GAP, 0.1, "MetricMissing", low=0.05),
    "a gap that is no number": one(GAP, 0.1, "MetricMissing", estimate=0.05, low=NAN),
    "confidence of a gap is in its bound, not in p-values": Case(
        [threshold(maximumGroupGap=0.1, confidence=0.99)], [check(GAP, estimate=0.3, low=0.05)], "Passed"
    ),
    # the worst group against the baseline, and rows that are worse
    "a group within what is allowed": one("maximumGroupRegression", 0.1, "Passed", estimate=0.05, worst="pods"),
    "a group beyond it": one(
        "maximumGroupRegression", 0.1, "Regressed", "worse by 0.2", "in the group 'pods'", estimate=0.2, worst="pods"
    ),
    "a group of few rows": with_confidence(
        "maximumGroupRegression", "InsufficientRows", estimate=0.05, p_pass=0.2, p_fail=0.9
    ),
    "few rows that are worse": one("maximumWorseRatio", 0.05, "Passed", estimate=0.05),
    "many rows that are worse": one("maximumWorseRatio", 0.05, "Regressed", "0.2 of the rows of t/m", estimate=0.2),
    "rows that could be worse": with_confidence(
        "maximumWorseRatio", "InsufficientRows", estimate=0.05, p_pass=0.2, p_fail=0.9
    ),
    # what is not known
    "a threshold without a check": Case([threshold(minimum=1)], [], "MetricMissing", ("t/m could not be computed",)),
    "a check of another bound": Case([threshold(minimum=1)], [check("maximum", estimate=2)], "MetricMissing"),
    "a check of another threshold": Case([threshold(minimum=1)], [check("minimum", 1, estimate=2)], "MetricMissing"),
    "no estimate": one("minimum", 1, "MetricMissing"),
    "an estimate that is no number": one("maximum", 1, "MetricMissing", estimate=NAN),
    "an infinite perplexity": one("maximum", 1, "MetricMissing", estimate=INFINITY),
    "an infinitely good value": one("minimum", 1, "MetricMissing", estimate=INFINITY),
    "one of two bounds of a threshold is unknown": Case(
        [threshold(minimum=0, maximum=1)], [check("minimum", estimate=0.5)], "MetricMissing"
    ),
    "a test without p-values": with_confidence(REGRESSION, "MetricMissing", estimate=0.0),
    "a test without p_pass": with_confidence(REGRESSION, "MetricMissing", estimate=0.0, p_fail=0.9),
    "a test without p_fail": with_confidence(REGRESSION, "MetricMissing", estimate=0.0, p_pass=0.001),
    "a p-value that is no number": with_confidence(REGRESSION, "MetricMissing", estimate=0.0, p_pass=NAN, p_fail=0.5),
    "a p-value that is no probability": with_confidence(
        REGRESSION, "MetricMissing", estimate=0.0, p_pass=-0.1, p_fail=0.5
    ),
    # tests
    "a loss beyond the tolerance is excluded": with_confidence(
        REGRESSION, "Passed", estimate=0.0, p_pass=0.01, p_fail=0.9
    ),
    "excluded exactly at the confidence": with_confidence(REGRESSION, "Passed", estimate=0.0, p_pass=0.05, p_fail=0.9),
    "neither excluded nor certain": with_confidence(
        REGRESSION,
        "InsufficientRows",
        "neither certain",
        "about 1,800 rows would decide it",
        "confidence 0.95",
        estimate=0.05,
        p_pass=0.2,
        p_fail=0.6,
        rows_needed=1800,
    ),
    "a good estimate is no proof": with_confidence(
        REGRESSION,
        "InsufficientRows",
        "no number of rows is known",
        "more room",
        estimate=-0.01,
        p_pass=0.06,
        p_fail=0.9,
    ),
    "certainly worse": with_confidence(REGRESSION, "Regressed", "worse by 0.3", estimate=0.3, p_pass=0.99, p_fail=0.01),
    "worse in the estimate and not certainly": with_confidence(
        REGRESSION, "InsufficientRows", estimate=0.15, p_pass=0.7, p_fail=0.3
    ),
    "certainly relatively worse": with_confidence(RELATIVE, "Regressed", estimate=0.3, p_pass=0.99, p_fail=0.0),
    "a minimum that is certainly kept": with_confidence("minimum", "Passed", estimate=0.4, p_pass=0.001, p_fail=1),
    "a minimum that is certainly missed": with_confidence(
        "minimum", "ThresholdMissed", estimate=0.01, p_pass=1, p_fail=0.001
    ),
    "a maximum that is not certain": with_confidence(
        "maximum", "InsufficientRows", estimate=0.09, p_pass=0.4, p_fail=0.6
    ),
    "a test that contradicts its estimate opens nothing": with_confidence(
        REGRESSION, "InsufficientRows", estimate=0.2, p_pass=0.001, p_fail=0.5
    ),
    "a higher confidence asks for more": with_confidence(
        REGRESSION, "InsufficientRows", confidence=0.99, estimate=0.0, p_pass=0.02, p_fail=0.9
    ),
    # several tests
    "several tests, each at its own alpha: all of them have to be passed": family(
        "Passed", (0.95, 0.05), (0.95, 0.04), (0.95, 0.03)
    ),
    "several tests, one above alpha": family(
        "InsufficientRows", (0.95, 0.01), (0.95, 0.051), (0.95, 0.04), words=("t/m1",)
    ),
    "tests of different confidences, each at its own": family("Passed", (0.99, 0.01), (0.9, 0.1)),
    "tests of different confidences, the stricter not excluded": family("InsufficientRows", (0.99, 0.02), (0.9, 0.01)),
    "several claims of a loss are corrected together": losses("InsufficientRows", 0.04, 0.03),
    "the smaller one below half of alpha": losses("Regressed", 0.04, 0.025, words=("t/m0", "1 other bound")),
    "three of them, by the steps": losses("Regressed", 0.049, 0.024, 0.016, words=("t/m0", "2 other bounds")),
    "three of them, stopped at the second": losses("Regressed", 0.04, 0.026, 0.01, words=("t/m2", "2 other bounds")),
    "a missing test does not make the others stricter": Case(
        [threshold("t/a", maximumRegression=0.1, confidence=0.95), threshold("t/b", maximum=1, confidence=0.95)],
        [check(REGRESSION, 0, estimate=0.0, p_pass=0.04, p_fail=0.9)],
        "MetricMissing",
        ("t/b",),
    ),
    "bounds without confidence are no part of the family": Case(
        [threshold("t/a", maximumRegression=0.1, confidence=0.95), threshold("t/b", maximum=1)],
        [check(REGRESSION, 0, estimate=0.0, p_pass=0.05, p_fail=0.9), check("maximum", 1, estimate=0.5)],
        "Passed",
        ("2 bounds",),
    ),
    # precedence
    "what is missing comes before what is missed": Case(
        [threshold("t/a", minimum=1), threshold("t/b", minimum=1)],
        [check("minimum", 0, estimate=0)],
        "MetricMissing",
        ("t/b",),
    ),
    "what is missed comes before what is undecided": Case(
        [threshold("t/a", maximumRegression=0.1, confidence=0.95), threshold("t/b", minimum=1)],
        [check(REGRESSION, 0, estimate=0.0, p_pass=0.5, p_fail=0.5), check("minimum", 1, estimate=0)],
        "ThresholdMissed",
        ("t/b", "1 other bound"),
    ),
    "of what is missed the first in the spec is named": Case(
        [threshold("t/a", maximumGroupGap=0.1), threshold("t/b", minimum=1), threshold("t/c", maximumRegression=0)],
        [check(REGRESSION, 2, estimate=1), check("minimum", 1, estimate=0), check(GAP, 0, estimate=1, low=0.5)],
        "GroupGap",
        ("t/a", "2 other bounds are not kept either"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_rule(case: Case) -> None:
    verdict = judged(case.thresholds, case.checks)
    assert (verdict.reason.value, verdict.passed) == (case.reason, case.passed)
    for words in case.words:
        assert words in verdict.message
    assert "\n" not in verdict.message


def anchored(checks: list[dict[str, Any]], *words: str, **bounds: Any) -> Case:
    return Case([threshold(**bounds)], checks, words[0], words[1:])


AGAINST_ANCHOR: dict[str, Any] = {"against": "Anchor"}
ANCHORED = {
    "no worse than both": anchored(
        [check(REGRESSION, estimate=0.01), check(REGRESSION, estimate=0.02, **AGAINST_ANCHOR)],
        *("Passed", "2 bounds", "against baseline and anchor"),
        maximumRegression=0.02,
    ),
    "no worse than what is served, and worse than the anchor": anchored(
        [check(REGRESSION, estimate=0.01), check(REGRESSION, estimate=0.1, **AGAINST_ANCHOR)],
        *("Regressed", "worse by 0.1 than the anchor"),
        maximumRegression=0.02,
    ),
    "worse than what is served, and no worse than the anchor": anchored(
        [check(REGRESSION, estimate=0.1), check(REGRESSION, estimate=-0.1, **AGAINST_ANCHOR)],
        *("Regressed", "worse by 0.1 than the baseline"),
        maximumRegression=0.02,
    ),
    "nothing is known of the anchor": anchored(
        [check(RELATIVE, estimate=0.0)],
        *("MetricMissing", "against the anchor"),
        maximumRelativeRegression=0.02,
    ),
    "the rows do not suffice against the anchor": anchored(
        [
            check(REGRESSION, estimate=0.0, p_pass=0.01, p_fail=0.9),
            check(REGRESSION, estimate=0.01, p_pass=0.2, p_fail=0.5, rows_needed=900, **AGAINST_ANCHOR),
        ],
        *("InsufficientRows", "maximumRegression 0.02 against the anchor", "about 900 rows"),
        maximumRegression=0.02,
        confidence=0.95,
    ),
    "more rows are worse than the anchor's": anchored(
        [check("maximumWorseRatio", estimate=0.0), check("maximumWorseRatio", estimate=0.3, **AGAINST_ANCHOR)],
        *("Regressed", "0.3 of the rows of t/m are worse than the anchor's"),
        maximumWorseRatio=0.1,
    ),
    "a value is not held against anything": anchored([check("minimum", estimate=0.4)], "Passed", minimum=0.3),
    "a bound against the anchor alone asks nothing of the baseline": anchored(
        [check(REGRESSION, estimate=0.02, **AGAINST_ANCHOR)],
        *("Passed", "1 bound"),
        maximumRegression=0.02,
        against="Anchor",
    ),
    "a bound against the baseline alone asks nothing of the anchor": anchored(
        [check(REGRESSION, estimate=0.02)], *("Passed", "1 bound"), maximumRegression=0.02, against="Baseline"
    ),
    "a win rate is against both": anchored(
        [check("minimum", estimate=0.5), check("minimum", estimate=0.3, **AGAINST_ANCHOR)],
        *("ThresholdMissed", "t/winRate is 0.3 against the anchor, below"),
        metric="t/winRate",
        minimum=0.4,
    ),
}


@pytest.mark.parametrize("case", ANCHORED.values(), ids=ANCHORED)
def test_with_an_anchor_every_comparison_has_to_hold_twice(case: Case) -> None:
    verdict = judged(case.thresholds, case.checks, anchored=True)
    assert (verdict.reason.value, verdict.passed) == (case.reason, case.passed)
    for words in case.words:
        assert words in verdict.message


def test_what_fails_against_baseline_and_anchor_is_told_apart() -> None:
    checks = [check(REGRESSION, estimate=0.1), check(REGRESSION, estimate=0.2, **AGAINST_ANCHOR)]
    figures = [result("t", "m", value=0.4, baseline=0.5, change=-0.1, anchor=0.6, anchor_change=-0.2)]
    (shown,) = judged([threshold(maximumRegression=0.02)], checks, anchored=True, results=figures).results
    assert (shown.anchor, shown.anchor_change) == (0.6, -0.2)
    assert [(each.estimate, each.against) for each in shown.failed] == [(0.1, None), (0.2, "Anchor")]


def result(task: str, metric: str, **figures: Any) -> dict[str, Any]:
    return {"task": task, "metric": metric, **figures}


def test_results_with_thresholds_stand_first_then_headlines_then_the_rest() -> None:
    results = [result(task, metric) for task in ("a", "b") for metric in ("one", "two", "three")]
    verdict = judged([threshold("b/three", minimum=0)], [check("minimum", estimate=1)], results=results, omitted=4)
    shown = [f"{each.task}/{each.metric}" for each in verdict.results]
    assert shown == ["b/three", "a/one", "b/one", "a/two", "a/three", "b/two"]
    assert [each.passed for each in verdict.results] == [True, None, None, None, None, None]
    assert verdict.omitted == 4


def test_what_does_not_fit_the_status_is_counted() -> None:
    results = [result(f"task-{number}", "m", value=1.0) for number in range(50)]
    verdict = judged([], [], results=results, omitted=3)
    assert (len(verdict.results), verdict.omitted) == (RESULTS_KEPT, 50 - RESULTS_KEPT + 3)


def test_results_take_no_more_room_than_there_is() -> None:
    results = [result(f"task-{number}", "m", value=1.0) for number in range(20)]
    verdict = judged([], [], results=results)
    size = len(json.dumps(verdict.results[0].to_json(), separators=(",", ":")))
    facts: dict[str, Any] = {"report_uri": "s3://o/r.html", "results_digest": sha("a"), "results": results}
    smaller = judge([], EvaluationOutcome.model_validate(facts), room=5 * (size + 1))
    assert (len(smaller.results), smaller.omitted) == (5, 15)


def test_figures_are_numbers_that_json_has_and_not_longer_than_needed() -> None:
    figures = {"value": 1 / 3, "low": NAN, "high": INFINITY, "baseline": 0.5, "change": -1 / 6, "count": 200}
    (shown,) = judged([], [], results=[result("t", "m", **figures)]).results
    assert (shown.value, shown.low, shown.high, shown.change, shown.count) == (0.33333, None, None, -0.16667, 200)


def test_a_failed_bound_says_why_and_how_many_rows_would_decide() -> None:
    thresholds = [threshold(maximumRegression=0.1, minimum=0.5, confidence=0.95)]
    facts: dict[str, Any] = {"estimate": 0.05, "p_pass": 0.3, "p_fail": 0.4, "rows_needed": 900}
    checks = [check(REGRESSION, **facts), check("minimum", estimate=0.1, p_pass=1, p_fail=0, rows_needed=7)]
    verdict = judged(thresholds, checks, results=[result("t", "m", value=0.1, count=200)])
    (shown,) = verdict.results
    assert not shown.passed
    assert [each.to_json() for each in shown.failed] == [
        {"bound": "minimum", "limit": 0.5, "estimate": 0.1, "reason": "ThresholdMissed"},
        {"bound": "maximumRegression", "limit": 0.1, "estimate": 0.05, "reason": "InsufficientRows", "rowsNeeded": 900},
    ]


def test_of_rows_in_clusters_it_is_clusters_that_the_status_asks_for() -> None:
    facts: dict[str, Any] = {"estimate": 0.05, "p_pass": 0.3, "p_fail": 0.4, "rows_needed": 901, "clusters": 4}
    thresholds, measured = [threshold(maximumRegression=0.1, confidence=0.95)], [result("t", "m", value=0.1, count=200)]
    verdict = judged(thresholds, [check(REGRESSION, **facts)], results=measured)
    (failed,) = verdict.results[0].failed
    assert (failed.rows_needed, failed.clusters_needed) == (901, 19)
    assert "with 200 rows in 4 clusters at" in verdict.message
    assert "about 19 clusters like these (901 rows) would decide it" in verdict.message
    packed = EvaluationOutcome.model_validate(
        {
            "report_uri": "s3://o/r",
            "results_digest": sha("a"),
            "results": measured,
            "checks": [check(REGRESSION, **facts)],
        }
    ).pack(4_000)
    assert EvaluationOutcome.unpack(packed).checks[0].clusters == 4


def test_a_metric_with_a_threshold_and_no_result_is_shown_as_not_passed() -> None:
    (shown,) = judged([threshold(minimum=1)], []).results
    assert (shown.task, shown.metric, shown.value, shown.passed) == ("t", "m", None, False)
    assert shown.failed[0].reason == "MetricMissing"


NUMBERS = st.one_of(st.none(), st.floats(-2, 2), st.just(NAN))
PROBABILITIES = st.one_of(st.none(), st.floats(0, 1), st.floats(0, 0.06), st.just(NAN))


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Threshold], list[dict[str, Any]]]:
    """Thresholds with one bound each, and what is known about them."""
    thresholds, checks = [], []
    for index in range(draw(st.integers(1, 5))):
        bound = draw(st.sampled_from(("minimum", "maximum", REGRESSION, RELATIVE, GAP)))
        confidence = draw(st.sampled_from((None, 0.9, 0.95, 0.99)))
        given_: dict[str, Any] = {} if confidence is None else {"confidence": confidence}
        thresholds.append(threshold(f"t/m{index}", **{bound: draw(st.floats(0, 1))}, **given_))
        facts: dict[str, Any] = {"estimate": draw(NUMBERS), "low": draw(NUMBERS)}
        facts |= {"p_pass": draw(PROBABILITIES), "p_fail": draw(PROBABILITIES)}
        checks.append(check(bound, index, **facts))
    return thresholds, checks


@settings(deadline=None)
@given(story=stories(), data=st.data())
def test_worse_facts_never_open_the_gate(
    story: tuple[list[Threshold], list[dict[str, Any]]], data: st.DataObject
) -> None:
    thresholds, checks = story
    which = data.draw(st.sampled_from(range(len(checks))))
    fact = data.draw(st.sampled_from(("estimate", "low", "p_pass")))
    before = checks[which]
    better = -1 if before["bound"] == "minimum" and fact == "estimate" else 1
    amount = data.draw(st.floats(0, 3))
    worse = None if before[fact] is None else before[fact] + better * amount
    if fact == "p_pass" and worse is not None:
        worse = min(1.0, worse)
    if data.draw(st.booleans()):
        worse = data.draw(st.sampled_from((None, NAN)))
    after = [*checks[:which], {**before, fact: worse}, *checks[which + 1 :]]
    assert judged(thresholds, checks).passed >= judged(thresholds, after).passed


def test_results_whose_names_are_cut_are_there_once() -> None:
    """A status lists them by task and metric, and the API server takes no such pair twice."""
    names = ("first", "m" * 64 + "a", "m" * 64 + "b", "last")
    verdict = judged([], [], results=[{"task": "t", "metric": name, "value": 1.0} for name in names])
    assert [result.metric for result in verdict.results] == ["first", "m" * 64, "last"]
    assert verdict.omitted == 1


def test_a_judge_that_is_not_to_be_relied_on_lets_nothing_pass_and_misses_nothing() -> None:
    why = "the judge of task t decides nothing: the order decides"
    kept = threshold(minimum=0.4), [check("minimum", estimate=0.5)]
    missed = threshold(minimum=0.6), [check("minimum", estimate=0.5)]
    for bound, checks in (kept, missed):
        verdict = judged([bound], checks, unreliable=why)
        assert (verdict.passed, verdict.reason.value, verdict.message) == (False, "JudgeUnreliable", why)
    assert judged([], [], unreliable=why).reason.value == "JudgeUnreliable", "not even where there is no threshold"
    told = EvaluationOutcome(report_uri="s3://o", results_digest=sha("a"), unreliable=why)
    assert EvaluationOutcome.unpack(told.pack(3_000)).unreliable == why
