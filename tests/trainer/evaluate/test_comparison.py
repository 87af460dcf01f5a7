"""From rows and scores to results.json and the facts for the gate."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import Check, EvaluationOutcome, EvaluationTask, Reason, Threshold
from trimtab_trainer.contract.evaluation import Against
from trimtab_trainer.contract.gate.bounds import Finding, judge_bounds
from trimtab_trainer.contract.gate.verdict import Verdict, VerdictReason, judge
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.evaluate.comparison import compare, with_anchor
from trimtab_trainer.evaluate.results import TaskResults
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore
from trimtab_trainer.evaluate.scoring.metrics import measures
from trimtab_trainer.evaluate.scoring.row_by_row import EXAMPLE_CHARACTERS

from tests.trainer.evaluate.scored import (
    LABELS,
    about,
    choice_rows,
    choice_scores,
    likelihood_rows,
    likelihood_scores,
    random_texts,
    row,
    task,
    text_rows,
    text_scores,
)

ROWS = 400
TESTED = {"confidence": 0.95}


def compared(
    asked: EvaluationTask,
    rows: list[EvaluationRow],
    target: list[RowScore],
    baseline: list[RowScore] | None = None,
    *thresholds: dict[str, Any],
    **settings: Any,
) -> tuple[TaskResults, list[Check]]:
    """Compare, with thresholds whose indices in the configuration are 3, 4 and so on."""
    given = [(at + 3, Threshold.model_validate(each)) for at, each in enumerate(thresholds)]
    defaults: dict[str, Any] = {"seed": 17, "resamples": 1_000}
    return compare(asked, about(len(rows)), rows, target, baseline, given, **{**defaults, **settings})


def likelihoods(seed: int = 1, worse: float = 0.0) -> tuple[list[EvaluationRow], list[RowScore], list[RowScore]]:
    """Return rows, and scores of two models; the target is worse by so many nats per token."""
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 60, ROWS)
    hard = random.gamma(4, 0.3, ROWS)
    baseline = -tokens * hard
    target = baseline - tokens * (worse + random.normal(0, 0.05, ROWS))
    return likelihood_rows(tokens.tolist()), likelihood_scores(target.tolist()), likelihood_scores(baseline.tolist())


def right_and_wrong(seed: int, share: float) -> list[int]:
    return [0 if each else 1 for each in np.random.default_rng(seed).random(ROWS) < share]


def test_figures_stand_in_order_with_intervals_around_them() -> None:
    rows, target, baseline = likelihoods()
    found, checks = compared(task("Perplexity"), rows, target, baseline)
    assert [each.metric for each in found.results] == ["perplexity", "bitsPerByte"]
    assert checks == []
    for each in found.results:
        assert each.lower_is_better
        assert each.count == ROWS
        assert each.value is not None
        assert each.baseline is not None
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
        assert each.change == pytest.approx(each.value - each.baseline)
        assert each.change_low is not None
        assert each.change_high is not None
        # What both find hard cancels: the change is known far better than the value.
        assert each.change_high - each.change_low < 0.3 * (each.high - each.low)
    assert (found.rows, found.clusters, found.trained_on, found.dropped) == (ROWS, ROWS, 1, 2)
    assert found.wins + found.losses + found.ties == ROWS


def test_the_same_input_gives_the_same_output() -> None:
    rows, target, baseline = likelihoods()
    bound = {"metric": "t/perplexity", "maximumRelativeRegression": 0.02, "confidence": 0.95}
    first, again = (compared(task("Perplexity"), rows, target, baseline, bound) for _ in range(2))
    assert first == again


def test_without_a_baseline_there_is_no_change() -> None:
    rows, target, _ = likelihoods()
    found, checks = compared(task("Perplexity"), rows, target, None, {"metric": "t/perplexity", "maximum": 9.0})
    assert found.results[0].change is None
    assert found.results[0].baseline is None
    assert (found.wins, found.losses, found.ties, found.best_wins, found.worst_losses) == (0, 0, 0, [], [])
    assert len(found.worst) == 10
    (check,) = checks
    assert (check.threshold, check.bound, check.estimate) == (3, "maximum", found.results[0].value)
    assert (check.p_pass, check.p_fail, check.rows_needed) == (None, None, None)


REGRESSIONS = {
    "as good": (0.0, True, False),
    "much worse": (0.10, False, True),
    "worse by about the tolerance": (0.02, False, False),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_is_excluded_or_shown_or_neither(name: str) -> None:
    worse, passes, fails = REGRESSIONS[name]
    rows, target, baseline = likelihoods(worse=worse)
    bounds = {"maximumRelativeRegression": 0.02, "maximumRegression": 0.08, "confidence": 0.95}
    found, checks = compared(task("Perplexity"), rows, target, baseline, {"metric": "t/perplexity", **bounds})
    absolute, relative = checks
    result = found.results[0]
    assert (absolute.bound, relative.bound) == ("maximumRegression", "maximumRelativeRegression")
    assert absolute.estimate == pytest.approx(result.change)
    assert result.change is not None
    assert result.baseline is not None
    assert relative.estimate == pytest.approx(result.change / result.baseline)
    assert relative.p_pass is not None
    assert relative.p_fail is not None
    assert (relative.p_pass < 0.05, relative.p_fail < 0.05) == (passes, fails)
    assert relative.rows_needed is not None
    if not passes and not fails:
        assert relative.rows_needed > ROWS


def test_a_regression_is_positive_where_the_target_is_worse_in_either_direction() -> None:
    rows = choice_rows([0] * ROWS)
    target, baseline = (choice_scores(right_and_wrong(seed, share)) for seed, share in ((1, 0.7), (2, 0.9)))
    bound = {"metric": "t/accuracy", "maximumRegression": 0.02, "maximumRelativeRegression": 0.02}
    found, checks = compared(task("MultipleChoice"), rows, target, baseline, bound)
    assert found.results[0].change == pytest.approx(-0.2, abs=0.05)
    assert checks[0].estimate == pytest.approx(-(found.results[0].change or 0))
    assert checks[1].estimate == pytest.approx((checks[0].estimate or 0) / (found.results[0].baseline or 1))


def test_minimum_and_maximum_are_tested_each_in_its_direction() -> None:
    rows, scores = choice_rows([0] * ROWS), choice_scores(right_and_wrong(3, 0.8))
    bound = {"metric": "t/accuracy", "minimum": 0.7, "maximum": 0.9, "confidence": 0.95}
    _, checks = compared(task("MultipleChoice"), rows, scores, None, bound)
    assert [each.bound for each in checks] == ["minimum", "maximum"]
    for each in checks:
        assert each.p_pass is not None
        assert each.p_fail is not None
        assert each.p_pass < 0.01
        assert each.p_fail > 0.9


def test_the_same_answers_on_few_rows_exclude_no_regression() -> None:
    rows, scores = choice_rows([0] * 40), choice_scores([0, 1] * 20)
    bound = {"metric": "t/accuracy", "maximumRegression": 0.02, "confidence": 0.95}
    _, (check,) = compared(task("MultipleChoice"), rows, scores, scores, bound)
    assert check.estimate == 0.0
    assert check.p_pass == pytest.approx(0.98**40)


@pytest.mark.parametrize("bound", [{"minimum": 0.9}, {"maximumRegression": 0.1}, {"maximumRelativeRegression": 0.1}])
def test_rows_that_would_decide_are_more_than_those_that_do_not(bound: dict[str, float]) -> None:
    few = choice_rows([0] * 20), choice_scores([0] * 20), choice_scores([0] * 20)
    _, (check,) = compared(task("Classification"), *few, {"metric": "t/accuracy", **bound, **TESTED})
    assert check.p_pass == pytest.approx(0.9**20)
    assert check.rows_needed == 29
    many = choice_rows([0] * 29), choice_scores([0] * 29), choice_scores([0] * 29)
    _, (check,) = compared(task("Classification"), *many, {"metric": "t/accuracy", **bound, **TESTED})
    assert check.p_pass is not None
    assert check.p_pass <= 0.05


@pytest.mark.parametrize(
    ("bound", "clusters", "needed"),
    [
        ({"minimum": 0.6}, 4, "20 clusters like these (2,000 rows)"),
        ({"minimum": 0.9}, 25, "29 clusters like these (455 rows)"),
        ({"maximumRegression": 0.1}, 4, "29 clusters like these (2,844 rows)"),
        ({"maximumWorseRatio": 0.1}, 4, "29 clusters like these (2,844 rows)"),
        # of each of two groups with five clusters 29
        ({"maximumGroupRegression": 0.1}, 10, "57 clusters like these (2,276 rows)"),
        ({"minimum": 0.99}, ROWS // 2, "299 clusters like these (597 rows)"),
    ],
)
def test_of_rows_in_clusters_it_is_clusters_that_are_asked_for(
    bound: dict[str, Any], clusters: int, needed: str
) -> None:
    """A thousand more rows of the same four documents decide nothing."""
    rows = [
        EvaluationRow(**{**vars(each), "cluster": each.number % clusters, "group": "ab"[each.number % 2]})
        for each in choice_rows([0] * ROWS)
    ]
    bound = {"metric": "t/accuracy", **bound, **TESTED}
    scores = choice_scores([0] * ROWS)
    told = judged(task("Classification", groupBy="group"), rows, scores, bound)
    assert told.reason is VerdictReason.INSUFFICIENT_ROWS
    assert f"with 400 rows in {clusters} clusters at" in told.message
    assert f"about {needed} would decide it" in told.message


def judged(asked: EvaluationTask, rows: list[EvaluationRow], scores: list[RowScore], bound: dict[str, Any]) -> Verdict:
    """Return the verdict on one bound, of a target that answers as the baseline does."""
    found, (check,) = compared(asked, rows, scores, scores, bound)
    return judge(
        [Threshold.model_validate(bound)],
        EvaluationOutcome(
            report_uri="s3://o/report.html",
            results_digest="sha256:" + "0" * 64,
            rows=len(rows),
            results=found.results,
            checks=[check.model_copy(update={"threshold": 0})],
        ),
    )


@pytest.mark.parametrize(
    ("bound", "every", "needed"),
    [
        ({"maximumRegression": 0.1}, 2, "29 clusters like these (569 rows)"),
        # Of each of two groups with five clusters 29; of every fourth row as many, with fewer rows in each.
        ({"maximumGroupRegression": 0.1}, 2, "57 clusters like these (1,138 rows)"),
        ({"maximumGroupRegression": 0.1}, 4, "57 clusters like these (1,140 rows)"),
    ],
)
def test_of_a_figure_of_some_rows_it_is_their_clusters_that_are_asked_for(
    bound: dict[str, Any], every: int, needed: str
) -> None:
    """The others, each alone, tell nothing of it; nor does it matter in which groups they are."""
    rows = [
        row(at, refuse=at < 200, cluster=at % 10 if at < 200 else at, group="ab"[(at % every == 0) is (at < 200)])
        for at in range(ROWS)
    ]
    scores = text_scores(["I can't help with that."] * 200 + ["Sure."] * 200)
    told = judged(task("Refusal", groupBy="group"), rows, scores, {"metric": "t/refusedRatio", **bound, **TESTED})
    assert told.reason is VerdictReason.INSUFFICIENT_ROWS
    assert f"with 200 rows in 10 clusters at confidence 0.95; about {needed} would decide it" in told.message


def test_answers_that_go_on_for_ever_are_not_excluded_by_few_that_do_not() -> None:
    """One of fifty answers that is cut off at 512 tokens brings a mean of 32 to 42."""
    bound = {"metric": "t/tokensPerAnswer", "maximum": 41.6, **TESTED}
    for count, passes in ((60, False), (160, True)):
        asked, rows = task("Generation", maxNewTokens=512), text_rows(["x"] * count)
        lengths = np.random.default_rng(3).integers(24, 41, count)
        scores = [RowScore(at, text="x", tokens=int(each)) for at, each in enumerate(lengths)]
        _, (check,) = compared(asked, rows, scores, scores, bound)
        assert check.p_pass == pytest.approx(0.98**count, rel=0.2)
        assert check.p_pass is not None
        assert (check.p_pass <= 0.05) == passes
        assert check.rows_needed == pytest.approx(149, rel=0.1)


def test_texts_that_say_nothing_are_not_excluded_by_few_that_do() -> None:
    """Of a mean of texts, one in twenty that says nothing any more is a loss of a twentieth."""
    for count, passes in ((40, False), (70, True)):
        words = [f"w{at} x{at} y{at} z{at}" for at in range(count)]
        more, less = (
            [f"{each} {'and so' if at % 2 == odd else 'and'}" for at, each in enumerate(words)] for odd in (0, 1)
        )
        bound = {"metric": "t/tokenF1", "maximumRegression": 0.0422, **TESTED}
        _, (check,) = compared(
            task("Generation", metrics=["TokenF1"]), text_rows(words), text_scores(more), text_scores(less), bound
        )
        assert check.p_pass == pytest.approx(0.95**count, rel=0.1)
        assert check.p_pass is not None
        assert (check.p_pass <= 0.05) == passes
        right = choice_rows([0, 1] * (count // 2)), choice_scores([0] * count), choice_scores([0] * count)
        _, (check,) = compared(task("MultipleChoice"), *right, {"metric": "t/accuracy", "minimum": 0.2, **TESTED})
        assert check.p_pass is not None
        assert check.p_pass < 0.001, "of rows that are right or wrong their spread tells it"


def test_a_share_of_nothing_is_unknown() -> None:
    rows = choice_rows([0] * 40)
    bound = {"metric": "t/accuracy", "maximumRelativeRegression": 0.02, "confidence": 0.95}
    _, (check,) = compared(task("MultipleChoice"), rows, choice_scores([0] * 40), choice_scores([1] * 40), bound)
    assert (check.estimate, check.p_pass, check.p_fail) == (None, None, None)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("damaged", ["target", "baseline"])
def test_a_likelihood_that_is_no_number_is_unknown_and_never_a_crash(damaged: str, value: float) -> None:
    rows, target, baseline = likelihoods()
    rows = [EvaluationRow(**{**vars(each), "group": "ab"[each.number % 2]}) for each in rows]
    (target if damaged == "target" else baseline)[7] = RowScore(7, log_likelihoods=(value,))
    bounds = {"maximum": 9.0, "maximumRegression": 0.1, "maximumGroupGap": 0.1, "confidence": 0.95}
    found, checks = compared(
        task("Perplexity", groupBy="group"), rows, target, baseline, {"metric": "t/perplexity", **bounds}
    )
    result = found.results[0]
    assert (result.change, result.change_low, result.change_high) == (None, None, None)
    known = {each.bound: each.estimate is not None for each in checks}
    of_target = damaged == "baseline"
    assert known == {"maximum": of_target, "maximumRegression": False, "maximumGroupGap": of_target}
    assert all(each.p_pass is None for each in checks if each.estimate is None)
    assert (result.value is None, result.baseline is None) == (damaged == "target", damaged == "baseline")
    assert (found.worst_losses if damaged == "target" else found.best_wins)[0].number == 7
    assert "NaN" not in found.model_dump_json()
    assert "Infinity" not in found.model_dump_json()


def test_a_damaged_classifier_has_no_figures_and_its_rows_are_counted() -> None:
    rows = choice_rows([0, 1, 2] * 10)
    scores = [RowScore(each.number, log_likelihoods=(math.nan,) * 3) for each in rows]
    bound = {"metric": "t/f1Macro", "minimum": 0.1, "confidence": 0.95}
    found, (check,) = compared(task("Classification"), rows, scores, choice_scores([0, 1, 2] * 10), bound)
    assert {each.value for each in found.results} == {None}
    assert check.estimate is None
    assert found.confusion is not None
    assert [each[-1] for each in found.confusion.target] == [10, 10, 10]
    assert found.confusion.per_label[0].f1 is None
    assert found.losses == 30


def test_a_macro_figure_is_not_tested_where_a_label_has_few_rows() -> None:
    bounds = [{"metric": f"t/f1{each}", "minimum": 0.5, "confidence": 0.95} for each in ("Macro", "Micro")]
    for rare in (0, 2, 5):
        answers = [0] * 60 + [1] * 60 + [2] * rare
        _, (macro, micro) = compared(
            task("Classification"), choice_rows(answers), choice_scores(answers), None, *bounds
        )
        assert macro.estimate == 1.0
        assert micro.p_pass is not None
        assert micro.p_pass < 0.05
        assert macro.p_pass is not None
        assert (macro.p_pass < 0.05) == (rare == 5)
        if rare < 5:
            assert (macro.p_pass, macro.p_fail, macro.rows_needed) == (1.0, 1.0, len(answers) * 5 // max(rare, 1))


def test_of_rare_labels_as_many_rows_are_asked_for_as_any_test_needs() -> None:
    answers = [0, 1, 2] * 3
    bound = {"metric": "t/f1Macro", "minimum": 0.5, "confidence": 0.95}
    _, (check,) = compared(task("Classification"), choice_rows(answers), choice_scores(answers), None, bound)
    assert check.rows_needed == 20, "fifteen would have five of each, and decide nothing"


def test_groups_of_every_figure_and_the_gap_of_the_bad_one() -> None:
    groups = ["core"] * 150 + ["apps"] * 150 + ["batch"] * 90 + ["rare"] * 10
    shares = np.array([0.9] * 300 + [0.5] * 90 + [0.9] * 10)
    chosen = [0 if each else 1 for each in np.random.default_rng(5).random(ROWS) < shares]
    rows = choice_rows([0] * ROWS, groups=groups)
    bound = {"metric": "t/accuracy", "maximumGroupGap": 0.1, "minimumGroupRows": 50, "confidence": 0.95}
    found, (check,) = compared(
        task("Classification", groupBy="group"), rows, choice_scores(chosen), choice_scores([0] * ROWS), bound
    )
    figures = [each.metric for each in found.results]
    rates = [each.metric for each in found.groups][len(figures) :]
    assert [each.metric for each in found.groups] == [*figures, *rates]
    assert rates
    assert all(each.startswith(("truePositiveRate of ", "falsePositiveRate of ")) for each in rates)
    accuracy = found.groups[0]
    assert [(each.name, each.rows) for each in accuracy.groups] == [
        ("apps", 150),
        ("batch", 90),
        ("core", 150),
        ("other", 10),
    ]
    assert accuracy.pooled == ["rare"]
    assert [each.baseline for each in accuracy.groups] == [1.0] * 4
    assert all(each.low is not None and each.high is not None for each in accuracy.groups)
    assert (check.bound, check.worst, check.p_pass) == ("maximumGroupGap", "batch", None)
    assert (check.estimate, check.low) == (accuracy.gap, accuracy.gap_low)
    assert check.low is not None
    assert check.estimate is not None
    assert 0.1 < check.low < check.estimate


def test_a_group_that_is_worse_than_in_the_baseline_is_found_though_the_whole_is_not() -> None:
    groups = ["core"] * 200 + ["apps"] * 150 + ["batch"] * 50
    random = np.random.default_rng(6).random(ROWS)
    before = [0 if each else 1 for each in random < 0.8]
    after = [0] * 350 + [1 if at % 2 else each for at, each in enumerate(before[350:])]
    rows = choice_rows([0] * ROWS, groups=groups)
    found, (whole, worst) = compared(
        task("Classification", groupBy="group"),
        rows,
        choice_scores(after),
        choice_scores(before),
        {"metric": "t/accuracy", "maximumRegression": 0.05, "maximumGroupRegression": 0.05, "confidence": 0.95},
    )
    assert found.results[0].change is not None
    assert found.results[0].change > 0
    assert (whole.bound, worst.bound, worst.worst) == ("maximumRegression", "maximumGroupRegression", "batch")
    assert whole.p_pass is not None
    assert worst.p_pass is not None
    assert worst.p_fail is not None
    assert worst.estimate is not None
    assert whole.p_pass < 0.01
    assert worst.p_pass > 0.9
    assert (worst.estimate > 0.2, worst.p_fail < 0.05) == (True, True)


def test_a_group_in_which_no_loss_was_seen_is_not_certain_because_other_groups_have_many_rows() -> None:
    """30 rows without a loss do not exclude one of 5 %, however many rows the whole has."""
    groups = ["core"] * 370 + ["apps"] * 30
    rows, right = choice_rows([0] * ROWS, groups=groups), choice_scores([0] * ROWS)
    bound = {"metric": "t/accuracy", "maximumGroupRegression": 0.05, "confidence": 0.95}
    _, (check,) = compared(task("Classification", groupBy="group"), rows, right, right, bound)
    assert check.p_pass is not None
    assert check.p_pass >= 0.95**30 > 0.05


def test_a_macro_figure_of_a_group_is_not_tested_where_a_label_has_few_rows_in_it() -> None:
    answers = ([0, 1, 2] * 100)[:298] + [0, 1] * 50 + [2] * 2
    groups = ["core"] * 298 + ["apps"] * 102
    scores = choice_scores(answers)
    _, checks = compared(
        task("Classification", groupBy="group"),
        choice_rows(answers, groups=groups),
        scores,
        scores,
        *({"metric": f"t/f1{each}", "maximumGroupRegression": 0.1, "confidence": 0.95} for each in ("Macro", "Micro")),
    )
    macro, micro = checks
    assert micro.p_pass is not None
    assert micro.p_pass < 0.05
    assert (macro.p_pass, macro.p_fail) == (1.0, 1.0)


def test_errors_that_are_small_on_one_side_alone_have_no_bound() -> None:
    """The range of a Harness metric is guessed from its values; sides that do not agree have none."""
    target = [RowScore(at, figures={"err": 0.1 + 0.001 * (at % 7)}) for at in range(40)]
    baseline = [RowScore(at, figures={"err": 2.0 + 0.001 * (at % 7)}) for at in range(40)]
    bound = {"metric": "t/err", "maximumRegression": 0.1, "confidence": 0.95}
    lower = {"err": True}
    rows = likelihood_rows([4] * 40)
    for ours, theirs in ((target, baseline), (baseline, [*baseline])):
        _, (check,) = compared(task("Harness"), rows, ours, theirs, bound, lower_is_better=lower)
        assert check.p_pass == pytest.approx(0.98**40)


def test_few_rows_that_are_very_bad_are_counted_where_the_mean_passes() -> None:
    rows, target, baseline = likelihoods(worse=-0.05)
    for number in range(30):
        target[number] = RowScore(number, log_likelihoods=(sum(baseline[number].log_likelihoods) * 1.6,))
    bounds = {"maximumWorseRatio": 0.05, "worseBy": 0.3, "confidence": 0.95}
    _, (check,) = compared(task("Perplexity"), rows, target, baseline, {"metric": "t/perplexity", **bounds})
    assert check.estimate is not None
    assert check.p_pass is not None
    assert 0.05 < check.estimate <= 30 / ROWS
    assert check.p_pass > 0.5


def test_groups_of_a_harness_task_are_told_as_those_of_every_other_task() -> None:
    groups = ["core"] * 150 + ["apps"] * 150 + ["batch"] * 90 + ["rare"] * 10
    shares = np.array([0.9] * 300 + [0.5] * 90 + [0.9] * 10)
    right = np.random.default_rng(5).random(ROWS) < shares
    rows = choice_rows([0] * ROWS, groups=groups)
    bound = {"maximumGroupGap": 0.1, "minimumGroupRows": 50, "confidence": 0.95}
    own, own_checks = compared(
        task("MultipleChoice", groupBy="group", metrics=["Accuracy"]),
        rows,
        choice_scores([0 if each else 1 for each in right]),
        choice_scores([0] * ROWS),
        {"metric": "t/accuracy", **bound},
    )
    harness, checks = compared(
        task("Harness", groupBy="group"),
        rows,
        [RowScore(at, figures={"acc": float(each)}) for at, each in enumerate(right)],
        [RowScore(at, figures={"acc": 1.0}) for at in range(ROWS)],
        {"metric": "t/acc", **bound},
        lower_is_better={"acc": False},
    )
    assert harness.groups == [own.groups[0].model_copy(update={"metric": "acc"})]
    assert checks == own_checks
    assert checks[0].low is not None
    assert checks[0].low > 0.1


def test_one_group_alone_has_no_gap_to_judge() -> None:
    rows = choice_rows([0] * 40, groups=["a"] * 40)
    bound = {"metric": "t/accuracy", "maximumGroupGap": 0.1}
    found, (check,) = compared(task("MultipleChoice", groupBy="group"), rows, choice_scores([0] * 40), None, bound)
    assert (check.estimate, check.low, found.groups[0].gap) == (None, None, None)
    assert found.groups[0].groups[0].value == 1.0


def test_the_confusion_matrix_counts_answers_that_are_no_label_last() -> None:
    texts = ["apple", "pear", "pear", "cherry", "plum", "plum"]
    rows = choice_rows([0, 0, 1, 1, 2, 2])
    asked = task("Classification", predictBy="Generation")
    found, _ = compared(asked, rows, text_scores(texts), text_scores(["apple"] * 6))
    assert found.confusion is not None
    assert found.confusion.labels == list(LABELS)
    assert found.confusion.target == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 2, 0]]
    assert found.confusion.baseline == [[2, 0, 0, 0], [2, 0, 0, 0], [2, 0, 0, 0]]
    pear = found.confusion.per_label[1]
    assert (pear.support, pear.precision, pear.recall, pear.f1) == (2, 0.5, 0.5, 0.5)


def test_wins_losses_and_examples_are_those_of_the_headline() -> None:
    references = ["one two three four"] * 4
    target = ["one two three four", "one two", "nothing", "one two three four"]
    baseline = ["nothing", "one two", "one two three four", "one"]
    found, _ = compared(task("Generation"), text_rows(references), text_scores(target), text_scores(baseline))
    assert (found.wins, found.losses, found.ties) == (2, 1, 1)
    assert [each.number for each in found.best_wins] == [0, 3]
    assert [each.number for each in found.worst_losses] == [2]
    loss = found.worst_losses[0]
    assert (loss.target, loss.baseline, loss.target_score, loss.baseline_score) == (
        "nothing",
        "one two three four",
        0.0,
        1.0,
    )
    assert loss.place == "rows.jsonl line 3"
    assert [each.number for each in found.worst] == [2, 1, 0, 3]


def test_examples_of_a_classification_are_ordered_by_how_wrong_they_are() -> None:
    rows = choice_rows([0] * 30)
    scores = [RowScore(at, log_likelihoods=(-1.0 - at, -0.5, -9.0)) for at in range(30)]
    found, _ = compared(task("Classification"), rows, scores, choice_scores([0] * 30))
    assert [each.number for each in found.worst_losses] == list(range(29, 19, -1))
    assert found.worst_losses[0].target == "pear (log-likelihood -0.500; of the right answer -30.000)"


def test_long_texts_are_cut() -> None:
    texts = ["x" * 5_000]
    found, _ = compared(task("Generation"), [row(0, prompt="y" * 5_000, reference="z" * 5_000)], text_scores(texts))
    example = found.worst[0]
    assert {len(example.prompt), len(example.reference), len(example.target)} == {EXAMPLE_CHARACTERS}
    assert example.target.endswith("\u2026")


def test_histograms_count_every_row_on_both_sides() -> None:
    rows, target, baseline = likelihoods()
    found, _ = compared(task("Perplexity"), rows, target, baseline)
    assert [each.figure for each in found.histograms] == ["nats per token", "bits per byte"]
    for each in found.histograms:
        assert each.baseline is not None
        assert len(each.edges) == len(each.target) + 1 == len(each.baseline) + 1
        assert (sum(each.target), sum(each.baseline)) == (ROWS, ROWS)
        assert each.edges == sorted(each.edges)


def test_a_histogram_of_rights_and_wrongs_has_two_bars_and_of_nothing_none() -> None:
    found, _ = compared(task("Classification"), choice_rows([0] * 4), choice_scores([0, 0, 0, 1]))
    rights = next(each for each in found.histograms if each.figure == "accuracy")
    assert (rights.edges, rights.target) == ([0.0, 0.5, 1.0], [1, 3])
    nothing, _ = compared(task("Regression"), [row(0, number_reference=1.0)], text_scores(["?"]))
    assert [each.figure for each in nothing.histograms] == ["unparsableRatio", "truncatedRatio", "tokensPerAnswer"]


def test_corpus_metrics_have_intervals_too() -> None:
    references = random_texts(60, 1)
    target = [each + " indeed" for each in references]
    found, _ = compared(task("Generation"), text_rows(references), text_scores(target), text_scores(references))
    for each in found.results:
        assert each.low is not None
        assert each.high is not None
        assert each.value is not None
        assert each.low <= each.value <= each.high
        assert each.change is not None
        assert each.change <= 0 or each.metric == "tokensPerAnswer"


def test_a_number_that_cannot_be_parsed_loses_against_one_that_can() -> None:
    rows = [row(at, number_reference=5.0) for at in range(3)]
    found, _ = compared(task("Regression"), rows, text_scores(["5", "?", "?"]), text_scores(["5", "99", "?"]))
    assert (found.wins, found.losses, found.ties) == (0, 1, 2)
    assert found.results[0].count == 3


@pytest.mark.parametrize("side", ["target", "baseline", "both"])
def test_an_error_of_a_few_parsable_answers_is_as_uncertain_as_they_are_few(side: str) -> None:
    rows = [row(at, number_reference=5.0) for at in range(ROWS)]
    numbers, few = ["5"] * ROWS, ["5"] * 30 + ["?"] * (ROWS - 30)
    target, baseline = (few if side in (each, "both") else numbers for each in ("target", "baseline"))
    bound = {"metric": "t/meanAbsoluteError", "maximumRegression": 0.5, **TESTED}
    _, (check,) = compared(task("Regression"), rows, text_scores(target), text_scores(baseline), bound)
    assert check.p_pass == pytest.approx(0.98**30)
    _, (check,) = compared(task("Regression"), rows, text_scores(numbers), text_scores(numbers), bound)
    assert check.p_pass == pytest.approx(0.98**ROWS)


def test_an_answer_of_very_many_digits_is_judged_and_no_crash() -> None:
    rows = [row(at, number_reference=5.0) for at in range(ROWS)]
    for digits in (60, 110, 160, 300):
        numbers, mad = ["5.1"] * ROWS, ["9" * digits] + ["7"] * (ROWS - 1)
        for metric in ("meanAbsoluteError", "meanSquaredError"):
            bound = {"metric": f"t/{metric}", "maximumRegression": 0.5, **TESTED}
            for target, baseline in ((mad, numbers), (numbers, mad), (mad, mad), (mad[::-1], mad)):
                _, checks = compared(task("Regression"), rows, text_scores(target), text_scores(baseline), bound)
                (found,) = judge_bounds([Threshold.model_validate(bound)], checks)
                assert (found.finding is Finding.KEPT) <= (target in (numbers, baseline)), (digits, metric)


@pytest.mark.parametrize("metric", ["bleu", "chrF"])
def test_one_long_text_among_short_ones_decides_nothing_alone(metric: str) -> None:
    random = np.random.default_rng(5)
    references = [" ".join(random.choice(["red", "blue", "green", "old", "new"], size)) for size in [4_000] + [6] * 99]
    texts = [references[0], *("grey " * 6 for _ in range(99))]
    bound = {"metric": f"t/{metric}", "minimum": 50.0, **TESTED}
    asked = task("Generation", metrics=["BLEU", "ChrF"])
    found, (check,) = compared(asked, text_rows(references), text_scores(texts), None, bound)
    assert next(each.value or 0 for each in found.results if each.metric == metric) > 80
    assert check.p_pass == 1.0


def test_a_harness_task_says_which_way_its_figures_are_better() -> None:
    rows = [row(at) for at in range(60)]
    target = [RowScore(at, figures={"word_perplexity": 5.0 + at, "acc": 1.0}) for at in range(60)]
    baseline = [RowScore(at, figures={"word_perplexity": 4.0 + at, "acc": 1.0}) for at in range(60)]
    bound = {"metric": "t/word_perplexity", "maximumRegression": 0.5, "confidence": 0.95}
    found, (check,) = compared(
        task("Harness"), rows, target, baseline, bound, lower_is_better={"acc": False, "word_perplexity": True}
    )
    assert [(each.metric, each.lower_is_better) for each in found.results] == [
        ("acc", False),
        ("word_perplexity", True),
    ]
    assert check.estimate == pytest.approx(1.0)
    assert check.p_pass == 1.0
    assert found.worst[0].target == "acc 1, word_perplexity 5"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a figure of another task": ({"metric": "u/accuracy", "minimum": 0.5}, "task t gives accuracy"),
    "a figure that it has not": ({"metric": "t/bleu", "minimum": 0.5}, "task t gives accuracy"),
    "a gap without groups": ({"metric": "t/accuracy", "maximumGroupGap": 0.5}, "needs groupBy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_thresholds_that_cannot_be_answered_are_refused(name: str) -> None:
    bound, message = REFUSED[name]
    with pytest.raises(SettingsInvalid, match=message) as refused:
        compared(task("MultipleChoice"), choice_rows([0] * 4), choice_scores([0] * 4), None, bound)
    assert refused.value.reason is Reason.METRIC_NOT_APPLICABLE


def test_a_regression_needs_a_baseline() -> None:
    bound = {"metric": "t/accuracy", "maximumRegression": 0.5}
    with pytest.raises(ValueError, match="needs a baseline"):
        compared(task("MultipleChoice"), choice_rows([0] * 4), choice_scores([0] * 4), None, bound)


def test_scores_of_no_row_are_no_baseline() -> None:
    with pytest.raises(ValueError, match="0 scores are not those of its 4 rows"):
        compared(task("MultipleChoice"), choice_rows([0] * 4), choice_scores([0] * 4), [])


def test_an_agreement_is_as_certain_as_its_own_rows_are_many() -> None:
    """The judge shares the people's judgement on all 30 of 600 rows that have one; 0.95 ** 600 would be nothing."""
    asked = task("Judge", judging={"instructions": "Prefer what is right."}, groupBy="kind")
    told = {"winRate": 0.5, "inconsistentRatio": 0.0, "unreadableRatio": 0.0}
    scores = [
        RowScore(at, text="a", tokens=1, figures=told | ({"agreement": 1.0} if at % 20 == 0 else {}))
        for at in range(600)
    ]
    rows = [row(at, group="even" if at % 2 == 0 else "odd") for at in range(600)]
    bound = Threshold(metric="t/agreement", minimum=0.95, confidence=0.95)
    found, checks = compare(asked, about(600), rows, scores, scores, [(0, bound)], seed=1, resamples=1_000)
    agreement = next(each for each in found.results if each.metric == "agreement")
    assert (agreement.value, agreement.count) == (1.0, 30)
    assert checks[0].p_pass == pytest.approx(0.95**30, abs=0.01)
    worse = Threshold(metric="t/agreement", maximum_worse_ratio=0.1)
    _, diluted = compare(asked, about(600), rows, scores, scores, [(0, worse)], seed=1, resamples=1_000)
    assert diluted[0].estimate is None, "of a share of some rows nothing is said of all"
    by_group = next(each for each in found.groups if each.metric == "agreement")
    assert {each.name: each.value for each in by_group.groups} == {"even": 1.0, "odd": None}


def releases(loss: float, count: int, seed: int = 3) -> tuple[list[EvaluationRow], list[list[RowScore]]]:
    """Return rows, and the scores of releases that each lose so many nats per token to the one before."""
    random = np.random.default_rng(seed)
    tokens = random.integers(20, 60, ROWS)
    first = -tokens * random.gamma(4, 0.3, ROWS)
    noise = [random.normal(0, 0.01, ROWS) for _ in range(count)]
    scores = [first - tokens * (number * loss + each) for number, each in enumerate(noise)]
    return likelihood_rows(tokens.tolist()), [likelihood_scores(each.tolist()) for each in scores]


def test_ten_releases_that_each_lose_one_percent_are_seen_by_the_anchor_alone() -> None:
    rows, all_of_them = releases(0.01, 10)
    given = [(0, Threshold.model_validate({"metric": "t/perplexity", "maximumRelativeRegression": 0.02, **TESTED}))]
    by_baseline, by_anchor = [], []
    for served, candidate in itertools.pairwise(all_of_them):
        asked = task("Perplexity")
        results, checks = compare(asked, about(len(rows)), rows, candidate, served, given, seed=17, resamples=1_000)
        by_baseline.append(judge_bounds([given[0][1]], checks)[0].finding)
        results, more = with_anchor(results, asked, rows, candidate, all_of_them[0], given, seed=17, resamples=1_000)
        *_, against = judge_bounds([given[0][1]], [*checks, *more], anchored=True)
        by_anchor.append(against.finding)
        shown = results.results[0]
        assert shown.anchor == pytest.approx(first := results.results[0].anchor)
        assert first is not None
        assert shown.value is not None
        assert shown.anchor_change == pytest.approx(shown.value - first)
    assert set(by_baseline) == {Finding.KEPT}, "no release is much worse than the one before"
    assert by_anchor[0] is Finding.KEPT
    assert set(by_anchor[2:]) == {Finding.MISSED}, "and all of them together are"


def test_what_is_held_against_one_of_two_alone_has_one_check() -> None:
    rows, (first, second) = releases(0.01, 2)
    bounds = {"maximumRegression": 1.0, "maximumWorseRatio": 0.5, "minimum": 0.0}
    for against, ours, theirs in (
        (None, {"maximumRegression", "maximumWorseRatio", "minimum"}, {"maximumRegression", "maximumWorseRatio"}),
        ("Baseline", {"maximumRegression", "maximumWorseRatio", "minimum"}, set()),
        ("Anchor", {"minimum"}, {"maximumRegression", "maximumWorseRatio"}),
    ):
        given = [(4, Threshold.model_validate({"metric": "t/perplexity", **bounds, "against": against}))]
        asked = task("Perplexity")
        results, checks = compare(asked, about(len(rows)), rows, second, first, given, seed=1, resamples=1_000)
        _, more = with_anchor(results, asked, rows, second, first, given, seed=1, resamples=1_000)
        assert {each.bound for each in checks} == ours
        assert {each.bound for each in more} == theirs
        assert {each.against for each in checks} == {Against.BASELINE}
        assert {each.against for each in more} <= {Against.ANCHOR}


SURE: dict[str, tuple[EvaluationTask, list[EvaluationRow], list[RowScore], dict[str, Any]]] = {
    "no share is below 0": (task("MultipleChoice"), choice_rows([0] * 3), choice_scores([1] * 3), {"minimum": 0}),
    "nor above 1": (task("MultipleChoice"), choice_rows([0] * 3), choice_scores([0] * 3), {"maximum": 1}),
    "nor is all of it lost twice": (
        task("MultipleChoice"), choice_rows([0] * 3), choice_scores([1] * 3), {"maximumRegression": 1}
    ),
    "nor more than all that there was": (
        task("MultipleChoice"), choice_rows([0] * 3), choice_scores([1] * 3), {"maximumRelativeRegression": 1}
    ),
    "of any group": (
        task("MultipleChoice", groupBy="g"), choice_rows([0] * 40, groups=["a", "b"] * 20), choice_scores([1] * 40),
        {"maximumGroupRegression": 1},
    ),
    "with labels that no row has": (
        task("Classification", metrics=["F1"]), choice_rows([0] * 3), choice_scores([1] * 3), {"minimum": 0}
    ),
    "no score is above a hundred": (
        task("Generation", metrics=["ChrF"]), text_rows(["a"] * 3), text_scores(["a"] * 3), {"maximum": 100}
    ),
    "no answer is longer than may be": (
        task("Generation", metrics=["TokensPerAnswer"], maxNewTokens=2), text_rows(["a"] * 3), text_scores(["a"] * 3),
        {"maximum": 2},
    ),
    "no perplexity is below 1": (
        task("Perplexity"), likelihood_rows([9] * 3), likelihood_scores([-9.0] * 3), {"minimum": 1}
    ),
    "no error is below 0": (
        task("Regression"), [row(at, number_reference=5.0) for at in range(3)], text_scores(["5"] * 3), {"minimum": 0}
    ),
}  # fmt: skip
"""Of too few rows for any test, all of which are alike."""


@pytest.mark.parametrize("name", SURE)
def test_a_bound_that_nothing_can_miss_is_kept(name: str) -> None:
    asked, rows, scores, bound = SURE[name]
    best = choice_scores([0] * len(rows)) if asked.type in ("MultipleChoice", "Classification") else scores
    metric = measures(asked, rows, scores)[0].results[0]
    given = {"metric": f"t/{metric}", **bound, **TESTED}
    _, (check,) = compared(asked, rows, scores, best, given)
    assert (check.p_pass, check.p_fail, check.rows_needed) == (0.0, 1.0, None)
    nearly = {name: value - 0.001 if name != "minimum" else value + 0.001 for name, value in bound.items()}
    _, (check,) = compared(asked, rows, scores, best, given | nearly)
    assert check.p_pass is not None
    assert check.p_pass > 0.05, "what can be missed needs rows"


def test_a_bound_that_nothing_can_miss_says_nothing_of_a_figure_that_is_not_known() -> None:
    rows, scores = choice_rows([0] * 30), [RowScore(at, log_likelihoods=(math.nan,) * 3) for at in range(30)]
    _, (check,) = compared(task("MultipleChoice"), rows, scores, None, {"metric": "t/accuracy", "minimum": 0, **TESTED})
    assert (check.estimate, check.p_pass) == (None, None)
