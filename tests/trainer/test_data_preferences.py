"""Rows of preferences: read as they were meant, refused by name, and stored as pairs that stay together."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import DatasetFormat, Method, Reason
from trimtab_trainer.data.choosing.figures import groups_of
from trimtab_trainer.data.choosing.selection import SIDES
from trimtab_trainer.data.cleaning.languages import LANGUAGES
from trimtab_trainer.data.cleaning.shingles import said
from trimtab_trainer.data.reading.formats import Row, conform, resolve
from trimtab_trainer.data.reading.readers import Record
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.training.batches import Batches

from tests.trainer.data_bench import DataBench
from tests.trainer.tiny import make_tiny_model

ASKED = {"role": "user", "content": "Where is part 7?"}
RIGHT, WRONG = {"role": "assistant", "content": "On shelf 3."}, {"role": "assistant", "content": "Nobody knows."}
READ = ([ASKED], [RIGHT], [WRONG])

PAIRS: dict[str, dict[str, Any]] = {
    "messages": {"prompt": [ASKED], "chosen": [RIGHT], "rejected": [WRONG]},
    "whole conversations": {"chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
    "whole conversations beside what is asked": {
        "prompt": "Where is part 7?",
        "chosen": [ASKED, RIGHT],
        "rejected": [ASKED, WRONG],
        "score_chosen": 8.5,
        "messages": [ASKED, RIGHT],
    },
    "a text and messages": {"prompt": "Where is part 7?", "chosen": [RIGHT], "rejected": [WRONG]},
    "messages and texts": {"prompt": [ASKED], "chosen": "On shelf 3.", "rejected": "Nobody knows."},
    "single messages": {"prompt": [ASKED], "chosen": RIGHT, "rejected": WRONG},
}

REFUSED: dict[str, tuple[Method, dict[str, Any], str]] = {
    "no answer": (
        Method.DPO,
        {"prompt": "a", "chosen": "b", "rejected": None},
        "it has ['chosen', 'prompt', 'rejected']",
    ),
    "texts without a prompt": (Method.DPO, {"chosen": "b", "rejected": "c"}, "lacks prompt: chosen and rejected alone"),
    "a question": (
        Method.DPO,
        {"system": "", "question": "a", "chosen": "b", "rejected": "c"},
        "name what is asked prompt;",
    ),
    "nothing in common": (
        Method.ORPO,
        {"chosen": [ASKED, RIGHT], "rejected": [ASKED | {"content": "What?"}, WRONG]},
        "nothing in common before the answers",
    ),
    "another prompt than in the messages": (
        Method.DPO,
        {"prompt": "Who?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]},
        "has a prompt that is not in the messages",
    ),
    "an answer before what is asked": (
        Method.DPO,
        {"prompt": [ASKED, RIGHT], "chosen": [RIGHT], "rejected": [WRONG]},
        "a prompt that ends with an assistant's turn",
    ),
    "a question for an answer": (
        Method.DPO,
        {"prompt": [ASKED], "chosen": [RIGHT, ASKED], "rejected": [WRONG]},
        "does not begin and end with an assistant's turn",
    ),
    "a margin": (Method.DPO, {**PAIRS["messages"], "margin": 2}, "how much an answer is preferred is not learned"),
    "a key within a message": (
        Method.DPO,
        {"prompt": [ASKED], "chosen": [RIGHT | {"rating": 5}], "rejected": [WRONG]},
        "line 1, chosen, message 1 has rating",
    ),
    "labels for DPO": (
        Method.DPO,
        {"prompt": "a", "completion": "b", "label": True},
        "learned by training.method: KTO",
    ),
    "pairs for KTO": (Method.KTO, PAIRS["messages"], "learned by training.method: DPO or ORPO"),
    "pairs for SFT": (Method.SFT, PAIRS["whole conversations"], "learned by training.method: DPO or ORPO"),
    "messages for DPO": (Method.DPO, {"messages": [ASKED, RIGHT]}, "takes rows of {prompt, chosen, rejected}"),
    "a label that is a word": (Method.KTO, {"prompt": "a", "completion": "b", "label": "good"}, "true or false"),
    "no completion": (
        Method.KTO,
        {"prompt": "a", "completion": None, "label": True},
        "takes rows of {prompt, completion, label}",
    ),
}


def read(value: dict[str, Any], method: Method, *ignore: str) -> Row:
    record = Record(value, "a.jsonl line 1")
    detected = resolve(DatasetFormat.AUTO, iter([record]), ignore, method=method)
    return conform(record, detected.format, guessed=detected.guessed, ignore=ignore)


@pytest.mark.parametrize("shape", PAIRS)
def test_a_pair_is_what_it_was_meant_to_be_in_any_shape(shape: str) -> None:
    row = read(PAIRS[shape], Method.DPO)
    assert row.format is DatasetFormat.PREFERENCE
    assert list(row.messages) == READ[0]
    assert [list(each.messages[1:]) for each in row.answers] == [READ[1], READ[2]]
    assert row.to_json() == read(PAIRS["messages"], Method.ORPO).to_json()
    assert row.unit == "Where is part 7?"
    assert read(json.loads(row.to_json()), Method.DPO).to_json() == row.to_json()


def test_turns_of_the_prompt_are_given_and_those_behind_it_learned() -> None:
    before = [ASKED, WRONG, {"role": "user", "content": "Really?"}]
    row = read({"chosen": [*before, RIGHT], "rejected": [*before, WRONG]}, Method.DPO)
    assert [message.get("weight") for message in row.answers[0].messages] == [None, 0, None, None]
    assert row.answers[0].answer == "On shelf 3."
    assert [message.get("weight") for message in row.messages] == [None, None, None]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(case: str) -> None:
    method, value, trouble = REFUSED[case]
    with pytest.raises(DataInvalid) as caught:
        read(value, method)
    assert trouble in caught.value.message
    assert "a.jsonl line 1" in caught.value.message


def test_labels_and_keys_to_ignore() -> None:
    value = {"prompt": [ASKED], "completion": [WRONG | {"rating": 1}], "label": 0, "margin": 1}
    row = read(value, Method.KTO, "rating", "margin")
    assert row.label is False
    assert row.ignored == ("margin", "messages.rating")
    assert read({"prompt": "a", "completion": "b", "label": True}, Method.KTO).label is True
    plain = read({"prompt": "a", "completion": "b", "label": True}, Method.SFT)
    assert (plain.format, plain.label) == (DatasetFormat.PROMPT_COMPLETION, None)


def test_all_that_a_pair_says_is_compared_with_other_rows() -> None:
    assert said(PAIRS["messages"]) == "Where is part 7?\nOn shelf 3.\nNobody knows."


@pytest.fixture
def bench(tmp_path: Path) -> DataBench:
    return DataBench(make_tiny_model(tmp_path / "base"), tmp_path, training={"method": "DPO"})


def question(number: int, more: str = "") -> dict[str, Any]:
    return {
        "prompt": f"What is the {number}th word of the old book on the {number * 7}th shelf?",
        "chosen": f"The word is {number}.{more}",
        "rejected": f"Nobody can say {number}.",
        "kind": "rare" if number % 8 == 0 else "common",
    }


def test_the_two_answers_of_a_pair_are_one_sequence_behind_the_same_tokens(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number) for number in range(40)])
    bench.dataset = {"test": {"fraction": 0.25}}
    outcome = bench.prepare()
    train = bench.view(outcome).train
    assert outcome.prepared.rows == len(train)
    assert train.rows.tolist() == [2] * len(train)
    assert train.wanted is not None
    assert train.wanted.tolist() == [True, False] * len(train)
    starts = [*np.flatnonzero(train.positions == 0).tolist(), len(train.tokens)]
    for chosen, rejected, end in zip(starts[::2], starts[1::2], starts[2::2], strict=False):
        first = int(np.argmax(train.supervised[chosen:rejected]))
        assert train.tokens[chosen : chosen + first].tolist() == train.tokens[rejected : rejected + first].tolist()
        assert train.supervised[rejected + first]
        assert not train.supervised[rejected : rejected + first].any()
        assert end > rejected
    assert Batches(train).supervised.all()
    assert outcome.warnings == ("columns of the data that are ignored: kind",)


def test_a_pair_goes_as_a_whole_or_not_at_all(bench: DataBench) -> None:
    rows = [question(number) for number in range(8)]
    rows[2]["chosen"] = "word " * 300  # too long: its other answer goes with it
    rows[4]["rejected"] = rows[4]["chosen"]  # no preference
    rows[5]["rejected"] = "  "
    rows[6] = rows[7]
    bench.put("data/a.jsonl", rows)
    outcome = bench.prepare()
    train = bench.view(outcome).train
    assert len(train) == 4
    summary = bench.summary(outcome)
    assert summary["droppedFor"]["tooLong"] == summary["train"]["tooLong"] == 1, "a pair is a row"
    findings = bench.findings(outcome)["training"]
    assert (findings["unsupervised"]["count"], findings["duplicate"]["count"]) == (1, 1)
    assert findings["blank"]["count"] == 1
    assert outcome.prepared.dropped == 4
    assert outcome.warnings[1].startswith("4 of 8 rows are dropped: ")
    assert "1 have a blank answer" in outcome.warnings[1]
    assert "1 are longer than" in outcome.warnings[1]


def test_a_pair_is_one_row_in_all_that_is_told(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number) for number in range(8)])
    bench.dataset = {
        "audit": {"columns": ["kind"]},
        "balance": {"column": "kind"},
        "test": {"fraction": 0.25},
    }
    outcome = bench.prepare()
    audit, train = bench.audit(), bench.view(outcome).train
    assert [audit["sides"][side]["rows"] for side in ("train", "test")] == [7, 1]
    assert {each["value"]: each["rows"] for each in audit["groups"]["column kind"]} == {"common": 7, "rare": 1}
    assert sum(each["rows"] for each in audit["groups"]["source"]) == sum(audit["lengths"]["counts"]) == 8
    assert sum(each["rows"] for each in audit["sides"]["train"]["languages"]) == 7
    assert sum(each["rowsAfter"] for each in audit["balance"]["groups"]) == len(train)
    assert audit["near"] == {"clusters": 0, "rows": 0, "largest": 1}, "its two answers do not repeat each other"


def test_where_no_pair_fits_its_longer_answer_is_what_is_told_of(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number, " word" * 300) for number in range(4)])
    with pytest.raises(DataInvalid, match=r"all 4 rows of the train side are longer .*: the shortest has \d{3,}, "):
        bench.prepare()


def test_half_of_the_pairs_are_more_than_four_tenths(bench: DataBench) -> None:
    bench.put(
        "data/a.jsonl",
        [question(number) | {"rejected": " "} if number % 2 else question(number) for number in range(8)],
    )
    bench.dataset = {"cleaning": {"maximumDropped": 0.4}}
    with pytest.raises(DataInvalid, match="4 of 8 rows are dropped: 4 have a blank answer"):
        bench.prepare()


def test_data_without_a_preference_are_refused_by_what_they_lack(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number) | {"rejected": question(number)["chosen"]} for number in range(8)])
    with pytest.raises(DataInvalid, match="8 rows, all of them blank, of two equal answers, of invalid text or"):
        bench.prepare()


def test_pairs_of_one_prompt_are_on_one_side(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number, f" Or {more}.") for number in range(40) for more in range(3)])
    bench.dataset = {"test": {"fraction": 0.3}, "cleaning": {"nearDuplicates": "Keep"}}
    view = bench.view(bench.prepare())
    assert view.test is not None
    assert len(view.test) % 3 == len(view.train) % 3 == 0


def test_groups_are_balanced_by_whole_pairs(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number) for number in range(16)])
    bench.dataset = {"balance": {"column": "kind"}}
    train = bench.view(bench.prepare()).train
    assert len(train) == 14 + 2 * 4
    assert train.wanted is not None
    assert train.wanted.tolist() == [True, False] * len(train)
    bench.dataset = {"balance": {"column": "kind", "by": "Weight"}}
    weighed = bench.view(bench.prepare()).train
    assert weighed.weights is not None
    assert weighed.weights.tolist() == np.repeat(weighed.weights[::2], 2).tolist()
    assert sorted(set(weighed.weights.tolist())) == [1.0, 4.0]


def test_a_prompt_that_is_other_tokens_on_each_side_is_told_of(bench: DataBench) -> None:
    """Without a chat template the end of a text and the beginning of what follows may be one token."""
    make_tiny_model(bench.base, chat_template=None)
    rows = [question(number) for number in range(4)]
    rows[1] |= {"prompt": "The quick bro", "chosen": "wn fox", "rejected": "ken lamp"}
    bench.put("data/a.jsonl", rows)
    outcome = bench.prepare()
    assert [each for each in outcome.warnings if "1 pairs have a prompt that is other tokens" in each]


def test_methods_share_rows_and_views_that_are_the_same_and_no_others(bench: DataBench) -> None:
    bench.put("data/a.jsonl", [question(number) for number in range(12)])
    dpo = bench.prepare().prepared
    bench.training = {"method": "ORPO"}
    orpo = bench.prepare().prepared
    assert (dpo.rows_digest, dpo.view_digest) == (orpo.rows_digest, orpo.view_digest)
    assert dpo.run_digest != orpo.run_digest
    bench.training = {"method": "DPO", "preference": {}}
    assert bench.prepare().prepared.run_digest == dpo.run_digest, "defaults that are written are defaults"
    bench.training = {}
    with pytest.raises(DataInvalid) as caught:
        bench.prepare()
    assert caught.value.reason is Reason.FORMAT_UNKNOWN


def labelled(count: int, *, wrong: int = 0) -> list[dict[str, Any]]:
    """Return rows of KTO, of which the first `wrong` ones are not wanted."""
    rows = [question(number) for number in range(count)]
    return [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": number >= wrong}
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("wrong", "weight", "label"), [(0, "desirableWeight", "true"), (6, "undesirableWeight", "false")]
)
def test_rows_of_which_none_counts_are_refused_before_an_accelerator_is_asked_for(
    bench: DataBench, wrong: int, weight: str, label: str
) -> None:
    bench.training = {"method": "KTO", "preference": {weight: 0}}
    bench.put("data/a.jsonl", labelled(6, wrong=wrong))
    with pytest.raises(DataInvalid, match=rf"all 6 rows of the train side have the label {label}, .*{weight} is 0"):
        bench.prepare()
    bench.put("data/a.jsonl", labelled(6, wrong=1))
    assert bench.prepare().prepared.rows == 6


def test_both_weights_of_nothing_are_no_settings(bench: DataBench) -> None:
    bench.training = {"method": "KTO", "preference": {"desirableWeight": 0, "undesirableWeight": 0}}
    with pytest.raises(ValueError, match="both 0, so no row counts"):
        bench.config  # noqa: B018  read for what it raises


def test_a_side_of_one_labelled_row_is_refused_before_an_accelerator_is_asked_for(bench: DataBench) -> None:
    bench.training = {"method": "KTO"}
    bench.put("data/a.jsonl", labelled(1))
    with pytest.raises(DataInvalid, match="the train side has 1 row") as caught:
        bench.prepare()
    assert caught.value.reason is Reason.DATASET_EMPTY


def test_a_pair_is_in_the_group_of_its_first_answer_whatever_language_the_second_is_in() -> None:
    english, german, empty = LANGUAGES.index("English"), LANGUAGES.index("German"), np.zeros(6, np.int64)
    rows: Any = SimpleNamespace(
        source=empty,
        languages=np.array([english, german, english, english, german, english]),
        lengths=empty + 10,
        learned=empty + 4,
        answers=np.zeros((6, 32), np.uint8),
        columns={},
        values={},
    )
    sides = {side: SimpleNamespace(rows=empty[:0]) for side in SIDES} | {"train": SimpleNamespace(rows=np.arange(6))}
    selection: Any = SimpleNamespace(sides=sides)
    request: Any = SimpleNamespace(training=SimpleNamespace(method=Method.DPO), columns=SimpleNamespace(counted=()))
    found = groups_of(rows, selection, request)["language"]
    assert {each["value"]: (each["rows"], each["tokens"]) for each in found} == {"English": (2, 40), "German": (1, 20)}
    assert sum(each["share"] for each in found) == pytest.approx(1, abs=1e-3)
