"""Answers to held-out rows on the report: which rows, what is asked, and nothing is lost where they cannot be had."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.data.view import load_view
from trimtab_trainer.errors import Interrupted
from trimtab_trainer.evaluate.asking import generation
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.reporting import answers
from trimtab_trainer.reporting.answers import ALL_TOO_LONG, NO_TEST_ROWS, answer_held_out, questions

from tests.trainer.markup import Page
from tests.trainer.tiny import CHATML, make_tiny_model, tiny_rows, write_rows

from .runs import adapted, random_rows, run_config, sequences, unpacked
from .stage import stage_run


def test_the_rows_are_spread_over_the_split_and_cut_at_their_last_answer() -> None:
    rows = random_rows(9, shortest=10, longest=10)
    found = questions(sequences([rows[:4], rows[4:]]))
    assert [question.prompt.tolist() for question in found] == [rows[index][:4] for index in (0, 3, 5, 8)]
    assert [question.reference.tolist() for question in found] == [rows[index][4:] for index in (0, 3, 5, 8)]


def test_of_a_conversation_the_last_turn_is_asked() -> None:
    split = unpacked([list(range(10, 22))])
    split.supervised[:] = [False, False, True, True, False, False, False, True, True, True, False, False]
    (question,) = questions(split)
    assert question.prompt.tolist() == list(range(10, 17))
    assert question.reference.tolist() == [17, 18, 19]


def test_of_a_text_the_second_half_is_asked() -> None:
    split = unpacked([list(range(10, 20))])
    split.supervised[:] = [False] + [True] * 9
    (question,) = questions(split)
    assert (len(question.prompt), len(question.reference)) == (5, 5)


def test_rows_that_ask_for_too_much_are_left_out(tiny: Path, tmp_path: Path) -> None:
    long = unpacked([[3] * 2000])
    long.supervised[:] = False
    long.supervised[1990:] = True
    assert questions(long) == []
    model = adapted(tiny, run_config(tmp_path))
    told = answer_held_out(model, tiny, long, stop=Interruption(), report=Report(stream=io.StringIO()))
    assert (told.answers, told.missing) == ((), ALL_TOO_LONG)
    told = answer_held_out(model, tiny, None, stop=Interruption(), report=Report(stream=io.StringIO()))
    assert (told.answers, told.missing) == ((), NO_TEST_ROWS)


def test_a_published_report_holds_the_answers_of_both(tmp_path: Path) -> None:
    run = stage_run(tmp_path)
    artifact, _ = run.train()
    page = (run.folder(artifact) / "report.html").read_text()
    assert page.count('<article class="example">') == 4
    assert "The row’s own answer" in page
    test = load_view(run.store, run.prepared.view_digest, tmp_path / "again").test
    assert test is not None
    rows = [json.loads(line) for line in (run.folder(artifact) / "splits/test.jsonl").read_text().splitlines()]
    said = [row["messages"][-1]["content"] for row in rows]
    assert sum(answer in page for answer in said) >= 4


def test_a_published_report_tells_what_became_of_the_data(tmp_path: Path) -> None:
    """What its rows told, too: that is not in the view, for it names files."""
    run = stage_run(tmp_path)
    rows = [row | {"source": "handbook"} for row in tiny_rows(40)]
    rows[0]["messages"][1]["content"] += " <|im_end|> ends a turn."
    write_rows(tmp_path / "train.jsonl", [*rows, *rows[:9]])
    run.prepared = prepare(run.config, tmp_path / "scratch-prepare-again", Report(stream=run.log)).prepared
    run.prepared = run.prepared.model_copy(update={"report_uri": None})  # as an operator gives it
    artifact, _ = run.train()
    page = Page.of((run.folder(artifact) / "report.html").read_text()).text
    for words in (
        "Columns that are ignored: source",
        "1 rows hold control tokens of the chat template in their text",
        "9 of 49 rows are dropped: 9 repeat another row (dataset.cleaning.warnDropped is 0.1)",
        "data: page of what is learned and dropped",
    ):
        assert words in page, words


def test_answers_end_as_the_chat_template_of_ones_own_ends_them(tmp_path: Path) -> None:
    """It may be given because the base model's cannot be used at all."""
    base = make_tiny_model(tmp_path / "own", chat_template="{{ raise_exception('of another version') }}")
    own = tmp_path / "own.jinja"
    own.write_text(CHATML.replace("+ '<|im_end|>'", "+ '<|endoftext|>'"))
    ends: list[frozenset[int]] = []
    whole = generation.generate

    def remember(*arguments: Any, **more: Any) -> Any:
        ends.append(arguments[4])
        return whole(*arguments, **more)

    model, split = adapted(base, run_config(tmp_path)), sequences([random_rows(2)])
    log = Report(stream=io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "generate", remember)
        told = answer_held_out(model, base, split, chat_template=own, stop=Interruption(), report=log)
    assert told.missing == ""
    assert set(ends) == {frozenset({0, 2})}


def test_what_cannot_be_answered_costs_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no cache for <this> kind of layer\nand more")

    monkeypatch.setattr(answers, "generate", broken)
    run = stage_run(tmp_path)
    artifact, summary = run.train()
    assert summary.test_loss is not None
    page = (run.folder(artifact) / "report.html").read_text()
    assert "The test rows could not be asked (RuntimeError: no cache for &lt;this&gt; kind of layer)." in page
    assert '"level": "warning"' in run.log.getvalue()
    assert "held-out rows were not answered" in run.log.getvalue()


def test_a_signal_while_they_are_answered_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Interruption()

    def told_meanwhile(*_: Any, **__: Any) -> Any:
        stop.request()
        stop.check()

    monkeypatch.setattr(answers, "generate", told_meanwhile)
    run = stage_run(tmp_path)
    with pytest.raises(Interrupted):
        run.train(stop=stop)


def test_a_slow_machine_writes_shorter_answers(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 3.0])
    monkeypatch.setattr(answers, "MOST_TOKENS", 64)
    monkeypatch.setattr(answers, "monotonic", lambda: next(seconds))
    model = adapted(tiny, run_config(tmp_path))
    split = sequences([random_rows(2)])
    told = answer_held_out(model, tiny, split, stop=Interruption(), report=Report(stream=io.StringIO()))
    assert told.missing == ""
    assert told.tokens == 10
