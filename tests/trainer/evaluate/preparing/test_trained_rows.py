"""Rows that a model was trained on, by prompt and by text, of target, baseline and anchor."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.evaluate.preparing.trained_rows import among, asked_document, asked_row, prompts_of

from tests.trainer.evaluate.bench import EvaluationBench, chat, facts

STORY = "The old lighthouse keeper walked down to the harbour every morning to count the boats that had come home."


def trained(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "train.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as opened:
        opened.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def text(value: str) -> dict[str, Any]:
    return {"text": value}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the same question, answered otherwise": (
        chat("Who counts boats?", "The keeper."),
        chat("WHO counts boats", "No."),
        True,
    ),
    "another question": (chat("Who counts boats?", "The keeper."), chat("Who counts the cars?", "Nobody."), False),
    "a question of two words is anybody's": (chat("Go on.", "The keeper."), chat("Go on.", "A car."), False),
    "the same text": (text(STORY), text(STORY), True),
    "a text within a longer one": (text(f"Once upon a time. {STORY} So it was, for years."), text(STORY), True),
    "a text of which two words differ": (text(STORY), text(STORY.replace("old", "new").replace("come", "gone")), False),
    "a text of which one word differs": (text(f"{STORY} {STORY[:60]}"), text(STORY.replace("old", "new")), True),
    "another text": (
        text(STORY),
        text("A red fox jumped over the lazy dog, and the dog did not care about it at all."),
        False,
    ),
    "a short text alone": (text("One two three."), text("one, two, three"), True),
    "a short text within another": (text(f"One two three. {STORY}"), text("one, two, three"), False),
    "an earlier turn of a conversation": (
        {"messages": [*chat("Who counts boats?", "He.")["messages"], *chat("And who else?", "She.")["messages"]]},
        chat("Who counts boats?", "It is the keeper."),
        True,
    ),
    "a prompt and its completion": (
        {"prompt": "Who counts boats?", "completion": "He."},
        chat("Who counts boats?", "The keeper does."),
        True,
    ),
    "a pair": (
        {"prompt": "Who counts boats?", "chosen": "He.", "rejected": "She."},
        {"prompt": "Who counts boats?", "completion": "They do."},
        True,
    ),
}


@pytest.mark.parametrize(("row", "asked", "want"), CASES.values(), ids=CASES)
def test_a_row_is_recognised_by_its_prompt_or_its_text(
    tmp_path: Path, row: dict[str, Any], asked: dict[str, Any], want: bool
) -> None:
    file = trained(tmp_path, [*facts(30), row])
    assert among([asked_row(facts(1, 500)[0]), asked_row(asked)], file) == [False, want]


UNSEEN = {
    "soft hyphens": "\u00ad",
    "zero-width spaces": "\u200b",
    "joiners": "\u200d",
    "word joiners": "\u2060",
    "direction marks": "\u202a",
    "variation selectors": "\ufe0f",
    "tags": "\U000e0061",
    "grapheme joiners": "\u034f",
    "Hangul fillers": "\u1160",
    "control characters": "\x01",
}


@pytest.mark.parametrize("inside", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("trained_as", [False, True], ids=["in what is asked", "in what was trained on"])
def test_characters_that_nobody_sees_hide_no_row(tmp_path: Path, inside: str, trained_as: bool) -> None:
    def hidden(value: str) -> str:
        return " ".join(inside.join(word) for word in value.split())

    question, answer = "Who counts the boats?", "The keeper."
    plain = [text(STORY), chat(question, answer)]
    strange = [text(hidden(STORY)), chat(hidden(question), "No.")]
    rows, asked = (strange, plain) if trained_as else (plain, strange)
    file = trained(tmp_path, [*facts(30), *rows])
    assert among([asked_row(each) for each in asked], file) == [True, True]


def test_a_text_with_other_punctuation_is_recognised(tmp_path: Path) -> None:
    file = trained(tmp_path, [*facts(30), text(STORY)])
    assert among([asked_row(text(STORY.upper().replace(".", "!")))], file) == [True]


def test_an_instruction_that_many_rows_repeat_is_no_sign(tmp_path: Path) -> None:
    rows = [{"prompt": "Tell me a story.", "completion": row["messages"][1]["content"]} for row in facts(60)]
    asked = [asked_row({"prompt": "Tell me a story.", "completion": STORY})]
    assert among(asked, trained(tmp_path, rows)) == [False]
    assert among(asked, trained(tmp_path, [*rows[:20], *facts(60)])) == [True], "twenty rows are few enough"


def test_any_text_of_a_document_may_be_what_is_asked(tmp_path: Path) -> None:
    file = trained(tmp_path, [*facts(30), chat("Which number follows 3?", "It is four.")])
    documents: list[dict[str, Any]] = [
        {"q": "Which number follows 3?", "options": ["4", "a fox"], "right": 0},
        {"q": "Which letter is that?"},
    ]
    assert among([asked_document(each) for each in documents], file) == [True, False]


def test_what_was_asked_is_all_that_stands_before_an_answer() -> None:
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *chat("Who?", "He.")["messages"],
            *chat("And then?", "She.")["messages"],
        ]
    }
    assert [*prompts_of(row)] == ["Who?", "Who?\nHe.\nAnd then?"]
    assert [*prompts_of({"text": "a"})] == []


def test_a_question_that_was_trained_on_is_refused_of_rows_of_their_own(bench: EvaluationBench) -> None:
    bench.document["target"] = bench.train(facts(40), test=None, seed=3)
    rows = [chat(facts(1, number)[0]["messages"][0]["content"], "yes") for number in range(5)]
    asked = [*rows, *(chat(f"Is the moon {n} times as far?", "no") for n in range(15))]
    bench.task("Classification", asked, labels=["yes", "no"])
    with pytest.raises(DataInvalid, match=r"trained on 5 of its 20 rows \(the same answer, group or prompt") as caught:
        bench.prepare()
    assert caught.value.reason is Reason.TRAINED_ON
    bench.document["maximumTrainedOnRatio"] = 0.25
    tasks = bench.tasks()
    assert [row.trained_on for row in tasks.rows("task")] == [True] * 5 + [False] * 15
    assert (tasks.tasks[0].trained_on, tasks.tasks[0].compared) == (5, ["prompts", "texts"])


def test_held_out_rows_that_training_left_alike_are_counted_and_not_refused(bench: EvaluationBench) -> None:
    alike = [chat("What was seen, and where?", row["messages"][1]["content"]) for row in facts(20, start=100)]
    bench.document["target"] = bench.train([*facts(20), *alike], test=0.3, seed=4)
    bench.task("Perplexity")
    told = bench.tasks().tasks[0]
    assert told.trained_on > 0.05 * told.rows
    assert told.compared == ["answers", "prompts", "texts"]


def test_what_the_baseline_was_trained_on_is_told_and_refuses_nothing(bench: EvaluationBench) -> None:
    bench.document["baseline"] = {"artifact": bench.train(facts(20, start=600), test=None, seed=5)}
    bench.document["anchor"] = {}
    bench.task("Generation", facts(20, start=590))
    told = bench.tasks().tasks[0]
    assert [(each.role, each.trained_on) for each in told.others] == [("baseline", 10)]
    assert told.others[0].compared == ["answers", "prompts", "texts"]
    assert told.trained_on == 0


def test_an_older_training_kept_no_rows_so_prompts_are_not_said_to_be_checked(bench: EvaluationBench) -> None:
    for path in [info.path for info in bench.output.list("data/views/") if info.path.endswith("/MANIFEST.json")]:
        document = json.loads(bench.output.read(path))
        document["files"] = [each for each in document["files"] if each["path"] != "train.jsonl.gz"]
        bench.output.put(path, json.dumps(document).encode())
    bench.task("Generation", facts(8, start=700))
    assert bench.tasks().tasks[0].compared == ["answers"]
    (event,) = bench.said("prompts and texts that the target was trained on are unknown")
    assert event["level"] == "warning"


def test_documents_of_a_harness_task_are_compared_too(bench: EvaluationBench) -> None:
    asked = facts(1)[0]["messages"][0]["content"]
    bench.document["target"] = bench.train(facts(30), test=None, seed=6)
    yaml = re.sub(
        r"^ *", "", "task: t\ndataset_path: json\ntest_split: test\noutput_type: generate_until\n", flags=re.M
    ) + (
        "dataset_kwargs: {data_files: {test: test.jsonl}}\n"
        'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
    )
    bench.store.put("harness/t.yaml", yaml.encode())
    lines = [{"q": asked, "a": "x"}, *({"q": f"Is {n} a prime number?", "a": "x"} for n in range(4))]
    bench.store.put("harness/test.jsonl", "".join(json.dumps(each) + "\n" for each in lines).encode())
    uri = f"{bench.root}/harness/"
    bench.document["tasks"] = [{"name": "t", "type": "Harness", "dataset": {"uri": uri}, "harnessTask": "t"}]
    with pytest.raises(DataInvalid, match=r"trained on 1 of its 5 rows .* the first is doc 0;"):
        bench.prepare()
    bench.document["maximumTrainedOnRatio"] = 0.2
    told = bench.tasks().tasks[0]
    assert (told.trained_on, told.compared) == (1, ["prompts", "texts"])
