"""The page of a search: all of it is there, nothing of the data becomes markup, and it needs nothing but itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_trainer.contract.sweeps.record import RecordedObjective, RecordedTrial, SweepRecord
from trimtab_trainer.contract.sweeps.settings import Direction, SweepParameter
from trimtab_trainer.sweep.axes import Axis, axis_of, label, whole
from trimtab_trainer.sweep.charts import Judged, parallel_chart, slice_chart, value_chart, value_scale
from trimtab_trainer.sweep.page import render

from tests import browser
from tests.trainer.markup import CANARY, Page

from .records import MODELS, record, trials

LARGEST_PAGE = 400_000


def trial(number: int, value: float | None, **parameters: Any) -> RecordedTrial:
    state = "Complete" if value is not None else "Bad"
    return RecordedTrial(id=f"{number:08x}", parameters=parameters, state=state, value=value)


def search(*values: float | None, **changes: Any) -> SweepRecord:
    return SweepRecord(trials=[trial(n, value, x=n) for n, value in enumerate(values)], **changes)


def test_a_team_finds_what_it_asks() -> None:
    text = Page.of(render(record(folds=5))).text
    best = record().ranked[0]
    for words in (
        "Sweep field-guide",
        "40 trials over 3 parameters, chosen by TPE, judged by validationLoss , of which less is better: "
        "the mean of 5 folds. The search has ended: maxTrials = 40 were begun .",
        "Best validationLoss 1.221 standard error 0.0400, trial 19",
        "40 32 done, 5 pruned, 3 no value",
        "Accelerator time 2 h 27 min",
        f"The best trial, {best.id}",
        'baseModel {"uri": "s3://models/smollm2-135m-instruct"}',
        "Importance: training.learningRate 86 %, lora.rank 10 %, baseModel 4 %",
        "validationLoss by training.learningRate",
        "a parabola is drawn through them",
        "Validation loss of 37 trials over their steps",
        "Training loss of 37 trials over their steps",
        f"{best.id} 19 1.221 0.0400 0.0006804 32 smollm2-135m-instruct done 240",
        "OutOfMemory",
    ):
        assert words in text, words


def test_a_trial_that_is_alone_was_not_chosen_among_many() -> None:
    page = Page.of(render(record(1)))
    assert "1 trial over 3 parameters" in page.text
    assert "too good by chance" not in page.text
    assert "Training loss of 1 trial over its steps" in page.text
    assert "1.0" not in Page.of(value_chart(Judged.of(record(1)))).text.split(), "trials are counted in whole numbers"


def test_trials_that_were_all_stopped_have_values_and_none_is_the_best() -> None:
    stopped = [each.model_copy(update={"state": "Pruned", "value": 2.0, "reason": None}) for each in trials(9)]
    text = Page.of(render(record(9, trials=stopped))).text
    assert "No trial was trained to its end, so none is the best" in text
    assert "there is nothing to compare" not in text


def test_the_winner_of_a_final_is_named_before_the_best_by_the_search() -> None:
    won = record().ranked[2]
    text = Page.of(render(record(winner=won.id))).text
    assert f"{won.id} , has won the final, on rows that no trial has seen." in text
    assert "validationLoss of the winner 1." in text
    assert "too good by chance" not in text


def test_whoever_points_at_a_trial_reads_all_of_it() -> None:
    made = record(12)
    judged = Judged.of(made)
    assert judged.best is not None
    said = judged.words(judged.best)
    assert said.endswith("; ".join(f"{name} {whole(value)}" for name, value in judged.best.parameters.items()))
    text = Page.of(render(made)).text
    assert text.count(said) == 7, "values, parallel coordinates, three slices, two learning curves"


@pytest.mark.parametrize(("direction", "good"), [(Direction.MINIMIZE, 0), (Direction.MAXIMIZE, 3)])
def test_better_is_what_the_objective_says(direction: Direction, good: int) -> None:
    made = search(1.0, 2.0, None, 3.0, objective=RecordedObjective(direction=direction))
    assert Judged.of(made).best == made.trials[good]
    assert f"the best is {made.trials[good].value:.3f}" in Page.of(value_chart(Judged.of(made))).text


def test_a_pruned_trial_is_grey_and_never_the_best() -> None:
    pruned = trial(9, 0.1, x=9).model_copy(update={"state": "Pruned"})
    made = search(1.0, 2.0).model_copy(update={"trials": [pruned, *search(1.0, 2.0).trials]})
    judged = Judged.of(made)
    assert judged.best is not None
    assert judged.best.value == 1.0
    assert judged.kind(pruned) == "is-pruned"
    told = trial(9, 0.1, x=9).model_copy(update={"state": "Bad", "reason": "Pruned"})
    assert Judged.of(made.model_copy(update={"trials": [told]})).best is None


def test_a_trial_that_was_pruned_or_waits_without_a_value_did_not_fail() -> None:
    states = ("Pruned", "Paused", "Running", "Bad")
    bare = [trial(n, None, x=n).model_copy(update={"state": state}) for n, state in enumerate(states, 9)]
    made = search(1.0, 2.0).model_copy(update={"trials": [*search(1.0, 2.0).trials, *bare]})
    page = Page.of(render(made))
    crosses = [each for each in page.all("path") if each.get("class") == "cross"]
    assert len(crosses) == 1, "of the bad one"
    assert "2 done, 1 no value, 1 paused, 1 pruned, 1 running" in page.text


def test_what_is_far_worse_stands_at_the_edge_and_is_counted() -> None:
    found = value_scale(search(1.0, 1.1, 1.2, 1.05, 1.15, 900.0), 100, 0)
    assert found is not None
    scale, far = found
    assert (far, scale.high < 2, scale(900.0)) == (1, True, "0")
    assert "1 far worse value stands at the edge." in Page.of(render(search(1.0, 1.1, 1.2, 1.05, 1.15, 900.0))).text
    upward = search(1.0, 1.1, 1.2, 1.05, 1.15, 900.0, objective=RecordedObjective(direction=Direction.MAXIMIZE))
    found = value_scale(upward, 100, 0)
    assert found is not None
    assert found[1] == 0, "far better is no reason to hide anything"


def test_nothing_is_drawn_of_nothing() -> None:
    for made in (search(), search(None), search(None, None, ended="TrialsFailed")):
        page = render(made)
        assert "No trial has a value" in page
        assert not Page.of(page).all("svg")
    assert not slice_chart(Judged.of(search(1.0)), Axis("other"))
    assert not parallel_chart(Judged.of(search(1.0)), [])
    assert "Not measured" in Page.of(render(search(1.0))).text


@pytest.mark.parametrize(
    ("values", "log", "ends"),
    [
        ([float(2**n) for n in range(14)], True, (1.0, 8192.0)),
        ([float(n) for n in range(14)], False, (0.0, 13.0)),
    ],
)
def test_what_nobody_declared_is_known_by_its_values(values: list[float], log: bool, ends: tuple[float, float]) -> None:
    axis = axis_of("x", None, values)
    assert (axis.log, axis.low, axis.high) == (log, *ends)
    assert [axis.at(each) for each in ends] == [0.0, 1.0]


def test_numbers_of_a_list_stand_in_their_order_and_words_in_that_of_the_list() -> None:
    numbers = axis_of("lora.rank", SweepParameter(name="lora.rank", values=[16, 4, 8]), [8])
    assert [words for _, words, _ in numbers.marks] == ["4", "8", "16"]
    words = axis_of("x", SweepParameter(name="x", values=["b", "a", True, None, {"k": 1}]), [])
    assert [mark for _, mark, _ in words.marks] == ["b", "a", "true", "null", '{"k": 1}']
    assert axis_of("x", None, [True, False]).places is not None, "true is no 1"


def test_a_section_is_shortened_to_what_tells_it_apart() -> None:
    assert [label(each) for each in MODELS] == ["smollm2-135m-in…", "of-a-very-long-…"]
    assert (label({"uri": "s3://models/a/"}), label(0.0003), label([1, 2])) == ("a", "0.0003", "[1, 2]")


def test_equal_searches_give_equal_bytes() -> None:
    assert render(record()) == render(record())


def test_two_hundred_trials_make_a_page_that_can_be_sent() -> None:
    assert len(render(record(200)).encode()) < 600_000
    assert len(render(record(40)).encode()) < LARGEST_PAGE


def test_nothing_of_the_data_becomes_markup() -> None:
    page = Page.of(render(record(12, CANARY)))
    assert not page.all("script") + page.all("img")
    assert "alert('canary')" in page.text


FIGURES = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.just(-0.0))
VALUES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text(max_size=20), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FIGURES, st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2)), max_size=20))
def test_whatever_was_measured_there_is_a_page(told: list[tuple[float | None, dict[str, Any]]]) -> None:
    made = SweepRecord(trials=[trial(n, value, **parameters) for n, (value, parameters) in enumerate(told)])
    page = render(made)
    Page.of(page)
    for word in (">nan<", "Infinity", ">None<", "M nan", "inf "):
        assert word not in page


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("text", [None, f"{'W' * 60} {CANARY}"])
def test_a_browser_opens_it_without_an_error_a_request_or_a_word_outside(
    tmp_path: Path, width: int, text: str | None
) -> None:
    file = tmp_path / "sweep.html"
    file.write_text(render(record(24, text)))
    seen = browser.opened(file, tmp_path, width, dark=text is not None)
    assert seen.complaints == ()
    assert seen.requests == ()
    assert seen.width == width


def test_a_curve_of_one_point_and_of_values_that_are_all_the_same_is_drawn() -> None:
    made = trials(3)
    flat = made[0].curve
    assert flat is not None
    one = flat.model_copy(update={"steps": (1,), "loss": (1.0,), "validation_steps": (), "validation_loss": ()})
    html = render(SweepRecord(trials=[made[0].model_copy(update={"curve": one})]))
    curves = html[html.index("Training loss of 1 trial") :].partition("</svg>")[0]
    assert 'class="point is-best"' in curves, "a dot that is large enough to be seen"
    page = Page.of(html)
    assert "Training loss of 1 trial over its steps" in page.text
    assert "Validation loss of" not in page.text
    assert math.isfinite(made[0].value or 0.0)
