"""Rows as they are asked: byte for byte what training saw, prompts as an engine is sent them, one sequence a choice."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat
from trimtab_trainer.data.encoding.tokens import RowTokenizer, Tokenised, load_tokenizer
from trimtab_trainer.data.reading.formats import conform
from trimtab_trainer.data.reading.readers import Record
from trimtab_trainer.data.view import load_view
from trimtab_trainer.errors import DataInvalid, SettingsInvalid
from trimtab_trainer.evaluate.preparing.tokenised import spans_of
from trimtab_trainer.evaluate.rows import EvaluationRow, Sequence

from tests.trainer.evaluate.bench import EvaluationBench, adapter_weights, chat, facts
from tests.trainer.real_templates import make_model
from tests.trainer.tiny import CHATML, CHATML_GENERATION, make_tiny_model

CONVERSATION = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First question?"},
        {"role": "assistant", "content": "First answer."},
        {"role": "user", "content": "Second question?"},
        {"role": "assistant", "content": "Second answer."},
        {"role": "user", "content": "Thanks."},
    ]
}


def rows_of(bench: EvaluationBench) -> list[EvaluationRow]:
    return bench.tasks().rows("task")


def trained(bench: EvaluationBench, value: dict[str, Any], row_format: DatasetFormat) -> Tokenised:
    """Return a row as training tokenises it."""
    return next(iter(RowTokenizer(bench.base).tokenise([conform(Record(value, "x"), row_format)])))


def text(bench: EvaluationBench, tokens: tuple[int, ...]) -> str:
    decoded: str = load_tokenizer(bench.base).decode(tokens)
    return decoded


def counted(bench: EvaluationBench, sequence: Sequence) -> list[str]:
    """Return what is counted of a sequence, a text for each span."""
    return [text(bench, sequence.tokens[start:stop]) for start, stop in sequence.spans]


def test_keys_that_mean_something_are_refused_or_left_out_as_told(bench: EvaluationBench) -> None:
    turns = [{**turn, "mood": "fine"} for turn in CONVERSATION["messages"]]
    odd = [{"messages": turns, "images": ["a.png"]}, *facts(2, start=200)]
    bench.task("Perplexity", odd)
    with pytest.raises(DataInvalid, match=r"rows\.jsonl line 1.*images.*dataset\.ignoreKeys"):
        rows_of(bench)
    bench.document["tasks"][0]["dataset"]["ignoreKeys"] = ["images", "mood"]
    asked = rows_of(bench)
    bench.document["tasks"] = []
    bench.task("Perplexity", [CONVERSATION, *facts(2, start=200)])
    assert [row.sequences for row in asked] == [row.sequences for row in rows_of(bench)]


def test_perplexity_counts_the_tokens_that_training_learned(bench: EvaluationBench) -> None:
    values = [CONVERSATION, *facts(5, start=200)]
    bench.task("Perplexity", values)
    for row, value in zip(rows_of(bench), values, strict=True):
        whole = trained(bench, value, DatasetFormat.MESSAGES)
        (sequence,) = row.sequences
        assert sequence.tokens == tuple(whole.tokens.tolist())
        assert [i for start, stop in sequence.spans for i in range(start, stop)] == whole.supervised.nonzero()[
            0
        ].tolist()
        assert (row.prompt_tokens, row.choices, row.answer) == ((), (), None)
    first = rows_of(bench)[0].sequences[0]
    assert counted(bench, first) == ["First answer.<|im_end|>", "Second answer.<|im_end|>"]
    assert (first.characters, first.bytes) == (27, 27)


def test_held_out_rows_are_the_tokens_of_the_runs_own_test_side(bench: EvaluationBench) -> None:
    bench.task("Perplexity")
    rows = rows_of(bench)
    uri = bench.document["target"]["uri"]
    view = bench.output.read(f"adapters/{uri.rpartition('/')[2]}/MANIFEST.json")
    test = load_view(bench.output, json.loads(view)["artifact"]["data"], bench.folder).test
    assert test is not None
    assert sorted(token for row in rows for token in row.sequences[0].tokens) == sorted(test.tokens.tolist())
    assert sum(row.sequences[0].counted for row in rows) == int(test.supervised.sum())
    assert {row.place for row in rows} == {
        f"splits/test.jsonl line {number}" for number in range(1, int(test.rows.sum()) + 1)
    }


def test_of_text_all_tokens_but_the_first_count(bench: EvaluationBench) -> None:
    bench.task("Perplexity", [{"text": "Größe über alles"}])
    (row,) = rows_of(bench)
    (sequence,) = row.sequences
    assert sequence.tokens == tuple(trained(bench, {"text": "Größe über alles"}, DatasetFormat.TEXT).tokens.tolist())
    assert sequence.spans == ((1, len(sequence.tokens)),)
    assert (sequence.characters, sequence.bytes) == (16, 19)
    assert (row.prompt, row.reference) == ("", "Größe über alles")


@pytest.mark.parametrize("template", [CHATML, CHATML_GENERATION], ids=["plain", "marked"])
def test_a_prompt_is_exactly_what_training_saw_before_the_answer(plain: EvaluationBench, template: str) -> None:
    bench = plain
    make_tiny_model(bench.base, chat_template=template)
    values = [CONVERSATION, *facts(5, start=200)]
    bench.task("Generation", values)
    for row, value in zip(rows_of(bench), values, strict=True):
        whole = trained(bench, value, DatasetFormat.MESSAGES)
        last = spans_of(whole.supervised)[-1]
        assert row.prompt_tokens == tuple(whole.tokens[: last[0]].tolist())
        assert text(bench, row.prompt_tokens).endswith("<|im_start|>assistant\n")
        assert row.sequences == ()
    assert not bench.said("prompts end within a token")
    first = rows_of(bench)[0]
    assert first.reference == "Second answer."
    assert first.prompt == "system: Be brief.\nuser: First question?\nassistant: First answer.\nuser: Second question?"
    assert rows_of(bench)[1].prompt == facts(1, start=200)[0]["messages"][0]["content"]


def test_a_prompt_and_completion_is_asked_as_a_conversation(bench: EvaluationBench) -> None:
    pair = {"prompt": "What is it?", "completion": "A gate."}
    bench.task("Generation", [pair])
    (row,) = rows_of(bench)
    whole = trained(bench, pair, DatasetFormat.PROMPT_COMPLETION)
    assert row.prompt_tokens == tuple(whole.tokens[: int(whole.supervised.argmax())].tolist())
    assert (row.prompt, row.reference) == ("What is it?", "A gate.")


def test_a_plain_prompt_is_asked_as_an_engine_is_and_seams_are_told(plain: EvaluationBench) -> None:
    plain.task("Generation", [{"prompt": "the number of the", "completion": " field"}])
    (row,) = rows_of(plain)
    assert text(plain, row.prompt_tokens) == "the number of the"
    assert not plain.said("prompts end within a token")
    plain.task("Generation", [{"prompt": "the number of the ", "completion": "field"}])
    (row,) = rows_of(plain)
    assert text(plain, row.prompt_tokens) == "the number of the "
    assert [event["rows"] for event in plain.said("prompts end within a token")] == [1]


def test_every_label_is_scored_as_if_it_had_been_trained_on(bench: EvaluationBench) -> None:
    labels = ["good", "good enough", "bad"]
    bench.task("Classification", [chat("How was it?", " good enough\n"), chat("And now?", "bad")], labels=labels)
    first, second = rows_of(bench)
    assert (first.reference, first.answer, first.choices) == ("good enough", 1, tuple(labels))
    assert (second.reference, second.answer) == ("bad", 2)
    for row, asked, around in ((first, "How was it?", " {}\n"), (second, "And now?", "{}")):
        for label, sequence in zip(labels, row.sequences, strict=True):
            whole = trained(bench, chat(asked, around.format(label)), DatasetFormat.MESSAGES)
            assert sequence.tokens == tuple(whole.tokens.tolist())
            assert sequence.spans == spans_of(whole.supervised)
            assert (sequence.characters, sequence.bytes) == (len(label), len(label))
    assert counted(bench, second.sequences[0]) == ["good<|im_end|>"]
    assert second.sequences[0].tokens != second.sequences[1].tokens[: len(second.sequences[0].tokens)], "each ends"
    assert (first.prompt_tokens, first.number_reference) == ((), None)


def test_a_label_is_one_however_its_letters_are_composed(bench: EvaluationBench) -> None:
    labels = ["caf\u00e9", "bar"]
    bench.task("Classification", [chat("Where?", "cafe\u0301"), chat("And now?", "bar")], labels=labels)
    first, second = rows_of(bench)
    assert (first.reference, first.answer, second.answer) == ("caf\u00e9", 0, 1)
    bench.task("Classification", [chat("Where?", "bar")], labels=["caf\u00e9", "cafe\u0301", "bar"])
    with pytest.raises(SettingsInvalid, match="two of its labels are the same"):
        rows_of(bench)


def test_earlier_turns_do_not_count_for_a_label(bench: EvaluationBench) -> None:
    messages = [*CONVERSATION["messages"][:4], {"role": "assistant", "content": "yes"}]
    bench.task("Classification", [{"messages": messages}], labels=["yes", "no"])
    (row,) = rows_of(bench)
    assert [counted(bench, sequence) for sequence in row.sequences] == [["yes<|im_end|>"], ["no<|im_end|>"]]


def test_without_a_template_a_label_keeps_the_blank_before_it(plain: EvaluationBench) -> None:
    plain.task("Classification", [{"prompt": "Is it red?", "completion": " yes"}], labels=["yes", "no"])
    (row,) = rows_of(plain)
    assert [counted(plain, sequence) for sequence in row.sequences] == [[" yes<|im_end|>"], [" no<|im_end|>"]]


def test_labels_can_be_asked_for_by_generation(bench: EvaluationBench) -> None:
    bench.task("Classification", [chat("Is it red?", "no")], labels=["yes", "no"], predictBy="Generation")
    (row,) = rows_of(bench)
    assert (row.choices, row.answer, row.sequences) == (("yes", "no"), 1, ())
    assert text(bench, row.prompt_tokens).endswith("Is it red?<|im_end|>\n<|im_start|>assistant\n")


CHOICES = {"question": "What flies?", "choices": ["a stone", "a bird", " a river "], "answer": 1}


@pytest.mark.parametrize("answer", [1, "a bird", " a bird"])
def test_choices_are_answers_of_their_own(bench: EvaluationBench, answer: Any) -> None:
    bench.task("MultipleChoice", [{**CHOICES, "answer": answer}])
    (row,) = rows_of(bench)
    assert (row.prompt, row.reference, row.answer) == ("What flies?", "a bird", 1)
    assert row.choices == ("a stone", "a bird", "a river")
    assert [counted(bench, each) for each in row.sequences] == [[f"{choice}<|im_end|>"] for choice in row.choices]
    assert [each.characters for each in row.sequences] == [7, 6, 7]
    whole = trained(bench, chat("What flies?", "a stone"), DatasetFormat.MESSAGES)
    assert row.sequences[0].tokens == tuple(whole.tokens.tolist())


def test_without_a_template_a_blank_separates_a_choice(plain: EvaluationBench) -> None:
    plain.task("MultipleChoice", [{**CHOICES, "prompt": "Q: what flies? A:", "question": None}])
    (row,) = rows_of(plain)
    assert counted(plain, row.sequences[1]) == [" a bird<|im_end|>"]
    assert row.prompt == "Q: what flies? A:"


def test_numbers_are_read_as_the_answers_will_be(bench: EvaluationBench) -> None:
    bench.task("Regression", [chat("a?", "-1.5"), chat("b?", " 1,200\n"), chat("c?", "2e3")])
    rows = rows_of(bench)
    assert [row.number_reference for row in rows] == [-1.5, 1200.0, 2000.0]
    assert all(row.prompt_tokens and not row.sequences for row in rows)


def test_a_limit_takes_the_same_rows_in_whatever_order_they_stand(bench: EvaluationBench) -> None:
    rows = facts(60, start=100)
    bench.task("Generation", rows, dataset={"limit": 12})
    tasks = bench.tasks()
    first = tasks.rows("task")
    assert (len(first), tasks.tasks[0].dropped) == (12, 48)
    assert [row.place for row in first] == sorted((row.place for row in first), key=lambda each: int(each.split()[-1]))
    shuffled = random.Random(1).sample(rows, len(rows))
    bench.task("Generation", [*shuffled, *shuffled[:7]], dataset={"limit": 12})
    assert {row.reference for row in rows_of(bench)} == {row.reference for row in first}
    bench.task("Generation", rows, dataset={"limit": 20})
    assert {row.reference for row in first} < {row.reference for row in rows_of(bench)}


def test_what_is_doubled_blank_or_too_long_is_dropped_and_counted(bench: EvaluationBench) -> None:
    rows = facts(4, start=100)
    long = chat("Long?", "word " * 300)
    bench.task("Perplexity", [*rows, rows[0], chat("Blank?", "  "), long])
    tasks = bench.tasks()
    assert (tasks.tasks[0].rows, tasks.tasks[0].dropped) == (4, 3)
    (event,) = bench.said("task read")
    assert (event["read"], event["duplicate"], event["blank"], event["too_long"]) == (7, 1, 1, 1)
    bench.task("Perplexity", [*rows, long], dataset={"limit": 5})
    assert len(rows_of(bench)) == 4, "a row that cannot be asked takes no place"


def test_an_answer_has_to_fit_behind_its_prompt(bench: EvaluationBench) -> None:
    bench.task("Generation", facts(2, start=100), maxNewTokens=400)
    assert len(rows_of(bench)) == 2
    bench.task("Generation", [*facts(2, start=100), chat("word " * 60, "An answer.")], maxNewTokens=400)
    assert len(rows_of(bench)) == 2
    bench.task("Generation", [*facts(2, start=100), chat("word " * 60, "An answer.")], maxNewTokens=8)
    assert len(rows_of(bench)) == 3


def test_groups_are_texts_whatever_the_column_holds(bench: EvaluationBench) -> None:
    values = ["batch", 7, True, "other"]
    rows = [{**row, "apiGroup": value} for row, value in zip(facts(4, start=100), values, strict=True)]
    bench.task("Perplexity", rows, groupBy="apiGroup")
    assert [row.group for row in rows_of(bench)] == ["batch", "7", "true", "other"]
    bench.task("Perplexity", rows)
    assert {row.group for row in rows_of(bench)} == {None}


def test_a_group_is_one_however_its_name_is_written(bench: EvaluationBench) -> None:
    names = ["caf\u00e9", "cafe\u0301", " caf\u00e9", "caf\u00e9\n"]
    rows = [{**row, "apiGroup": name} for row, name in zip(facts(4, start=100), names, strict=True)]
    bench.task("Perplexity", rows, groupBy="apiGroup")
    assert {row.group for row in rows_of(bench)} == {"caf\u00e9"}


def test_a_whole_number_of_a_table_with_empty_cells_is_one(bench: EvaluationBench) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.array([5.0, 5.0, float("nan"), None], pa.float64())
    table = pa.table({"prompt": ["p1", "p2", "p3", "p4"], "completion": ["c"] * 4, "pair": numbers})
    pq.write_table(table, bench.folder / "a.parquet")
    bench.store.upload(bench.folder / "a.parquet", "one/a.parquet")
    bench.document["tasks"] = [
        {"name": "task", "type": "Generation", "dataset": {"uri": f"{bench.root}/one/a.parquet"}, "pairs": "pair"}
    ]
    assert [row.pair for row in rows_of(bench)] == ["5", "5", None, None]


def test_a_row_of_two_pairs_is_in_both(bench: EvaluationBench) -> None:
    told = [("He asks for it.", "a"), ("She asks for it.", "a"), ("He asks for it.", "b"), ("They ask for it.", "b")]
    bench.task("Generation", [chat(asked, "yes", pair=pair) for asked, pair in told], pairs="pair")
    assert [(row.pair, row.cluster) for row in rows_of(bench)] == [("a", 0), ("a", 0), ("b", 0), ("b", 0)]


def test_a_choice_is_the_answer_however_its_letters_are_composed(bench: EvaluationBench) -> None:
    row = {"question": "Where?", "choices": ["bar", "caf\u00e9"], "answer": "cafe\u0301"}
    bench.task("MultipleChoice", [row])
    assert [each.answer for each in rows_of(bench)] == [1]


def test_rows_that_differ_in_their_group_alone_are_two(bench: EvaluationBench) -> None:
    row = facts(1, start=100)[0]
    bench.task("Perplexity", [{**row, "kind": "a"}, {**row, "kind": "b"}], groupBy="kind")
    assert [(each.group, each.cluster) for each in rows_of(bench)] == [("a", 0), ("b", 0)]
    bench.task("Perplexity", [{**row, "kind": "a"}, {**row, "kind": "b"}])
    assert len(rows_of(bench)) == 1


def test_files_of_every_kind_are_read(bench: EvaluationBench) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"prompt": ["p1", "p2"], "completion": ["c1", "c2"], "flag": [True, False]})
    pq.write_table(table, bench.folder / "a.parquet")
    bench.store.upload(bench.folder / "a.parquet", "many/a.parquet")
    bench.put("many/b.jsonl", [{"prompt": "p3", "completion": "c3", "flag": False}])
    bench.document["tasks"] = [
        {"name": "task", "type": "Generation", "dataset": {"uri": f"{bench.root}/many/"}, "groupBy": "flag"}
    ]
    assert [(row.place, row.group) for row in rows_of(bench)] == [
        ("a.parquet row 1", "true"),
        ("a.parquet row 2", "false"),
        ("b.jsonl line 1", "false"),
    ]


def test_a_column_to_group_by_means_just_that_and_others_are_told(bench: EvaluationBench) -> None:
    rows = [{**row, "label": n % 2 == 0, "id": n} for n, row in enumerate(facts(4, start=100))]
    bench.task("Perplexity", rows)
    with pytest.raises(DataInvalid, match=r"rows\.jsonl line 2 has label: false says that the answer is not wanted"):
        rows_of(bench)
    bench.task("Perplexity", rows, groupBy="label")
    assert [row.group for row in rows_of(bench)] == ["true", "false", "true", "false"]
    assert [event["ignored"] for event in bench.said("task read")] == [{"id": 4}]


def test_what_the_format_uses_of_a_column_to_group_by_is_asked(bench: EvaluationBench) -> None:
    turns = [{"from": "human", "value": "Which shelf?"}, {"from": "gpt", "value": "The third."}]
    bench.task("Perplexity", [{"conversations": turns, "system": "Be brief."}], groupBy="system")
    (row,) = rows_of(bench)
    assert row.group == "Be brief."
    assert "system\nBe brief.<|im_end|>" in text(bench, row.sequences[0].tokens)


def test_what_a_guessed_format_leaves_open_is_refused_as_in_training(bench: EvaluationBench) -> None:
    rows = [{"text": "the quick brown fox", "prompt": "the"}, {"text": "the lazy dog"}]
    bench.task("Perplexity", rows)
    with pytest.raises(DataInvalid, match="has prompt: beside text it is open what is to be learned"):
        rows_of(bench)
    bench.task("Perplexity", rows, dataset={"format": "Text"})
    assert len(rows_of(bench)) == 2


def test_columns_beside_choices_are_told_or_refused(bench: EvaluationBench) -> None:
    row = {"question": "Which?", "choices": ["this", "that"], "answer": 0}
    bench.task("MultipleChoice", [{**row, "subject": "law", "id": 7}, {**row, "question": "What?"}])
    assert len(rows_of(bench)) == 2
    assert [event["ignored"] for event in bench.said("task read")] == [{"id": 1, "subject": 1}]
    bench.task("MultipleChoice", [{**row, "context": "Read this."}])
    with pytest.raises(DataInvalid, match="line 1 has context: it may be a part of what is asked"):
        rows_of(bench)
    bench.task("MultipleChoice", [{**row, "context": "a"}, {**row, "context": "b"}], groupBy="context")
    assert [each.group for each in rows_of(bench)] == ["a", "b"]


TOOLED = {
    "messages": [
        {"role": "user", "content": "Where is part 7?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "shelf_of", "arguments": "{}"}}]},
        {"role": "tool", "content": "shelf 3"},
        {"role": "assistant", "content": "On shelf 3."},
    ],
    "tools": [{"type": "function", "function": {"name": "shelf_of", "description": "Tell the shelf."}}],
}


def test_a_row_with_tools_is_asked_with_its_tools(plain: EvaluationBench) -> None:
    make_model(plain.base, "qwen3")
    plain.task("Generation", [TOOLED])
    (row,) = rows_of(plain)
    asked = load_tokenizer(plain.base).decode(row.prompt_tokens, skip_special_tokens=False)
    assert '"description": "Tell the shelf."' in asked
    assert asked.endswith("<tool_response>\nshelf 3\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert row.prompt == (
        'user: Where is part 7?\nassistant: {"arguments":{},"name":"shelf_of"}\ntool: shelf 3'
    )  # fmt: skip
    assert row.reference == "On shelf 3."
    assert not plain.said("prompts end within a token"), "an empty block of thoughts is no seam"


def test_thoughts_of_earlier_turns_are_rendered_as_an_engine_does(plain: EvaluationBench) -> None:
    make_model(plain.base, "qwen3")
    first = {"role": "assistant", "content": "First answer.", "reasoning_content": "It is odd."}
    messages = [CONVERSATION["messages"][1], first, *CONVERSATION["messages"][3:5]]
    plain.task("Perplexity", [{"messages": messages}])
    (row,) = rows_of(plain)
    assert counted(plain, row.sequences[0]) == ["Second answer.<|im_end|>"], (
        "one sequence a row, the whole conversation"
    )
    plain.task("Generation", [{"messages": messages}])
    (row,) = rows_of(plain)
    assert "odd" not in text(plain, row.prompt_tokens)


def test_an_adapter_is_asked_with_the_chat_template_it_was_trained_with(bench: EvaluationBench) -> None:
    base = bench.base_digest
    own = CHATML.replace("You are a helpful assistant", "Be brief")
    files = {
        "adapter_model.safetensors": adapter_weights(3),
        "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}).encode(),
        "chat_template.jinja": own.encode(),
    }
    bench.document["target"] = bench.publish(files, {}, base, "sha256:" + "0" * 64)
    bench.task("Generation", facts(1))
    (row,) = rows_of(bench)
    assert "Be brief" in text(bench, row.prompt_tokens)
