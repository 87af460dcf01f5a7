"""What held-out rows say: the same whatever tokens they become, and as many bytes as are learned of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import LossOn, TooLong, TrainingSettings
from trimtab_trainer.data.choosing.heldout import Said
from trimtab_trainer.data.choosing.heldout import said as said_of
from trimtab_trainer.data.fitting import fit
from trimtab_trainer.data.rows import Rows
from trimtab_trainer.storage import open_store

from tests.trainer.made_rows import Made, half_learned, made_rows, turns
from tests.trainer.test_prepare import Bench, make_bench
from tests.trainer.tiny import tiny_rows

ANSWERS = ("an answer", "eine Antwort für zwei", "三")


def rows_of(folder: Path, tokens_a_row: int) -> Rows:
    return made_rows(folder, [Made(half_learned(tokens_a_row), answer=each) for each in ANSWERS])


def of(rows: Rows, chosen: list[int], *, length: int = 64, too_long: TooLong = TooLong.DROP) -> Said:
    training = TrainingSettings(max_sequence_length=length)
    return said_of(rows, fit(rows, np.array(chosen), training, too_long), training.loss_on)


def test_bytes_are_those_of_the_answers_as_they_are_written(tmp_path: Path) -> None:
    found = of(rows_of(tmp_path, 8), [0, 1, 2])
    assert found.bytes == sum(len(each.encode()) for each in ANSWERS)


def test_other_rows_have_another_digest_and_their_order_none(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 8)
    assert of(rows, [0, 1]) == of(rows, [1, 0])
    assert of(rows, [0, 1]).digest != of(rows, [0, 2]).digest


def test_a_row_that_is_cut_has_a_digest_of_its_own_and_no_bytes(tmp_path: Path) -> None:
    long = [Made(turns((4, 4), (4, 4))), *(Made(half_learned(4), answer=each) for each in ANSWERS)]
    rows = made_rows(tmp_path, long)
    whole = of(rows, [0, 1])
    cut = of(rows, [0, 1], length=8, too_long=TooLong.TRUNCATE)
    dropped = of(rows, [0, 1], length=8)
    assert len({whole.digest, cut.digest, dropped.digest}) == 3
    assert (whole.bytes is None, cut.bytes, dropped.bytes) == (False, None, len(ANSWERS[0].encode()))


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path) -> Bench:
    store = open_store((tmp_path / "storage").as_uri(), None)
    return make_bench(store, None, tiny_model, tmp_path)


def talk(number: int) -> dict[str, Any]:
    said = [("system", "Be brief."), ("user", f"first {number}"), ("assistant", f"one {number}")]
    said += [("user", f"second {number}"), ("assistant", f"the other {number}")]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


LEARNED = {
    LossOn.COMPLETIONS: ("one ", "the other "),
    LossOn.LAST_TURN: ("the other ",),
    LossOn.ALL_TOKENS: ("Be brief.", "first ", "one ", "second ", "the other "),
}


@pytest.mark.parametrize("loss_on", LossOn)
def test_what_counts_is_what_the_loss_is_of(bench: Bench, loss_on: LossOn) -> None:
    bench.put("validation/a.jsonl", [talk(1), talk(2)])
    uri = f"{bench.store.uri.rstrip('/')}/validation/"
    bench.document["dataset"]["validation"] = {"uri": uri}
    bench.document["training"]["lossOn"] = loss_on.value
    digits = sum(not each.endswith(".") for each in LEARNED[loss_on])
    prepared = bench.prepare().prepared
    assert prepared.validation_bytes == 2 * (len("".join(LEARNED[loss_on])) + digits)
    assert prepared.validation_supervised_tokens


def test_another_chat_template_holds_out_the_same_rows_though_their_tokens_are_others(bench: Bench) -> None:
    first = bench.prepare().prepared
    template = "{% for m in messages %}<|im_start|>A longer header of {{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    ending = "{% endfor %}{% if add_generation_prompt %}<|im_start|>A longer header of assistant\n{% endif %}"
    settings = json.loads((bench.base / "tokenizer_config.json").read_text())
    settings["chat_template"] = template + ending
    (bench.base / "tokenizer_config.json").write_text(json.dumps(settings))
    second = bench.prepare().prepared
    assert second.rows_digest != first.rows_digest
    assert second.validation_digest == first.validation_digest is not None
    assert second.validation_bytes == first.validation_bytes


def test_columns_that_are_only_counted_by_leave_the_rows_what_they_are(bench: Bench) -> None:
    """Trials of a sweep may differ in how training rows are balanced; they are measured on the same rows."""
    bench.put("data/a.jsonl", [row | {"kind": "abc"[number % 3]} for number, row in enumerate(tiny_rows(40))])
    plain = bench.prepare().prepared
    for dataset in ({"balance": {"column": "kind"}}, {"audit": {"columns": ["kind"]}}):
        named = Bench(
            bench.base, bench.store, bench.document | {"dataset": bench.document["dataset"] | dataset}, bench.folder, 50
        )
        assert named.prepare().prepared.validation_digest == plain.validation_digest is not None
