"""data.html: a team sees what is learned, what is dropped and why; nothing in the data is markup, nothing is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import browser
from tests.trainer.data_bench import DataBench, conversation, said
from tests.trainer.markup import CANARY, Page
from tests.trainer.test_data_cases import THINKING
from tests.trainer.test_data_selection import TEXT, distinct
from tests.trainer.tiny import make_tiny_model


@pytest.fixture
def page(tiny_model: Path, tmp_path: Path) -> Path:
    bench = DataBench(tiny_model, tmp_path)
    rows = [each | {"team": f"{CANARY}{n % 3}"} for n, each in enumerate(distinct(40))]
    rows += [said(f"{CANARY} a", f"{TEXT} {word}") for word in ("today", "now")]
    rows += [said("x", " "), rows[0], said("q", "word " * 200), conversation("Où est la boîte?", CANARY * 3)]
    bench.put("data/a.jsonl", rows)
    bench.dataset = {
        "test": {"fraction": 0.2},
        "cleaning": {"nearDuplicates": "Drop", "warnDropped": 0},
        "balance": {"column": "team"},
        "audit": {"columns": ["team"], "minimumShare": 0.4},
    }
    bench.prepare()
    (path,) = (info.path for info in bench.output.list("data/audits/") if info.path.endswith("data.html"))
    file = tmp_path / "data.html"
    file.write_bytes(bench.output.read(path))
    return file


def test_a_team_finds_what_is_learned_and_what_is_dropped_and_why(page: Path) -> None:
    text = Page.of(page.read_text()).text
    for words in (
        "46 rows were read, taken for Messages",
        "say nearly what another row says",
        "Kept: a.jsonl line 4",
        "repeat another row",
        "a.jsonl line 43",
        "are longer than a sequence",
        "By column team",
        "Training rows of small groups of team count more",
        "cleaning.nearDuplicates",
    ):
        assert words in text, words


def test_what_is_learned_is_marked_and_nothing_else(page: Path) -> None:
    written = page.read_text()
    marked = [part.partition("</mark>")[0] for part in written.split("<mark>")[1:]]
    assert len(marked) >= 8
    assert all(part.endswith("&lt;|im_end|&gt;") and "user" not in part for part in marked)
    assert written.count("<script") == 0
    assert CANARY not in written


@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_opens_it_without_an_error_a_request_or_a_word_outside(
    page: Path, tmp_path: Path, width: int
) -> None:
    seen = browser.opened(page, tmp_path, width)
    assert seen.complaints == ()
    assert seen.requests == ()
    assert seen.width == width


def test_no_more_is_dropped_than_was_read(tmp_path: Path) -> None:
    """Where one conversation is several sequences, each of them may be too long."""
    bench = DataBench(make_tiny_model(tmp_path / "model", chat_template=THINKING), tmp_path / "bench")
    thought = "<think>\n" + "so " * 60 + "\n</think>\n\n"
    turns = [text for n in range(6) for text in (f"question {n}", thought + f"answer {n}")]
    bench.put("data/a.jsonl", [*distinct(4), conversation(*turns)])
    bench.training = {"maxSequenceLength": 96}
    bench.prepare()
    (path,) = (info.path for info in bench.output.list("data/audits/") if info.path.endswith("data.html"))
    text = Page.of(bench.output.read(path).decode()).text
    assert "5 rows were read" in text
    assert "they are 10. 6 are dropped." in text
    assert "60 % of what was read" in text
