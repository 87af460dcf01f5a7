"""The report of a run: all of it is there, nothing of the data becomes markup, and it needs nothing but itself."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab_trainer.reporting.curves import Series, line_chart
from trimtab_trainer.reporting.page import ANSWER_CHARACTERS, HeldOut, HeldOutAnswer, charts, render

from tests import browser
from tests.trainer.markup import CANARY, Page

from .records import DIGEST, figures, record

LARGEST_PAGE = 400_000


def test_a_team_finds_what_it_asks() -> None:
    text = Page.of(render(record())).text
    for words in (
        "Run field-guide-v3",
        "trained on 4,321 rows for 600 of 600 steps. Published are the weights of step 450.",
        "Loss on held-out test rows 0.920 base model alone 2.710",
        "Loss, nats per supervised token 2.710 0.920 −1.790",
        "Perplexity 15.00 2.510 −12.49",
        "Test 87 29 26,100 8,700 2",
        "13 rows were left out by cleaning, 4 for being as good as a held-out row.",
        "4,100 clusters of rows are trained on.",
        "Columns that are ignored: b, team-a",
        "3 rows hold control tokens",
        "training.learningRate 0.0002",
        "dataset.training.uri s3://data/field-guide/",
        "Time in training steps 6 min 52 s",
        "Accelerator seconds 412",
        "0.0500 kWh, 437 W on average",
        "Most memory 12.1 GiB",
        f"adapter {DIGEST}",
        "torch team-a",
        "With adapter (nothing)",
    ):
        assert words in text, words


def test_every_curve_is_drawn_and_can_be_heard() -> None:
    found = charts(record())
    assert [(chart.title, [each.name for each in chart.series]) for chart in found] == [
        ("Loss, nats per supervised token", ["training", "validation"]),
        ("Learning rate", ["learning rate"]),
        ("Gradient norm, before clipping", ["gradient norm"]),
        ("Tokens per second", ["tokens per second"]),
        ("Most memory so far, GiB", ["memory"]),
    ]
    page = Page.of(render(record()))
    assert page.first_inside["svg"] == ["title"] * 5
    assert {each.get("role") for each in page.all("svg")} == {"img"}
    assert (
        "validation: 1.971 at step 50, 0.901 at step 600; lowest 0.901 at step 600, highest 1.971 at step 50"
        in page.text
    )
    peak = max(rate for _, rate in found[1].series[0].points)
    assert peak == pytest.approx(2e-4, rel=0.01)


def test_points_lie_where_their_figures_say() -> None:
    drawn = str(line_chart("Loss", [Series("is-target", "training", ((0, 1.0), (50, 3.0), (100, 2.0)))]))
    line = re.search(r'class="line is-target" d="M([^"]+)"', drawn)
    assert line is not None
    places = [tuple(map(float, place.split())) for place in line[1].split("L")]
    (left, low), (middle, high), (right, between) = places
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert low > between > high, "more is higher up"
    assert low - between == pytest.approx(between - high, abs=0.2)


def test_nothing_of_the_data_becomes_markup() -> None:
    page = Page.of(render(record(CANARY)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in Page.of(render(record())).elements]
    assert page.text.count("<script>alert('canary')</script>") >= 8
    assert page.all("script") == page.all("img") == []


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_text_gives_a_page_of_the_same_structure(text: str) -> None:
    rendered = render(record(text))
    rendered.encode()
    assert [tag for tag, _ in Page.of(rendered).elements] == [tag for tag, _ in Page.of(render(record())).elements]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", rendered)


def test_the_page_tells_what_each_of_several_processes_used() -> None:
    ranks = [{"device": "NVIDIA L4", "memoryPeakBytes": 17 << 30}, {"device": "NVIDIA L4", "memoryPeakBytes": 16 << 30}]
    machine = {"device": "NVIDIA L4", "accelerators": 2, "worldSize": 2, "threads": 4, "ranks": ranks}
    text = Page.of(render(record(figures=figures(machine=machine)))).text
    assert "Most memory of rank 0 17.0 GiB, NVIDIA L4" in text
    assert "Most memory of rank 1 16.0 GiB, NVIDIA L4" in text
    assert "worldSize 2" in text
    assert "memoryPeakBytes" not in text


def test_the_page_needs_nothing_but_itself_and_names_no_path_of_the_machine() -> None:
    text = render(record())
    page = Page.of(text)
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= {*policy.split("; ")}
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("href", "src")
    ]
    assert all(address and address.startswith(("#", "data:")) for address in addresses)
    assert "url(" not in text
    assert "/home/me" not in text
    assert "/run/keys" not in text
    places = [each["id"] for _, each in page.elements if "id" in each]
    assert {each["href"] for each in page.all("a")} == {f"#{place}" for place in places}


def test_what_was_not_measured_is_said() -> None:
    nothing: dict[str, Any] = {
        **dict.fromkeys(("validationLoss", "testLoss", "baseTestLoss", "testPerplexity", "baseTestPerplexity")),
        "trainingLoss": math.nan,
        "tokensPerSecond": None,
        "curve": [{"step": 1, "loss": 2.0}],
        "evaluations": [],
        "cost": {
            "trainingSeconds": 0.0,
            "accelerators": 0,
            "acceleratorSeconds": 0.0,
            "joules": None,
            "memoryBytes": None,
        },
    }
    missing = HeldOut(missing="No test rows were held out, so none was asked.")
    bare = record(figures=figures(**nothing), held_out=missing, data={"test": {"rows": 0}, "controlTokens": {}})
    page = Page.of(render(bare))
    assert "No test rows were held out, so it was not measured on any." in page.text
    assert missing.missing in page.text
    assert "Energy of the accelerator not told by this machine" in page.text
    assert "Accelerators none; NVIDIA H100 80GB HBM3, 8 threads" in page.text
    assert "Gradient norm, before clipping not measured" in page.text
    assert "training: 2.000 at step 1" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**53), st.floats()), max_size=8))
def test_no_figures_break_a_chart(points: list[tuple[int, float]]) -> None:
    ascending = tuple(sorted(dict(points).items()))
    drawn = str(line_chart("Loss", [Series("is-target", "training", ascending)], published=5))
    assert "nan" not in drawn.replace("inance", "")
    assert "inf" not in drawn


def test_the_longest_answers_and_curves_stay_small() -> None:
    curve = [
        {"step": 20_000 * n, "loss": 1 / n, "gradient_norm": 1 / n, "tokens_per_second": 1e5 / n, "memory": n << 30}
        for n in range(1, 501)
    ]
    evaluations = [{"step": 10_000 * n, "loss": 1 / n} for n in range(1, 2_001)]
    answer = HeldOutAnswer(*("<" * 100_000,) * 4)
    text = render(
        record(
            figures=figures(curve=curve, evaluations=evaluations, totalSteps=10_000_000),
            held_out=HeldOut((answer,) * 4, 64),
            data={"ignoredColumns": {f"{n:0200}": 1 for n in range(5_000)}},
        )
    )
    assert len(text) < LARGEST_PAGE
    assert f"({100_000 - ANSWER_CHARACTERS:,} characters more)" in text
    assert "and 4,950 more" in text


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("text", ["team-a", CANARY])
def test_a_browser_opens_it_without_an_error_a_request_or_a_word_outside(tmp_path: Path, width: int, text: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(record(text)))
    seen = browser.opened(file, tmp_path, width)
    assert seen.complaints == ()
    assert seen.requests == ()
    assert seen.width == width
