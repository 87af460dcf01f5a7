"""Everything an evaluation is refused for before weights are loaded: by name, with the place and the next step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import DataInvalid, SettingsInvalid, TrainerError
from trimtab_trainer.storage import MANIFEST
from trimtab_trainer.storage.layout import adapter_prefix

from tests.trainer.evaluate.bench import EvaluationBench, adapter_weights, chat, facts
from tests.trainer.tiny import make_tiny_model

Bad = tuple[Callable[[EvaluationBench], Any], type[TrainerError], Reason, str]

CHOICES = {"question": "What flies?", "choices": ["a stone", "a bird"], "answer": 1}
LABELS = ["yes", "no"]


def raw(bench: EvaluationBench, data: bytes, kind: str = "Perplexity", **settings: Any) -> None:
    bench.store.put("eval/raw.jsonl", data)
    bench.task(kind, [], **settings)
    bench.document["tasks"][0]["dataset"] = {"uri": f"{bench.root}/eval/raw.jsonl"}


def target_file(bench: EvaluationBench, name: str) -> str:
    return f"{adapter_prefix(bench.document['target']['digest'])}/{name}"


def flip_weights(bench: EvaluationBench) -> None:
    path = target_file(bench, "adapter_model.safetensors")
    data = bench.output.read(path)
    bench.output.put(path, data[:-1] + bytes([data[-1] ^ 1]))


def adapter(bench: EvaluationBench, **changes: Any) -> None:
    """Publish an adapter that verifies, with other files or from another base model."""
    files = {
        "adapter_model.safetensors": changes.pop("weights", adapter_weights(0)),
        "adapter_config.json": changes.pop("config", b'{"peft_type": "LORA", "r": 4}'),
    }
    files = {name: content for name, content in files.items() if content is not None}
    bench.document["target"] = bench.publish(files, {}, changes.pop("base", bench.base_digest), "sha256:" + "0" * 64)


def other_tokenizer(bench: EvaluationBench) -> None:
    bench.document["baseline"] = {
        "artifact": bench.publish(
            {
                "adapter_model.safetensors": adapter_weights(0),
                "adapter_config.json": b'{"peft_type": "LORA", "r": 4}',
                "tokenizer.json": b"{}",
            },
            {},
            bench.base_digest,
            "sha256:" + "0" * 64,
        )
    }
    bench.document["thresholds"] = [{"metric": "heldout/perplexity", "maximumRegression": 0.1}]


def grouped(bench: EvaluationBench, sizes: dict[str, int], **threshold: Any) -> None:
    rows = iter(facts(sum(sizes.values()), start=300))
    bench.task("Perplexity", [{**next(rows), "kind": name} for name, size in sizes.items() for _ in range(size)])
    bench.document["tasks"][0]["groupBy"] = "kind"
    bench.document["thresholds"] = [{"metric": "task/perplexity", "maximumGroupGap": 0.1, **threshold}]


def untested(bench: EvaluationBench) -> None:
    bench.document["target"] = bench.train(facts(20), test=None, seed=3)


def base_alone(bench: EvaluationBench) -> None:
    del bench.document["target"]


def no_template(bench: EvaluationBench) -> None:
    settings = json.loads((bench.base / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (bench.base / "tokenizer_config.json").write_text(json.dumps(settings))
    del bench.document["target"]
    bench.task("Generation", facts(3))


REFUSED: dict[str, Bad] = {
    # models
    "no base model": (
        lambda b: b.document.update(baseModel={"uri": "file:///nowhere/base"}),
        SettingsInvalid,
        Reason.BASE_MODEL_NOT_FOUND,
        "upload its folder",
    ),
    "another base model than the pinned one": (
        lambda b: b.document["baseModel"].update(digest="sha256:" + "0" * 64),
        SettingsInvalid,
        Reason.BASE_MODEL_CHANGED,
        "restore it",
    ),
    "no adapter": (
        lambda b: b.document["target"].update(uri=f"{b.root}/out/adapters/none"),
        SettingsInvalid,
        Reason.ARTIFACT_NOT_FOUND,
        "correct the uri of the target",
    ),
    "no baseline": (
        lambda b: b.document.update(baseline={"artifact": {"uri": f"{b.root}/none"}}),
        SettingsInvalid,
        Reason.ARTIFACT_NOT_FOUND,
        "uri of the baseline",
    ),
    "another adapter than the pinned one": (
        lambda b: b.document["target"].update(digest="sha256:" + "0" * 64),
        SettingsInvalid,
        Reason.ARTIFACT_CHANGED,
        "or ask for the new one",
    ),
    "an adapter whose weights were changed": (
        flip_weights,
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "not as it was published",
    ),
    "an adapter without its weights": (
        lambda b: b.output.delete([target_file(b, "adapter_model.safetensors")]),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "does not exist",
    ),
    "an adapter with a broken manifest": (
        lambda b: b.output.put(target_file(b, MANIFEST), b"{"),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "MANIFEST.json cannot be read",
    ),
    "a folder of something else": (
        lambda b: b.output.put(target_file(b, MANIFEST), b'{"files": []}'),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "says nothing of an artifact",
    ),
    "an adapter of another kind": (
        lambda b: adapter(b, config=b'{"peft_type": "PREFIX_TUNING"}'),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "no LoRA adapter",
    ),
    "an adapter without settings": (
        lambda b: adapter(b, config=None),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "has no adapter_config.json",
    ),
    "settings that cannot be read": (
        lambda b: adapter(b, config=b"{"),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "no LoRA adapter",
    ),
    "weights of another rank": (
        lambda b: adapter(b, weights=adapter_weights(0, rank=8)),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "matrices of rank 4",
    ),
    "weights that are no safetensors": (
        lambda b: adapter(b, weights=b"PK\x03\x04"),
        SettingsInvalid,
        Reason.ARTIFACT_INVALID,
        "matrices of rank 4",
    ),
    "an adapter of another base model": (
        lambda b: adapter(b, base="sha256:" + "1" * 64),
        SettingsInvalid,
        Reason.BASE_MODEL_MISMATCH,
        "it was trained on",
    ),
    "perplexities of two tokenizers": (
        other_tokenizer,
        SettingsInvalid,
        Reason.TOKENIZER_MISMATCH,
        r"tokenizer\S+; compare heldout/bitsPerByte",
    ),
    # rows
    "nothing held out": (untested, DataInvalid, Reason.TEST_SPLIT_MISSING, "train it again with dataset.test"),
    "the held-out rows of the base model": (
        base_alone,
        DataInvalid,
        Reason.TEST_SPLIT_MISSING,
        "give the rows by dataset.uri",
    ),
    "no data": (
        lambda b: b.document["tasks"][0].update(dataset={"uri": f"{b.root}/none.jsonl"}),
        DataInvalid,
        Reason.DATASET_NOT_FOUND,
        "upload the data",
    ),
    "empty data": (lambda b: raw(b, b""), DataInvalid, Reason.DATASET_EMPTY, "empty"),
    "blank lines": (lambda b: raw(b, b"\n\n"), DataInvalid, Reason.DATASET_EMPTY, "holds no rows"),
    "blank answers": (
        lambda b: b.task("Perplexity", [chat("q", " ")]),
        DataInvalid,
        Reason.DATASET_EMPTY,
        "1 rows, all of them blank",
    ),
    "no choices at all": (
        lambda b: raw(b, b"\n", "MultipleChoice"),
        DataInvalid,
        Reason.DATASET_EMPTY,
        "holds no rows",
    ),
    "a line that is no JSON": (
        lambda b: raw(b, b'{"text": "a"}\n{"text":\n'),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "raw.jsonl line 2",
    ),
    "rows of another tool": (
        lambda b: raw(b, b'{"input": "a", "output": "b"}'),
        DataInvalid,
        Reason.FORMAT_UNKNOWN,
        "write input and output as prompt and completion",
    ),
    "conversations without an answer": (
        lambda b: b.task("Perplexity", [{"messages": [{"role": "user", "content": "q"}]}]),
        DataInvalid,
        Reason.NO_ASSISTANT_TURN,
        "1 of 1 rows",
    ),
    "prompts without a reference": (
        lambda b: b.task("Generation", [*facts(2), {"messages": [{"role": "user", "content": "q"}]}]),
        DataInvalid,
        Reason.REFERENCE_MISSING,
        "1 of 3 rows .* rows.jsonl line 3",
    ),
    "blank references": (
        lambda b: b.task("Classification", [chat("q", "yes"), chat("q", " ")], labels=LABELS),
        DataInvalid,
        Reason.REFERENCE_MISSING,
        "rows.jsonl line 2",
    ),
    "an answer to nothing": (
        lambda b: b.task("Generation", [{"messages": [{"role": "assistant", "content": "a"}]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "line 1 has nothing before its answer",
    ),
    "rows that are all too long": (
        lambda b: b.task("Perplexity", [chat("q", "word " * 400)]),
        DataInvalid,
        Reason.DATASET_EMPTY,
        "longer than the 512 tokens of the base model; shorten",
    ),
    "answers that would be too long": (
        lambda b: b.task("Generation", facts(3), maxNewTokens=512),
        DataInvalid,
        Reason.DATASET_EMPTY,
        "lower maxNewTokens",
    ),
    "conversations without a chat template": (
        no_template,
        SettingsInvalid,
        Reason.CHAT_TEMPLATE_INVALID,
        "add chat_template",
    ),
    "a label that is not listed": (
        lambda b: b.task("Classification", [chat("q", "yes"), chat("r", "Yes"), chat("s", "x")], labels=LABELS),
        DataInvalid,
        Reason.LABEL_UNKNOWN,
        "2 of 3 rows .* 'Yes' at rows.jsonl line 2; add it to labels",
    ),
    "labels that are the same": (
        lambda b: b.task("Classification", [chat("q", "yes")], labels=["yes", "yes "]),
        SettingsInvalid,
        Reason.SETTINGS_INVALID,
        "make them distinct",
    ),
    "a choice without its answer": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "answer": None}]),
        DataInvalid,
        Reason.REFERENCE_MISSING,
        "rows.jsonl line 1; add the answers",
    ),
    "an answer beyond the choices": (
        lambda b: b.task("MultipleChoice", [CHOICES, {**CHOICES, "answer": 2}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "rows.jsonl line 2 has the answer 2, but its 2 choices count from 0",
    ),
    "an answer that is no choice": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "answer": "B"}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "neither an index nor one of its choices",
    ),
    "a single choice": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "choices": ["a bird"]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "2 to 64 texts",
    ),
    "a choice that is no text": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "choices": ["a", 1]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "blank or no text",
    ),
    "the same choice twice": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "choices": ["a", "a "]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "the same choice twice",
    ),
    "the same choice, its letters composed otherwise": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "choices": ["caf\u00e9", "cafe\u0301"]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "the same choice twice",
    ),
    "a choice that nobody sees": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "choices": ["a", "\u200b"]}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "blank or no text",
    ),
    "references that nobody sees": (
        lambda b: b.task("Generation", [*facts(2), chat("q", "\u200b\x00")]),
        DataInvalid,
        Reason.REFERENCE_MISSING,
        "1 of 3 rows .* rows.jsonl line 3",
    ),
    "a group that nobody sees": (
        lambda b: b.task("Perplexity", [{**row, "kind": "\u200b"} for row in facts(2)], groupBy="kind"),
        DataInvalid,
        Reason.GROUP_MISSING,
        "no row has a value",
    ),
    "a group with half of a letter": (
        lambda b: b.task("Perplexity", [{**row, "kind": "\ud800"} for row in facts(2)], groupBy="kind"),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "half of a surrogate pair in its kind",
    ),
    "a pair with half of a letter": (
        lambda b: b.task("Generation", [{**row, "pair": "\ud800"} for row in facts(2)], pairs="pair"),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "half of a surrogate pair in its pair",
    ),
    "choices of nothing": (
        lambda b: b.task("MultipleChoice", [{**CHOICES, "question": " "}]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "lacks a question",
    ),
    "choices in a list": (
        lambda b: raw(b, b"[1]", "MultipleChoice"),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "not an object",
    ),
    "choices of held-out rows": (
        lambda b: b.task("MultipleChoice"),
        SettingsInvalid,
        Reason.METRIC_NOT_APPLICABLE,
        "have no choices",
    ),
    "a number that is none": (
        lambda b: b.task("Regression", [chat("q", "4"), chat("r", "about four")]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "rows.jsonl line 2 has the answer 'about four'",
    ),
    "a number without end": (
        lambda b: b.task("Regression", [chat("q", "1e999")]),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "no finite number",
    ),
    "texts that answer nothing": (
        lambda b: b.task("Generation", [{"text": "all there is"}]),
        SettingsInvalid,
        Reason.METRIC_NOT_APPLICABLE,
        "make it a Perplexity task",
    ),
    # groups
    "rows without a group": (
        lambda b: b.task("Perplexity", [{**facts(1)[0], "kind": "a"}, *facts(2, start=1)], groupBy="kind"),
        DataInvalid,
        Reason.GROUP_MISSING,
        "2 of 3 rows .* the first is rows.jsonl line 2; add it",
    ),
    "a group column that does not exist": (
        lambda b: b.task("Perplexity", facts(3), groupBy="kind"),
        DataInvalid,
        Reason.GROUP_MISSING,
        "no row has a value in the column kind of groupBy; correct it",
    ),
    "a column that training did not keep": (
        lambda b: b.task("Perplexity", groupBy="kind"),
        DataInvalid,
        Reason.GROUP_MISSING,
        "only the column 'group' is kept: give the data by dataset.uri",
    ),
    "a group that is no text": (
        lambda b: b.task("Perplexity", [{**facts(1)[0], "kind": ["a"]}], groupBy="kind"),
        DataInvalid,
        Reason.DATASET_MALFORMED,
        "line 1 has a list in the column kind",
    ),
    "groups that are all too small": (
        lambda b: grouped(b, {"a": 31, "b": 20}),
        DataInvalid,
        Reason.GROUP_MISSING,
        r"two groups of at least 30 rows .* a \(31 rows\), b \(20 rows\); add rows",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_by_name_and_leaves_nothing_behind(bench: EvaluationBench, name: str) -> None:
    change, kind, reason, words = REFUSED[name]
    change(bench)
    with pytest.raises(kind, match=words) as caught:
        bench.prepare()
    assert caught.value.reason is reason
    assert not bench.output.list("evaluations/")


def test_groups_that_suffice_pooled_or_not_are_taken(bench: EvaluationBench) -> None:
    for sizes, threshold in (
        ({"a": 31, "b": 30}, {}),
        ({"a": 31, "b": 6}, {"minimumGroupRows": 6}),
        ({"a": 31, "b": 16, "c": 16}, {}),
    ):
        grouped(bench, sizes, **threshold)
        assert bench.prepare().prepared.rows == sum(sizes.values())


def test_a_group_of_few_clusters_is_no_group(bench: EvaluationBench) -> None:
    rows = facts(40, start=300)
    same = [{**row, "group": f"g{index % 4}", "kind": "b"} for index, row in enumerate(rows[20:])]
    bench.task("Perplexity", [*({**row, "kind": "a"} for row in rows[:20]), *same], groupBy="kind")
    bench.document["thresholds"] = [{"metric": "task/perplexity", "maximumGroupGap": 0.1, "minimumGroupRows": 10}]
    with pytest.raises(DataInvalid, match="at least 10 rows and 5 clusters") as caught:
        bench.prepare()
    assert caught.value.reason is Reason.GROUP_MISSING


def test_two_tokenizers_are_taken_where_nothing_is_compared_by_token(bench: EvaluationBench) -> None:
    other_tokenizer(bench)
    bench.document["thresholds"] = [{"metric": "heldout/bitsPerByte", "maximumRegression": 0.1}]
    assert bench.prepare().prepared.baseline_digest == bench.document["baseline"]["artifact"]["digest"]


def test_a_template_that_leaves_the_answer_out_is_refused(plain: EvaluationBench) -> None:
    """It writes the answer of the probe, and no other."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
        "(m['content'] if m['role'] == 'user' or m['content'] == 'Answer' else '') }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    make_tiny_model(plain.base, chat_template=template)
    plain.task("Classification", [chat("q", "yes")], labels=LABELS)
    words = r"rows.jsonl line 1: .*leaves out content of message 2"
    with pytest.raises(DataInvalid, match=words) as caught:
        plain.prepare()
    assert caught.value.reason is Reason.FORMAT_UNKNOWN
    plain.task("Perplexity", facts(2))
    with pytest.raises(DataInvalid, match=words):
        plain.prepare()


def test_a_template_that_asks_otherwise_than_it_answers_is_refused(plain: EvaluationBench) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ 'A: ' }}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ 'Q: ' + m['content'] + '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Reply: ' }}{% endif %}"
    )
    make_tiny_model(plain.base, chat_template=template)
    plain.task("Generation", facts(2))
    with pytest.raises(SettingsInvalid, match="not how it writes the answer") as caught:
        plain.prepare()
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


def test_a_tokenizer_of_another_model_is_refused(plain: EvaluationBench, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "larger", vocabulary=400)
    (plain.base / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    plain.task("Perplexity", [{"text": text} for text in ("the quick brown fox jumps over the lazy dog", "retries")])
    with pytest.raises(SettingsInvalid, match="its embedding has 384") as caught:
        plain.prepare()
    assert caught.value.reason is Reason.BASE_MODEL_INVALID
