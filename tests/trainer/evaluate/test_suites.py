"""Suites of our own: the same rows everywhere, each with one right answer, and a gate on the worst of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import Threshold
from trimtab_trainer.evaluate.comparison import compare
from trimtab_trainer.evaluate.rows import RowScore
from trimtab_trainer.evaluate.suites import forgetting

from tests.trainer.evaluate.bench import EvaluationBench
from tests.trainer.evaluate.scored import about

BYTES = "872cdc1307e08ee2c3f53960dd0cada69b865eee11b65ee25e73a6921d1ffec1"


def test_the_rows_are_these() -> None:
    assert hashlib.sha256(forgetting.text().encode()).hexdigest() == BYTES, "other rows are another VERSION"
    rows = forgetting.rows()
    assert Counter(row["suite"] for row in rows) == dict.fromkeys(forgetting.SUITES, forgetting.ROWS)
    assert set(Counter(row["answer"] for row in rows).values()) == {len(rows) // 4}, "no place is better than another"
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert len({row["question"] for row in rows}) == len(rows)


def worked_out(question: str) -> int:
    one, word, other = question.removeprefix("What is ").rstrip("?").split()
    a, b = int(one), int(other)
    return {"plus": a + b, "minus": a - b, "times": a * b}[word]


def following(question: str) -> int:
    *_, before, last = (int(each) for each in question.partition(": ")[2].rstrip("?").split(", "))
    return 2 * last - before


RIGHT = {"arithmetic": worked_out, "series": following}


@pytest.mark.parametrize("suite", RIGHT)
def test_what_can_be_worked_out_is_right(suite: str) -> None:
    rows = [row for row in forgetting.rows() if row["suite"] == suite]
    assert all(row["choices"][row["answer"]] == str(RIGHT[suite](row["question"])) for row in rows)


def test_it_is_written_where_evaluations_read_it(
    bench: EvaluationBench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suite", "forgetting", "--to", (tmp_path / "suites").as_uri()]) == 0
    told = capsys.readouterr().out
    assert "960 rows of 8 suites, version 1" in told
    assert BYTES in told
    dataset = {"uri": (tmp_path / "suites/forgetting.jsonl").as_uri()}
    bench.task("MultipleChoice", dataset=dataset, groupBy="suite")
    bench.document["tasks"][0]["dataset"] = dataset
    (made,) = bench.tasks().tasks
    assert (made.rows, made.dropped) == (960, 0)
    assert made.clusters > 900, "hardly two of them say the same"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["suite", "forgetting", "--to", (tmp_path / "file" / "below").as_uri()]) != 0
    assert capsys.readouterr().err


def scores(forgotten: dict[str, float], rows: list[Any]) -> list[RowScore]:
    """Return scores that are right, but for the first share of a suite."""
    seen, found = Counter[str](), []
    for row in rows:
        suite = str(row.group)
        seen[suite] += 1
        right = seen[suite] > forgotten.get(suite, 0.0) * forgetting.ROWS
        likely = row.answer if right else (row.answer + 1) % 4
        found.append(RowScore(row.number, log_likelihoods=tuple(-1.0 if at == likely else -2.0 for at in range(4))))
    return found


def test_one_suite_that_is_forgotten_is_enough(bench: EvaluationBench, tmp_path: Path) -> None:
    main(["suite", "forgetting", "--to", (tmp_path / "suites").as_uri()])
    dataset = {"uri": (tmp_path / "suites/forgetting.jsonl").as_uri()}
    bench.task("MultipleChoice", dataset=dataset, groupBy="suite")
    bench.document["tasks"][0]["dataset"] = dataset
    rows = bench.tasks().rows("task")
    asked = bench.config.tasks[0]
    bound = Threshold(metric="task/accuracy", maximum_group_regression=0.1, confidence=0.95)

    def check(forgotten: dict[str, float]) -> Any:
        own, base = scores(forgotten, rows), scores({}, rows)
        (found,) = compare(asked, about(len(rows)), rows, own, base, [(0, bound)], seed=17, resamples=1_000)[1]
        return found

    kept = check(dict.fromkeys(forgetting.SUITES, 0.02))
    assert kept.p_pass is not None
    assert kept.p_pass < 0.05, "two of 120 lost in every suite"
    lost = check({"capitals": 0.3})
    assert lost.worst == "capitals", "and the other seven do not hide it"
    assert lost.estimate == pytest.approx(0.3)
    assert lost.p_fail is not None
    assert lost.p_fail < 0.05
