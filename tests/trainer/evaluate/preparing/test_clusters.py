"""What is drawn together when rows are resampled, and which rows the target was trained on."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat, Reason
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.errors import DataInvalid
from trimtab_trainer.evaluate.preparing.clusters import (
    COMMON_ROWS,
    SIMILARITY,
    Components,
    join_near_duplicates,
    leak_keys,
    shingles,
)
from trimtab_trainer.evaluate.preparing.questions import Question
from trimtab_trainer.storage import ObjectDamaged

from tests.trainer.evaluate.bench import EvaluationBench, chat, facts
from tests.trainer.evaluate.scored import task


def clusters(bench: EvaluationBench) -> list[int]:
    tasks = bench.tasks()
    found = [row.cluster for row in tasks.rows("task")]
    assert tasks.tasks[0].clusters == len(set(found))
    return found


ANSWER = "It says how many retries there are."

CASES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], list[int]]] = {
    "rows that have nothing in common": ("Perplexity", facts(3, start=300), {}, [0, 1, 2]),
    "one answer to two questions": (
        "Generation",
        [
            chat("What is backoffLimit?", ANSWER),
            facts(1, start=300)[0],
            chat("Explain the limit.", ANSWER.upper() + " "),
        ],
        {},
        [0, 1, 0],
    ),
    "short answers agree by chance": (
        "Generation",
        [chat("Is the sky of Mars blue?", "no, never"), chat("Do fish drive cars to work?", "no, never")],
        {},
        [0, 1],
    ),
    "labels are shared by many": (
        "Classification",
        [chat("Is the sky of Mars blue?", "no it is not"), chat("Do fish drive cars to work?", "no it is not")],
        {"labels": ["no it is not", "yes it is"]},
        [0, 1],
    ),
    "numbers too": ("Regression", [chat("How wide is it?", "4"), chat("How many legs has a cat?", "4")], {}, [0, 1]),
    "a group keeps its rows together": (
        "Perplexity",
        [{**row, "group": group} for row, group in zip(facts(4, start=300), ["a", "b", "a", 7], strict=True)],
        {},
        [0, 1, 0, 2],
    ),
    "labels of one group": (
        "Classification",
        [
            chat("Is Mars blue?", "no", group="g"),
            chat("Do fish drive?", "no"),
            chat("Can a stone sing?", "no", group="g"),
        ],
        {"labels": ["no", "yes"]},
        [0, 1, 0],
    ),
    "groups that are compared are not drawn": (
        "Perplexity",
        [{**row, "group": group} for row, group in zip(facts(4, start=300), ["a", "b", "a", "b"], strict=True)],
        {"groupBy": "group"},
        [0, 1, 2, 3],
    ),
    "nearly the same text": (
        "Perplexity",
        [
            {"text": "The controller watches the pods and starts another one whenever one of them ends early or late."},
            {"text": "Something else is written in this one, which shares nothing with either of its neighbours."},
            {"text": "the controller watches the pods, and starts another one whenever one of them ends early or late"},
        ],
        {},
        [0, 1, 0],
    ),
    "nearly the same question with choices": (
        "MultipleChoice",
        [
            {"question": "Which of these animals can fly over the sea?", "choices": ["cat", "gull"], "answer": 1},
            {"question": "Which of these animals can fly over the sea??", "choices": ["dog", "gull"], "answer": 1},
        ],
        {},
        [0, 0],
    ),
    "one question with two answers": (
        "Generation",
        [chat("Name a fruit.", "an apple"), chat("Name a river.", "the Rhine"), chat("Name a fruit.", "some pear")],
        {},
        [0, 1, 0],
    ),
    "one question of two groups": (
        "Classification",
        [chat("Is it?", "no", size="s"), chat("Is it?", "no", size="m"), chat("Does it?", "yes", size="m")],
        {"labels": ["no", "yes"], "groupBy": "size"},
        [0, 0, 1],
    ),
    "one question with other choices": (
        "MultipleChoice",
        [
            {"question": "Which one flies?", "choices": ["a dog", "a gull"], "answer": 1},
            {"question": "Which one flies?", "choices": ["some stone", "one sparrow"], "answer": 1},
        ],
        {},
        [0, 1],
    ),
    "one question whose answers are the row's own": (
        "Perplexity",
        [chat("Name a fruit.", "an apple"), chat("Name a fruit.", "some pear")],
        {},
        [0, 1],
    ),
    "all through one chain": (
        "Generation",
        [
            chat("What is backoffLimit for?", ANSWER),
            chat("Explain the limit, please.", ANSWER, group="g"),
            {**facts(1, start=300)[0], "group": "g"},
        ],
        {},
        [0, 0, 0],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_drawn_together(bench: EvaluationBench, name: str) -> None:
    kind, rows, settings, want = CASES[name]
    bench.task(kind, rows, **settings)
    assert clusters(bench) == want


def test_an_instruction_that_all_rows_repeat_makes_no_duplicates(bench: EvaluationBench) -> None:
    instruction = "Read the text below with care and then say in one word which mood its writer was in: "
    subjects = [row["messages"][1]["content"] for row in facts(COMMON_ROWS + 5, start=300)]
    rows = [chat(instruction + subject, "glad") for subject in subjects]
    bench.task("Classification", rows, labels=["glad", "sad"])
    assert clusters(bench) == list(range(COMMON_ROWS + 5))
    system = {"role": "system", "content": instruction}
    few = [{"messages": [system, *row["messages"]]} for row in facts(5, start=300)]
    bench.task("Perplexity", few)
    assert clusters(bench) == list(range(5)), "system messages are no part of a row's own text"


def test_near_duplicates_are_those_of_at_least_the_stated_similarity() -> None:
    """Against every pair compared exactly: the hashing finds them all, and no other."""
    draw = random.Random(3)
    words = [f"word{index}" for index in range(400)]
    texts = []
    for _ in range(60):
        text = draw.sample(words, 40)
        texts.append(" ".join(text))
        changed = list(text)
        for position in draw.sample(range(40), draw.choice([1, 1, 2, 4])):
            changed[position] = draw.choice(words)
        texts.append(" ".join(changed))
    rows = [shingles(text) for text in texts]
    want = Components(len(rows))
    pairs = 0
    for left in range(len(rows)):
        for right in range(left):
            if len(rows[left] & rows[right]) / len(rows[left] | rows[right]) >= SIMILARITY:
                want.join(left, right)
                pairs += 1
    assert 10 < pairs < 60
    found = Components(len(rows))
    join_near_duplicates(rows, found)
    assert found.numbers() == want.numbers()


def test_short_texts_are_compared_by_their_words() -> None:
    assert shingles("") == frozenset()
    assert shingles("Two words!") == {"two words"}
    assert shingles("One, TWO three\nfour") == {"one two three", "two three four"}


def test_rows_that_were_trained_on_are_told_by_their_answers(bench: EvaluationBench) -> None:
    old, new = facts(40)[:4], facts(16, start=300)
    paraphrased = [chat("Quite another question?", row["messages"][1]["content"].upper()) for row in old]
    bench.document["maximumTrainedOnRatio"] = 0.25
    bench.task("Generation", [*new, *paraphrased])
    tasks = bench.tasks()
    held_out = {row.reference.casefold() for row in heldout(bench)}
    want = [reference not in held_out for reference in (row.reference.casefold() for row in tasks.rows("task")[16:])]
    assert [row.trained_on for row in tasks.rows("task")] == [False] * 16 + want
    assert tasks.tasks[0].trained_on == sum(want) >= 2
    bench.document["maximumTrainedOnRatio"] = 0.05
    with pytest.raises(DataInvalid, match=rf"trained on {sum(want)} of its 20 rows .* at most 5%") as caught:
        bench.prepare()
    assert caught.value.reason is Reason.TRAINED_ON


def heldout(bench: EvaluationBench) -> Any:
    other = EvaluationBench(bench.base, bench.store, bench.folder / "heldout", {**bench.document})
    other.folder.mkdir()
    other.task("Perplexity")
    return other.tasks().rows("task")


def test_rows_that_were_trained_on_are_told_by_their_group(bench: EvaluationBench) -> None:
    bench.document["target"] = bench.train([{**row, "group": "g"} for row in facts(10)], test=None, seed=2)
    rows = [chat("Is it red?", "yes", group="g"), chat("Is it blue and wet?", "no", group="h")]
    bench.document["maximumTrainedOnRatio"] = 0.5
    bench.task("Classification", rows, labels=["yes", "no"])
    assert [row.trained_on for row in bench.tasks().rows("task")] == [True, False]


def test_a_label_that_was_learned_is_no_row_that_was_trained_on(bench: EvaluationBench) -> None:
    rows = [chat(f"Is {each} red?", "yes") for each in "abcdef"]
    bench.document["target"] = bench.train([*rows, chat("Is z red?", "no")], test=None, seed=2)
    bench.task("Classification", [chat("Is the river red?", "yes")], labels=["yes", "no"])
    assert not bench.tasks().rows("task")[0].trained_on
    bench.task("Generation", [chat("Is the river red?", "yes")])
    with pytest.raises(DataInvalid, match="trained on 1 of its 1 rows"):
        bench.prepare()


def test_what_training_held_out_was_not_trained_on(remote: EvaluationBench) -> None:
    remote.task("Perplexity")
    assert remote.tasks().tasks[0].trained_on == 0
    assert not remote.said("what the target was trained on is unknown")


def test_the_base_model_was_trained_on_nothing(bench: EvaluationBench) -> None:
    del bench.document["target"]
    bench.task("Generation", facts(4))
    assert bench.tasks().tasks[0].trained_on == 0
    assert not bench.said("what the target was trained on is unknown")


def test_what_was_trained_on_may_have_expired(bench: EvaluationBench) -> None:
    bench.task("Generation", facts(8))
    bench.output.delete([info.path for info in bench.output.list("data/views/")])
    assert bench.tasks().tasks[0].trained_on == 0
    (event,) = bench.said("what the target was trained on is unknown")
    assert (event["level"], "data of its run is gone" in event["message"]) == ("warning", True)


def test_a_damaged_list_of_what_was_trained_on_is_not_believed(bench: EvaluationBench) -> None:
    path = next(info.path for info in bench.output.list("data/views/") if info.path.endswith("train-clusters.txt"))
    bench.output.put(path, b"00\n")
    with pytest.raises(ObjectDamaged, match="restore"):
        bench.prepare()


def test_an_adapter_that_was_copied_elsewhere_says_nothing_of_its_data(bench: EvaluationBench) -> None:
    uri = bench.document["target"]["uri"]
    elsewhere = shutil.copytree(Path(uri.removeprefix("file://")), bench.folder / "my copy")
    bench.document["target"]["uri"] = elsewhere.as_uri()
    bench.task("Generation", facts(8))
    assert bench.tasks().tasks[0].trained_on == 0
    assert "outside of its output" in bench.said("what the target was trained on is unknown")[0]["message"]


def test_a_group_is_known_in_older_lists_as_it_was_written() -> None:
    def keys(group: str) -> tuple[bytes, ...]:
        row = Row("here", DatasetFormat.PROMPT_COMPLETION, prompt="p", completion="yes", group=group)
        return leak_keys(task("Classification"), Question(row, b"", None, "yes"))

    assert hashlib.sha256(b"group\0g \n").digest() in keys("g \n")
    assert keys("g") == (hashlib.sha256(b"group\0g").digest(),)
    assert keys("g")[0] in keys("g \n")
