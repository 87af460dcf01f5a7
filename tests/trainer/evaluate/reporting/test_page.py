"""The report: nothing of the data becomes markup, every figure is there or "not measured", and it stays small."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape
from trimtab_operator.domain.evaluation.verdict import judge as operators_verdict
from trimtab_trainer.contract import Check, EvaluationOutcome, Precision, Result, TaskType, Threshold
from trimtab_trainer.contract.gate.verdict import judge
from trimtab_trainer.contract.outcome import PACKED_OUTCOME_BYTES
from trimtab_trainer.evaluate.reporting import wording
from trimtab_trainer.evaluate.reporting.confusion_table import LABELS, confusions, matrix_of
from trimtab_trainer.evaluate.reporting.outcome_store import publish
from trimtab_trainer.evaluate.reporting.page import render
from trimtab_trainer.evaluate.results import (
    Confusion,
    EvaluatedModel,
    EvaluationResults,
    Example,
    GroupFigure,
    Histogram,
    LabelFigure,
    MetricByGroup,
    OtherTrained,
    TaskResults,
)
from trimtab_trainer.pages.wording import figure
from trimtab_trainer.storage import open_store

from tests import browser
from tests.trainer.markup import CANARY, Page

DIGEST = "sha256:" + "0123456789abcdef" * 4
LARGEST_PAGE = 3_000_000
ORDINARY_PAGE = 700_000


def result(task: str, metric: str = "accuracy", **more: Any) -> Result:
    figures: dict[str, Any] = {"value": 0.812, "low": 0.79, "high": 0.834, "count": 480}
    return Result(task=task, metric=metric, **{**figures, **more})


def compared(task: str, metric: str = "accuracy", **more: Any) -> Result:
    change = {"baseline": 0.62, "change": 0.192, "change_low": 0.15, "change_high": 0.23}
    return result(task, metric, **{**change, **more})


def groups(count: int, metric: str = "accuracy") -> MetricByGroup:
    figures = [
        GroupFigure(name=f"group-{n:03}", rows=50, value=n / count, low=n / count - 0.05, high=n / count + 0.05)
        for n in range(count)
    ]
    return MetricByGroup(
        metric=metric, groups=figures, pooled=["tiny"], gap=0.9, gap_low=0.4, worst="group-000", best=figures[-1].name
    )


def example(text: str) -> Example:
    return Example(
        number=3,
        place=text,
        prompt=text,
        reference=text,
        target=text,
        baseline=text,
        target_score=0.1,
        baseline_score=1,
    )


def task(name: str = "kinds", text: str = "plain", **more: Any) -> TaskResults:
    whole: dict[str, Any] = {
        "name": name,
        "type": TaskType.CLASSIFICATION,
        "digest": DIGEST,
        "rows": 480,
        "clusters": 470,
        "trained_on": 4,
        "compared": ["answers", "groups"],
        "dropped": 12,
        "results": [compared(name)],
        "groups": [
            MetricByGroup(
                metric=text,
                groups=[GroupFigure(name=text, rows=40, value=0.5, low=0.4, high=0.6, baseline=0.3)],
                pooled=[text],
                gap=0.3,
                gap_low=0.1,
                worst=text,
                best=text,
            )
        ],
        "confusion": Confusion(
            labels=[text, "b"],
            target=[[30, 5, 1], [4, 40, 0]],
            baseline=[[10, 25, 1], [24, 20, 0]],
            per_label=[LabelFigure(label=text, support=36, precision=0.8, recall=0.9)],
        ),
        "histograms": [Histogram(figure=text, edges=[0.0, 0.5, 1.0], target=[3, 4], baseline=[5, 2])],
        "wins": 110,
        "losses": 20,
        "ties": 350,
        "best_wins": [example(text)],
        "worst_losses": [example(text)],
        "worst": [example(text)],
    }
    return TaskResults(**{**whole, **more})


def results(*tasks: TaskResults, text: str = "plain", **more: Any) -> EvaluationResults:
    whole: dict[str, Any] = {
        "digest": DIGEST,
        "name": text,
        "namespace": text,
        "base_model": EvaluatedModel(uri=text, digest=DIGEST, label=text),
        "target": EvaluatedModel(uri=text, digest=DIGEST, label=text),
        "baseline": EvaluatedModel(uri=text, digest=DIGEST, label=text),
        "precision": Precision.AS_TRAINED,
        "seed": 17,
        "resamples": 10_000,
        "tasks": list(tasks),
        "thresholds": [
            Threshold(metric="kinds/accuracy", minimum=0.8, maximum_regression=0.02, confidence=0.95),
            Threshold(metric="kinds/accuracy", maximum_group_gap=0.1),
        ],
        "checks": [
            Check(threshold=0, bound="minimum", estimate=0.812, p_pass=0.13, p_fail=0.86, rows_needed=4321),
            Check(threshold=0, bound="maximumRegression", estimate=-0.192, p_pass=0.00001, p_fail=1.0),
            Check(threshold=1, bound="maximumGroupGap", estimate=0.3, low=0.1234, worst=text, best=text),
        ],
        "lineage": {text: {text: [text]}, "machine": {"device": text}, "nothing": None},
    }
    return EvaluationResults(**{**whole, **more})


def test_the_words_are_those_of_what_the_operator_is_told(tmp_path: Path) -> None:
    """Fifty tasks do not fit into a termination message, so the operator does not know how many rows the last had."""
    random, names = np.random.default_rng(3), [f"task-{at}" for at in range(50)]
    some = [
        task(name, results=[compared(name, value=random.random(), low=random.random(), count=400 + at)])
        for at, name in enumerate(names)
    ]
    limits: list[Any] = [
        Threshold(metric=f"{name}/accuracy", minimum=0.5, maximum_regression=0.05, confidence=0.95)
        for name in names[-32:]
    ]
    checks = [
        Check(
            threshold=at,
            bound=bound,
            estimate=0.9 if bound == "minimum" else random.random() / 100,
            p_pass=random.random() / 1000 if at < 31 else 0.2,
            p_fail=0.3 + random.random() / 2,
            rows_needed=int(random.integers(500, 90_000)),
            clusters=int(random.integers(20, 400)),
        )
        for at in range(32)
        for bound in ("minimum", "maximumRegression")
    ]
    pages = list[str]()

    def page(outcome: EvaluationOutcome) -> str:
        pages.append(render(found, outcome))
        return pages[-1]

    found = results(*some, thresholds=limits, checks=checks)
    stored = publish(open_store(f"file://{tmp_path}", None), found, page)
    told = judge(limits, EvaluationOutcome.unpack(stored.pack(PACKED_OUTCOME_BYTES)))
    assert told.reason == "InsufficientRows"
    assert told.message != judge(limits, stored).message, "something was left out"
    assert told.message in Page.of(pages[0]).text


def test_no_text_of_the_data_becomes_markup() -> None:
    page = Page.of(render(results(task(text=CANARY), text=CANARY)))
    plain = Page.of(render(results(task())))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.all("script") == page.all("img") == []
    # Each place shows the text as it is: name, labels, groups, histogram, examples, lineage.
    assert page.text.count(" ".join(CANARY.split())) >= 40
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_gives_a_page_of_the_same_structure(text: str) -> None:
    rendered = render(results(task(text=text), text=text))
    rendered.encode()
    assert [tag for tag, _ in Page.of(rendered).elements] == [
        tag for tag, _ in Page.of(render(results(task()))).elements
    ]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", rendered)


def test_the_page_needs_nothing_but_itself() -> None:
    page = Page.of(render(results(task())))
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= {*policy.split("; ")}
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("href", "src")
    ]
    assert addresses
    assert all(address and address.startswith(("#", "data:")) for address in addresses)
    assert "url(" not in render(results(task()))


def test_tables_and_pictures_can_be_heard() -> None:
    page = Page.of(render(results(task())))
    assert len(page.all("table")) >= 7
    assert page.first_inside["table"] == ["caption"] * len(page.all("table"))
    assert {each.get("scope") for each in page.all("th")} == {"row", "col"}
    assert page.first_inside["svg"] == ["title"] * len(page.all("svg"))
    assert {each.get("role") for each in page.all("svg")} == {"img"}
    assert page.first_inside["details"] == ["summary"] * len(page.all("details"))


def test_every_link_and_label_has_its_place() -> None:
    page = Page.of(render(results(task("one"), task("two"))))
    places = [each["id"] for _, each in page.elements if "id" in each]
    assert len(places) == len(set(places))
    wanted = {each["href"] for each in page.all("a")} | {f"#{each['aria-labelledby']}" for each in page.all("section")}
    assert wanted == {f"#{place}" for place in places}


def test_what_was_found_is_said() -> None:
    text = Page.of(render(results(task()))).text
    for words in (
        "at least 0.8 undecided 0.812 within 95 % 0.13 0.86 – 4,321",
        "at most 0.02 worse than the baseline kept 0.192 better within 95 % < 0.0001 1.00",
        "at most 0.1 between the best and the worst group missed gap 0.300 at least 0.123 beyond 95 %",
        "0.812 0.790 to 0.834",
        "+0.192 better +0.150 to +0.230",
        "480 rows in 470 clusters",
        "4 of them are among what the target was trained on, by answer or group; by prompt and text it was not checked",
        "12 were dropped beforehand",
        "better in 110, equal in 350, worse in 20",
        "At least 0.100 of it is more than sampling noise.",
        "plain taken for b (5)",
        "resamples 10,000",
        DIGEST,
        "0123456789ab",
        "condition Passed in the status",
    ):
        assert words in text


@pytest.mark.parametrize("trained_on", [0, 4])
@pytest.mark.parametrize("compared", [[], ["answers", "groups"], ["prompts", "texts"]])
@pytest.mark.parametrize("looks", [0, 2])
def test_what_the_rows_are_is_a_sentence(trained_on: int, compared: list[str], looks: int) -> None:
    page = render(results(task(trained_on=trained_on, compared=compared, looks=looks)))
    text = re.sub("<[^>]*>", "", page)
    sentence = text[text.index("the rows of a cluster") : text.index("were dropped beforehand")]
    assert not re.search(r"\s;|;\S", sentence), sentence


@pytest.mark.parametrize(
    ("trained_on", "compared", "words"),
    [
        (0, [], "whether the target was trained on any of them was not checked"),
        (
            0,
            ["answers"],
            "none of them is among what the target was trained on, by answer; by prompt and text",
        ),
        (
            0,
            ["answers", "prompts", "texts"],
            "none of them is among what the target was trained on, by answer, prompt",
        ),
        (1, ["prompts", "texts"], "1 of them is among what the target was trained on, by prompt or text;"),
    ],
)
def test_that_none_was_trained_on_is_said_of_what_was_checked(trained_on: int, compared: list[str], words: str) -> None:
    others = [OtherTrained(role="baseline", trained_on=0, compared=["answers"])]
    text = Page.of(render(results(task(trained_on=trained_on, compared=compared, others=others)))).text
    assert words in text
    assert ("not checked; none" in text) == ("texts" not in compared), "what was checked is not said to be unknown"
    assert "none of them is among what the baseline was trained on, by answer; by prompt and text" in text


def test_without_a_baseline_nothing_is_compared() -> None:
    confusion = Confusion(labels=["a", "b"], target=[[3, 0, 0], [0, 4, 0]])
    alone = task(
        results=[result("kinds")],
        confusion=confusion,
        histograms=[Histogram(figure="accuracy", edges=[0.0, 1.0], target=[7])],
        best_wins=[],
        worst_losses=[],
        worst=[Example(number=0, place="a.jsonl line 1", prompt="p", reference="r", target="t")],
        wins=0,
        losses=0,
        ties=0,
    )
    page = Page.of(render(results(alone, baseline=None, thresholds=[], checks=[])))
    assert "none: nothing is compared" in page.text
    assert "Change" not in page.text
    assert "Confusion matrix of the baseline" not in page.text
    assert [each["href"] for each in page.all("a")] == ["#figures", "#task-1", "#lineage"]


@pytest.mark.parametrize("hole", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_not_measured(hole: float | None) -> None:
    figures = dict.fromkeys(("value", "low", "high", "baseline", "change", "change_low", "change_high"), hole)
    nothing = GroupFigure(name="empty", rows=0, value=hole, low=hole, high=hole, baseline=hole)
    empty = task(
        results=[result("kinds", "accuracy", **figures)],
        groups=[MetricByGroup(metric="accuracy", groups=[nothing], gap=hole, gap_low=hole)],
        confusion=Confusion(
            labels=["a", "b"],
            target=[[0, 0, 0], [0, 0, 0]],
            per_label=[LabelFigure(label="a", support=0, precision=hole, recall=hole, f1=hole)],
        ),
        histograms=[Histogram(figure="nats", edges=[hole or 0.0, 1.0], target=[0])],
        worst=[example("x").model_copy(update={"target_score": hole})],
    )
    check = Check(threshold=0, bound="minimum", estimate=hole, p_pass=hole, p_fail=hole)
    text = Page.of(render(results(empty, checks=[check]))).text
    assert "at least 0.8 not known not measured not measured 95 %" in text
    assert "kinds/accuracy not measured not measured" in text
    assert "empty 0 not measured not measured not measured" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


EDGE = st.one_of(st.none(), st.floats())


@settings(max_examples=200, deadline=None)
@example_of([0.0, 5e-324, None, None, 1e308, -1e308, 0.0], [0.0, 0.0, 5e-324])
@example_of([1e16, 1e16, 1e16, 1e16, 1e16, 1e16, 1e16], [-1e308, 0.0, 1e308])
@given(st.lists(EDGE, min_size=7, max_size=7), st.lists(st.floats(), min_size=3, max_size=3))
def test_no_figures_break_it(figures: list[float | None], edges: list[float]) -> None:
    names = ("value", "low", "high", "baseline", "change", "change_low", "change_high")
    sizes = dict(zip(names, figures, strict=True))
    group = GroupFigure(name="g", rows=1, value=figures[0], low=figures[1], high=figures[2], baseline=figures[3])
    other = GroupFigure(name="h", rows=1, value=figures[4], low=figures[5], high=figures[6])
    whole = task(
        results=[result("kinds", "perplexity", lower_is_better=True, **sizes)],
        groups=[MetricByGroup(metric="perplexity", groups=[group, other], gap=figures[0], gap_low=figures[1])],
        histograms=[Histogram(figure="nats", edges=edges, target=[1, 2])],
    )
    checks = [Check(threshold=1, bound="maximumGroupGap", estimate=figures[0], low=figures[1])]
    rendered = render(results(whole, checks=checks))
    Page.of(rendered)
    assert not re.search(r"\b(nan|None|inf)\b", rendered)


def test_equal_results_give_equal_bytes() -> None:
    first = results(task("one"), task("two"))
    again = EvaluationResults.model_validate_json(first.model_dump_json())
    assert render(first) == render(again) == render(first)


def test_fifty_tasks_with_five_hundred_groups_each_stay_small() -> None:
    prompt = "What is this field for? " * 100
    metrics = ("accuracy", "f1Macro", "f1Micro", "precisionMacro", "recallMacro")
    tasks = [
        task(
            f"task-{number:02}",
            results=[compared(f"task-{number:02}", metric) for metric in metrics],
            groups=[groups(500, metric) for metric in metrics],
            best_wins=[example(prompt)] * 10,
            worst_losses=[example(prompt)] * 10,
            worst=[example(prompt)] * 10,
        )
        for number in range(50)
    ]
    rendered = render(results(*tasks))
    assert len(rendered.encode()) < LARGEST_PAGE
    page = Page.of(rendered)
    assert "470 groups in between are in results.json only" in page.text
    assert "group-000 50 0.0000 " in page.text
    assert "group-499 50 0.998" in page.text
    assert all("open" not in each for each in page.all("details") if each.get("class") == "task")


def test_fifty_tasks_with_five_hundred_groups_in_all_are_quickly_loaded() -> None:
    tasks = [task(f"task-{number:02}", groups=[groups(10)]) for number in range(50)]
    assert len(render(results(*tasks)).encode()) < ORDINARY_PAGE


def test_groups_stand_worst_first_in_the_direction_of_the_metric() -> None:
    figures = [GroupFigure(name=name, rows=40, value=value) for name, value in (("b", 2.0), ("a", 1.0), ("c", 3.0))]
    figures.insert(0, GroupFigure(name="unknown", rows=40))
    lower, higher = (
        task(groups=[MetricByGroup(metric="perplexity", groups=figures, lower_is_better=less)])
        for less in (True, False)
    )

    def order(task: TaskResults) -> list[str]:
        table = Page.of(render(results(task))).text.partition("groups as a table")[2]
        return re.findall(r"\b(unknown|a|b|c) 40\b", table)

    assert order(lower) == ["c", "b", "a", "unknown"]
    assert order(higher) == ["a", "b", "c", "unknown"]


def test_a_bound_that_was_not_checked_is_not_measured() -> None:
    assert "at least 0.8 not known not measured" in Page.of(render(results(task(), checks=[]))).text


def test_many_labels_are_pooled() -> None:
    count = 50
    labels = [f"l{n}" for n in range(count)]
    counts = [[0] * (count + 1) for _ in labels]
    for index in range(count):
        counts[index][index] = 100 - index
        counts[index][(index + 1) % count] += 2
        counts[index][count] = 1
    matrix = matrix_of(labels, counts)
    assert matrix.columns == (*labels[:LABELS], "30 other labels", "no label")
    assert sum(cell.count for line in matrix.lines for cell in line.cells) == sum(map(sum, counts))
    assert [line.rows for line in matrix.lines[:2]] == [103, 102]
    assert [cell.right for cell in matrix.lines[-1].cells] == [False] * (LABELS + 2)
    assert sum(cell.share or 0 for cell in matrix.lines[3].cells) == pytest.approx(1)
    assert confusions(labels, counts)[0] == ("l0", "l1", 2)
    assert confusions(["a"], [[3, 4]]) == (("a", "no label", 4),)


FIGURES = {
    "0.8124": (0.8124, "0.812"),
    "a perplexity": (20.181, "20.18"),
    "a small share": (0.02134, "0.0213"),
    "thousands": (123456.7, "123,457"),
    "below zero": (-0.0213, "−0.0213"),
    "nothing": (0.0, "0"),
    "very small": (1.5e-9, "1.500e−09"),
    "very large": (2.5e12, "2.500e+12"),
}


@pytest.mark.parametrize(("value", "want"), FIGURES.values(), ids=FIGURES)
def test_figures_are_as_long_as_they_say_something(value: float, want: str) -> None:
    assert figure(value) == want


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "want"),
    [
        (0.1, 0.2, False, "better"),
        (0.1, 0.2, True, "worse"),
        (-0.2, -0.1, False, "worse"),
        (-0.2, -0.1, True, "better"),
        (-0.1, 0.1, False, "no clear difference"),
        (0.0, 0.1, False, "no clear difference"),
        (None, 0.1, False, "not measured"),
    ],
)
def test_a_difference_is_clear_where_its_interval_is(
    low: float | None, high: float | None, lower_is_better: bool, want: str
) -> None:
    assert wording.difference(low, high, lower_is_better) == want


def test_an_adapter_is_called_by_its_digest() -> None:
    adapter = EvaluatedModel(digest=DIGEST, label="0123456789ab")
    base = EvaluatedModel(digest=DIGEST, label="base model")
    text = Page.of(render(results(task(), target=adapter, baseline=base))).text
    assert "The adapter 0123456789ab compared with the base model, on the same rows: 1 task, 480 rows" in text
    assert wording.called(EvaluatedModel(label="base model")) == "base model"


def test_a_relative_regression_is_per_cent() -> None:
    threshold = Threshold(metric="heldout/perplexity", maximum_relative_regression=0.05)
    check = Check(threshold=0, bound="maximumRelativeRegression", estimate=0.061)
    assert wording.limit(threshold, check.bound) == "at most 5 % worse than the baseline"
    assert wording.found(check) == "6.1 % worse"
    assert wording.against_limit(check, threshold) == "beyond"


@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_opens_it_without_an_error_a_request_or_a_word_outside(tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(results(task(), task("two"), text=CANARY)))
    seen = browser.opened(file, tmp_path, width)
    assert seen.complaints == ()
    assert seen.requests == ()
    assert seen.width == width


def judged(value: float) -> EvaluationResults:
    threshold = Threshold.model_validate({"metric": "kinds/accuracy", "minimum": 0.7})
    check = Check.model_validate({"threshold": 0, "bound": "minimum", "estimate": value})
    return results(task()).model_copy(update={"thresholds": [threshold], "checks": [check]})


@pytest.mark.parametrize(("value", "words"), [(0.8, "Passed"), (0.6, "Not passed")])
def test_the_page_says_the_verdict_by_the_operators_own_rule(value: float, words: str) -> None:
    found = judged(value)
    theirs = operators_verdict(
        found.thresholds,
        EvaluationOutcome.unpack(
            EvaluationOutcome(report_uri="", results_digest=DIGEST, rows=480, checks=found.checks).pack(3_000)
        ),
    )
    page = render(found)
    assert f"<strong>{words}</strong> ({theirs.reason.value})" in page
    assert theirs.passed is (words == "Passed")
    assert str(escape(theirs.message)) in page
