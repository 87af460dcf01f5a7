"""What becomes of rows: each step of the cleaning by its switch, counted, warned of and refused above a share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.contract import Reason, RunConfig
from trimtab_trainer.data.cleaning import steps
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.training.batches import IGNORED, Batches

from tests.trainer.data_bench import DataBench, conversation, said

WORDS = [f"w{number:x}" for number in range(4000)]


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path) -> DataBench:
    return DataBench(tiny_model, tmp_path)


def distinct(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return rows that have no three words in common."""
    return [said(f"what is {WORDS[n]}", " ".join(WORDS[n * 8 : n * 8 + 8])) for n in range(start, start + count)]


def test_most_rows_too_long_is_a_warning_with_the_length_to_raise_it_to(bench: DataBench) -> None:
    long = [said(f"q {n}", " ".join(["word"] * 40) + f" {WORDS[n]}") for n in range(60)]
    bench.put("data/a.jsonl", [*distinct(4), *long])
    bench.training = {"maxSequenceLength": 128}
    outcome = bench.prepare()
    assert (outcome.prepared.rows, outcome.prepared.dropped) == (4, 60)
    (warning,) = outcome.warnings
    assert warning.startswith("60 of 64 rows are dropped: 60 are longer than training.maxSequenceLength = 128 tokens (")
    longest = max(bench_lengths(bench))
    assert f"raise it to {longest} to keep them whole" in warning
    bench.training = {"maxSequenceLength": longest}
    assert bench.prepare().warnings == ()


@pytest.mark.parametrize("too_long", ["Drop", "Truncate"])
def test_a_row_of_a_whole_book_is_dropped_with_a_word(
    bench: DataBench, monkeypatch: pytest.MonkeyPatch, too_long: str
) -> None:
    monkeypatch.setattr(steps, "MOST_CHARACTERS", 1000)
    bench.put("data/a.jsonl", [*distinct(20), said("a book", "word " * 300)])
    bench.dataset = {"cleaning": {"tooLong": too_long}}
    outcome = bench.prepare()
    assert (outcome.prepared.rows, outcome.prepared.dropped) == (20, 1)
    (warning,) = outcome.warnings
    assert warning == "1 rows have more than 4,194,304 characters, and are dropped whatever tooLong says; split them"
    page = next(bench.folder.rglob("data.html")).read_text()
    assert "have more than 4,194,304 characters" in page
    bench.dataset["cleaning"]["maximumDropped"] = 0
    with pytest.raises(DataInvalid, match="1 of 21 rows are dropped: 1 have more than 4,194,304 characters; that is"):
        bench.prepare()


def bench_lengths(bench: DataBench) -> list[int]:
    """Return the tokens of each row."""
    wide = DataBench(
        bench.base, bench.folder, training={"maxSequenceLength": 512, "packing": False}, runs=bench.runs + 50
    )
    return [int(length) for length in np.diff(wide.view(wide.prepare()).train.offsets)]


def test_a_row_of_many_answers_is_cut_behind_the_last_one_that_fits(bench: DataBench) -> None:
    turns = [f"{('question', 'answer')[n % 2]} {n} of many" for n in range(40)]
    bench.put("data/a.jsonl", [conversation(*turns), *distinct(2)])
    bench.training = {"maxSequenceLength": 256, "packing": False}
    assert bench.prepare().prepared.rows == 2
    bench.dataset = {"cleaning": {"tooLong": "Truncate"}}
    outcome = bench.prepare()
    assert (outcome.prepared.rows, outcome.prepared.dropped) == (3, 0)
    assert outcome.warnings[0].startswith("1 rows are cut behind the last answer that fits into")
    train = bench.view(outcome).train
    cut = max(range(len(train)), key=lambda n: len(train[n][0]))
    tokens, _, supervised = train[cut]
    assert 200 < len(tokens) <= 256
    assert supervised[-1], "the cut is behind an answer"
    whole = conversation(*turns[: 2 * int((np.diff(supervised.astype(int)) == 1).sum())])
    alone = DataBench(bench.base, bench.folder / "alone", training=bench.training)
    alone.put("data/a.jsonl", [whole])
    expected = alone.view(alone.prepare()).train[0]
    # Alone the conversation ends with the blank behind its end-of-turn token, which is not learned.
    assert tokens.tolist() == expected[0][: len(tokens)].tolist()
    assert supervised.tolist() == expected[2][: len(tokens)].tolist()
    assert not expected[2][len(tokens) :].any()


@pytest.mark.parametrize("loss_on", ["Completions", "LastTurn", "AllTokens"])
def test_the_audit_counts_what_is_used(bench: DataBench, loss_on: str) -> None:
    turns = [f"{('question', 'answer')[n % 2]} {n} of many" for n in range(40)]
    bench.put("data/a.jsonl", [conversation(*turns), *distinct(9), conversation("a b", "c d", "e f", "g h i")])
    bench.dataset = {"test": {"fraction": 0.2}, "cleaning": {"tooLong": "Truncate", "warnDropped": 1}}
    bench.training = {"lossOn": loss_on}
    summary, audit = bench.summary(bench.prepare()), bench.audit()
    for side, figures in audit["sides"].items():
        for name in ("rows", "tokens", "supervisedTokens"):
            assert figures[name] == summary[side][name], (side, name)
        assert figures["longest"] <= 256
    assert sum(figures["tokens"] for figures in audit["groups"]["language"]) == sum(
        figures["tokens"] for figures in audit["sides"].values()
    )


def test_a_row_whose_first_answer_does_not_fit_is_dropped(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [said("q", "word " * 200), *distinct(9)])
    bench.dataset = {"cleaning": {"tooLong": "Truncate"}}
    outcome = bench.prepare()
    assert (outcome.prepared.rows, outcome.prepared.dropped) == (9, 1)


TEXT = "The quick brown fox jumps over the lazy dog and runs on through the field to the river bank"
STEPS: dict[str, tuple[list[dict[str, Any]], str, dict[str, int]]] = {
    "exactDuplicates": ([said("a", "b c d"), said("a", "b c d")], "duplicate", {"Drop": 11, "Keep": 12}),
    "nearDuplicates": (
        [said("a", TEXT), said("a", TEXT + " today")],
        "nearDuplicate",
        {"Drop": 11, "KeepTogether": 12, "Keep": 12},
    ),
    "blankTurns": ([conversation("a", " ", "b", "c d"), said("x", "y z")], "blank", {"Drop": 11, "Keep": 12}),
    "invalidText": ([said("a", "b\ufffdc"), said("a", "b\x07 c")], "invalid", {"Drop": 10, "Keep": 12}),
}


@pytest.mark.parametrize(
    ("step", "switch"), [(step, switch) for step, (_, _, ways) in STEPS.items() for switch in ways]
)
def test_each_step_is_switched_and_counted(bench: DataBench, step: str, switch: str) -> None:
    rows, reason, kept = STEPS[step]
    bench.put("data/a.jsonl", [*distinct(10), *rows])
    bench.dataset = {"cleaning": {step: switch}}
    outcome = bench.prepare()
    assert outcome.prepared.rows == kept[switch]
    assert outcome.prepared.dropped == 12 - kept[switch]
    counts = {name: each["count"] for name, each in bench.findings(outcome)["training"].items() if name == reason}
    counts |= bench.summary(outcome)["droppedFor"]
    found = 12 - kept[switch] if reason != "invalid" else 2
    assert counts.get(reason, 0) == found


def test_invalid_text_may_be_refused_by_file_and_line(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [*distinct(2), said("a", "b\ufffdc")])
    bench.dataset = {"cleaning": {"invalidText": "Refuse"}}
    with pytest.raises(DataInvalid, match=r"a\.jsonl line 3 has replacement or control characters"):
        bench.prepare()
    bench.put("data/a.jsonl", [said("a", "\\u0007 and \\b are written, not meant; tabs\tand\nends are fine")])
    assert bench.prepare().prepared.rows == 1


def test_training_rows_that_evaluations_ask_are_dropped(bench: DataBench) -> None:
    asked = distinct(5, start=100)
    inside = said(
        "Please help: " + asked[0]["messages"][0]["content"], asked[0]["messages"][1]["content"] + " and more"
    )
    bench.put("data/a.jsonl", [*distinct(20), inside, asked[1], said("short", "yes")])
    uri = bench.put("asked/a.jsonl", [*asked, {"prompt": "short", "reference": "yes"}])
    bench.dataset = {"cleaning": {"evaluationData": [uri], "warnDropped": 0.05}}
    outcome = bench.prepare()
    assert outcome.prepared.rows == 20
    assert bench.summary(outcome)["droppedFor"]["askedInEvaluations"] == 3
    assert outcome.warnings == (
        "3 of 23 rows are dropped: 3 hold what Evaluations ask (dataset.cleaning.warnDropped is 0.05)",
    )
    bench.put("asked/a.jsonl", distinct(1, start=300))
    assert bench.prepare().prepared.rows == 23, "other data, another view"


ASKED: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "ShareGPT": lambda question, answer: {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    },
    "Alpaca": lambda question, answer: {"instruction": question, "input": "", "output": answer},
    "messages that are text": lambda question, answer: {"messages": json.dumps(said(question, answer)["messages"])},
}


@pytest.mark.parametrize("name", ASKED)
def test_rows_that_will_be_asked_are_known_in_each_format(bench: DataBench, name: str) -> None:
    bench.put("data/a.jsonl", distinct(20))
    asked = [[turn["content"] for turn in row["messages"]] for row in distinct(5)]
    uri = bench.put("asked/a.jsonl", [ASKED[name](*turns) for turns in asked])
    bench.dataset = {"cleaning": {"evaluationData": [uri]}}
    assert bench.summary(bench.prepare())["droppedFor"]["askedInEvaluations"] == 5


def test_rows_that_say_what_held_out_rows_say_are_dropped_or_kept(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [*distinct(10), said("a", TEXT)])
    bench.dataset = {"test": {"uri": bench.put("test/a.jsonl", [said("a", TEXT + " now"), *distinct(2, start=50)])}}
    outcome = bench.prepare()
    assert (outcome.prepared.rows, outcome.prepared.test_rows, outcome.prepared.dropped) == (10, 3, 1)
    bench.dataset["cleaning"] = {"overlap": "Keep"}
    assert bench.prepare().prepared.rows == 11
    bench.dataset["cleaning"] = {"nearDuplicates": "Keep"}
    assert bench.prepare().prepared.rows == 11


def test_too_much_that_is_dropped_is_refused_before_anything_is_trained(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [*distinct(8), *[said("a", "b c d")] * 4])
    bench.dataset = {"cleaning": {"maximumDropped": 0.2}}
    with pytest.raises(DataInvalid) as caught:
        bench.prepare()
    assert caught.value.reason is Reason.DATASET_INVALID
    assert caught.value.message == (
        "3 of 12 rows are dropped: 3 repeat another row; that is more than dataset.cleaning.maximumDropped = 0.2: "
        "correct the data, or raise it"
    )
    bench.dataset = {"cleaning": {"maximumDropped": 0.25}}
    assert bench.prepare().prepared.rows == 9


def test_groups_stay_together_by_any_column(bench: DataBench) -> None:
    rows = [each | {"customer": f"c{n // 10}"} for n, each in enumerate(distinct(200))]
    bench.put("data/a.jsonl", rows)
    bench.dataset = {"test": {"fraction": 0.3}, "groupBy": "customer"}
    outcome = bench.prepare()
    held_out = bench.view(outcome).test_rows
    assert held_out is not None
    written = held_out.read_text()
    groups = {f"c{n}": sum(f'"group":"c{n}"' in line for line in written.splitlines()) for n in range(20)}
    assert set(groups.values()) == {0, 10}
    assert "customer" not in str(outcome.warnings)


def test_labels_are_on_all_sides_where_they_stratify(bench: DataBench) -> None:
    rows = [
        said(f"what is {WORDS[n]} {WORDS[n + 500]}", label, label=label) for n, label in enumerate(["yes", "no"] * 100)
    ]
    bench.put("data/a.jsonl", rows)
    bench.dataset = {"test": {"fraction": 0.1}, "stratifyBy": "label"}
    outcome = bench.prepare()
    held_out = bench.view(outcome).test_rows
    assert held_out is not None
    lines = held_out.read_text().splitlines()
    assert (len(lines), sum('"yes"' in line for line in lines)) == (20, 10)


def test_small_groups_are_repeated_and_the_manifest_says_so(bench: DataBench) -> None:
    rows = [each | {"kind": "rare" if n < 10 else "common"} for n, each in enumerate(distinct(50))]
    bench.put("data/a.jsonl", rows)
    bench.dataset = {"balance": {"column": "kind", "by": "Repeat", "maximum": 2.5}}
    outcome = bench.prepare()
    assert outcome.prepared.rows == 40 + 25
    assert bench.summary(outcome)["balance"] == {
        "column": "kind",
        "by": "Repeat",
        "maximum": 2.5,
        "groups": [
            {"value": "common", "rows": 40, "factor": 1.0, "rowsAfter": 40},
            {"value": "rare", "rows": 10, "factor": 2.5, "rowsAfter": 25},
        ],
    }


def test_small_groups_may_weigh_more_in_the_loss_instead(bench: DataBench) -> None:
    rows = [each | {"kind": "rare" if n < 10 else "common"} for n, each in enumerate(distinct(50))]
    bench.put("data/a.jsonl", rows)
    bench.dataset = {"balance": {"column": "kind", "by": "Weight"}}
    outcome = bench.prepare()
    assert outcome.prepared.rows == 50
    train = bench.view(outcome).train
    assert train.weights is not None
    batches = Batches(train)
    assert batches.weights is not None
    learned = {1.0: 0, 4.0: 0}
    for weight in learned:
        learned[weight] = int((batches.weights[batches.targets != IGNORED] == weight).sum())
    assert sum(learned.values()) == outcome.prepared.supervised_tokens
    assert batches.counted.sum() == learned[1.0] + 4 * learned[4.0]
    rare = [row for row, each in enumerate(train.weights) if each == 4.0]
    starts = np.flatnonzero(train.positions == 0)
    ends = np.append(starts[1:], len(train.tokens))
    text = RowTokenizer(bench.base).text
    wanted = {" ".join(WORDS[n * 8 : n * 8 + 8]) for n in range(10)}
    assert {text(train.tokens[starts[row] : ends[row]]).rpartition("assistant\n")[2][:-11] for row in rare} == wanted
    micro = batches.lay(np.arange(len(train)), torch.device("cpu"))
    assert micro.weights is not None
    assert float(micro.weights[micro.targets != IGNORED].sum()) == batches.counted.sum()


def test_groups_below_a_share_are_named(bench: DataBench) -> None:
    kinds = ["a"] * 90 + ["b"] * 9 + ["c"]
    bench.put("data/a.jsonl", [each | {"kind": kind} for each, kind in zip(distinct(100), kinds, strict=True)])
    bench.dataset = {"audit": {"columns": ["kind"], "minimumShare": 0.1}}
    outcome = bench.prepare()
    assert outcome.warnings == ("2 of 3 groups of the column kind have less than 10 % of the rows: b, c",)
    found = {group["value"]: (group["rows"], group["share"]) for group in bench.audit()["groups"]["column kind"]}
    assert found == {"a": (90, 0.9), "b": (9, 0.09), "c": (1, 0.01)}
    bench.dataset = {"audit": {"columns": ["kind"], "minimumShare": 0.05}}
    assert bench.prepare().warnings == ("1 of 3 groups of the column kind have less than 5 % of the rows: c",)


@pytest.mark.parametrize(
    ("setting", "dataset"),
    [
        ("groupBy", {"groupBy": "kid"}),
        ("stratifyBy", {"stratifyBy": "kid"}),
        ("balance.column", {"balance": {"column": "kid"}}),
    ],
)
def test_a_column_that_no_row_has_is_refused_where_something_goes_by_it(
    bench: DataBench, setting: str, dataset: dict[str, Any]
) -> None:
    """Else customers that groupBy should keep on one side would be on both, for a letter."""
    bench.put("data/a.jsonl", [each | {"kind": "a"} for each in distinct(20)])
    bench.dataset = {"test": {"fraction": 0.2}, **dataset}
    with pytest.raises(DataInvalid, match=f"^no row has a value in the column kid, which dataset.{setting} names"):
        bench.prepare()
    bench.dataset = {"audit": {"columns": ["kid", "kind"]}}
    assert "no row has a value in the column kid, which dataset.audit.columns names" in bench.prepare().warnings


def test_a_column_with_a_value_for_every_row_is_no_column_of_groups(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [said(f"q {n}", f"a {n}", id=n) for n in range(1001)])
    bench.dataset = {"audit": {"columns": ["id"]}}
    with pytest.raises(DataInvalid, match="the column id has more than 1000 values"):
        bench.prepare()


SAME: dict[str, Callable[[list[dict[str, Any]]], dict[str, list[dict[str, Any]]]]] = {
    "backwards": lambda rows: {"data/a.jsonl": rows[::-1]},
    "in three files": lambda rows: {f"data/{n}.jsonl": rows[n::3] for n in range(3)},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_are_the_same_view_whatever_their_order_and_their_files(
    bench: DataBench, tmp_path: Path, name: str
) -> None:
    rows = [each | {"kind": f"k{n % 3}"} for n, each in enumerate(distinct(150))]
    rows += [said("a", f"{TEXT} {WORDS[n]}", kind="k1") for n in range(5)] + rows[:3]
    other = DataBench(bench.base, tmp_path / "other")
    for each in (bench, other):
        each.dataset = {
            "validation": {"fraction": 0.1},
            "test": {"fraction": 0.2},
            "stratifyBy": "kind",
            "cleaning": {"nearDuplicates": "Drop"},
            "balance": {"column": "kind"},
        }
    bench.put("data/a.jsonl", rows)
    for path, part in SAME[name](rows).items():
        other.put(path, part)
    first, second = bench.prepare(), other.prepare()
    assert first.prepared.view_digest == second.prepared.view_digest
    assert first.prepared.rows_digest != second.prepared.rows_digest
    prefix = "data/views/"
    assert {info.path for info in bench.output.list(prefix)} == {info.path for info in other.output.list(prefix)}
    for info in bench.output.list(prefix):
        assert bench.output.read(info.path) == other.output.read(info.path), info.path


def test_settings_that_are_absent_are_not_in_the_configuration(bench: DataBench) -> None:
    written = bench.config.to_json()["dataset"]
    assert not {"cleaning", "balance", "audit", "groupBy", "stratifyBy"} & set(written)
    bench.dataset = {"cleaning": {"similarity": 0.5}}
    with pytest.raises(ValueError, match="similarity"):
        RunConfig.model_validate(bench.config.to_json())
