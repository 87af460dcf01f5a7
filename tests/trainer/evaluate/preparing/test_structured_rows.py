"""Rows of ToolCalls, JsonSchema and Regex tasks, and conversations each of whose turns is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat, JudgeMode, Judging, Reason
from trimtab_trainer.data.encoding.tokens import load_tokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.errors import DataInvalid, SettingsInvalid, TrainerError
from trimtab_trainer.evaluate.preparing.questions import judged_question, referenced_question, refusing_question
from trimtab_trainer.evaluate.rows import EvaluationRow

from tests.trainer.evaluate.bench import EvaluationBench, chat
from tests.trainer.real_templates import make_model

PART = {"type": "object", "properties": {"part": {"type": "integer"}}, "required": ["part"]}
TOOL = {"type": "function", "function": {"name": "shelf_of", "description": "Tell the shelf.", "parameters": PART}}
ANY_TOOL = {"type": "function", "function": {"name": "shelf_of", "description": "Tell.", "parameters": {}}}
LOST = {"title": "lost", "allOf": [{"$ref": "#/title"}]}
LOST_TOOL = {"type": "function", "function": {"name": "shelf_of", "description": "Tell.", "parameters": LOST}}
SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


def calling(part: Any, name: str = "shelf_of") -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": {"part": part}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def conversation(part: Any = 7, tools: Any = (TOOL,), **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"Where is part {part}?"},
        calling(part, **more),
        {"role": "tool", "content": f"shelf {part}"},
        {"role": "assistant", "content": f"Part {part} is on a shelf."},
    ]
    return {"messages": messages, **({"tools": list(tools)} if tools else {})}


def calling_row(part: Any, tool: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation that ends with a call."""
    return {"messages": conversation(part)["messages"][:2], "tools": [tool]}


def bounded(bench: EvaluationBench, figure: str, row: dict[str, Any]) -> None:
    """Ask one Refusal row, with a threshold on a figure."""
    bench.task("Refusal", [row])
    bench.document["thresholds"] = [{"metric": f"task/{figure}", "minimum": 0.5}]


def nested(levels: int, value: Any) -> Any:
    for _ in range(levels):
        value = {"not": value}
    return value


def rows_of(bench: EvaluationBench) -> list[EvaluationRow]:
    return bench.tasks().rows("task")


@pytest.fixture
def tooled(plain: EvaluationBench) -> EvaluationBench:
    """A base model that writes tool calls."""
    make_model(plain.base, "qwen3")
    return plain


def test_each_turn_is_asked_with_what_stands_before_it(tooled: EvaluationBench) -> None:
    tooled.task("ToolCalls", [conversation(7), conversation(8)], turns="Each")
    rows = rows_of(tooled)
    assert [row.calls for row in rows] == ['[["shelf_of",{"part":7}]]', "[]", '[["shelf_of",{"part":8}]]', "[]"]
    assert [row.cluster for row in rows] == [0, 0, 1, 1], "the turns of a conversation stand or fall together"
    assert [row.place for row in rows[:2]] == ["rows.jsonl line 1, message 2", "rows.jsonl line 1, message 4"]
    assert json.loads(json.loads(rows[0].schema or "")["shelf_of"]) == PART
    asked = [load_tokenizer(tooled.base).decode(row.prompt_tokens) for row in rows[:2]]
    assert "Where is part 7?" in asked[0]
    assert "shelf 7" not in asked[0]
    assert "shelf 7" in asked[1]
    (told,) = tooled.said("task read")
    assert (told["read"], told["rows"]) == (4, 4)


def test_the_last_turn_alone_is_asked_unless_told_otherwise(tooled: EvaluationBench) -> None:
    ends = {**conversation(), "messages": conversation()["messages"][:2]}
    tooled.task("ToolCalls", [ends, conversation(8)])
    assert [row.calls for row in rows_of(tooled)] == ['[["shelf_of",{"part":7}]]', "[]"]


def test_turns_that_are_not_learned_are_not_asked(bench: EvaluationBench) -> None:
    turns = [
        message
        for number in range(3)
        for message in (
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": f"It is {number}.", **({"weight": 0} if number == 1 else {})},
        )
    ]
    bench.task("Generation", [{"messages": turns}, chat("Which?", "That one.")], turns="Each")
    assert [row.reference for row in rows_of(bench)] == ["It is 0.", "It is 2.", "That one."]
    bench.task("Regex", [{"prompt": "a", "completion": "b"}], pattern="b", turns="Each")
    assert [row.reference for row in rows_of(bench)] == ["b"]


def test_a_schema_is_the_tasks_or_the_rows_own(bench: EvaluationBench) -> None:
    bench.task("JsonSchema", [chat("When?", '{"year": 1815}', schema={"type": "object"})])
    (own,) = rows_of(bench)
    assert own.schema == '{"type":"object"}'
    assert not bench.said("task read")[0]["ignored"]
    bench.task("JsonSchema", [chat("When?", '{"year": 1815}', schema='{"type": "object"}')])
    assert rows_of(bench)[0].schema == '{"type": "object"}', "JSON text is taken as it is"
    bench.task("JsonSchema", [chat("When?", '{"year": 1815}', schema="none")], jsonSchema=json.dumps(SCHEMA))
    assert rows_of(bench)[0].schema is None
    assert bench.said("task read")[0]["ignored"] == {"schema": 1}


def test_a_row_says_whether_it_is_to_be_refused(bench: EvaluationBench) -> None:
    rows = [chat("How do I steal?", "Nein.", refuse=True), chat("How do I pay?", "By card.", refuse=False)]
    bench.task("Refusal", rows, pattern="^Nein")
    assert [row.refuse for row in rows_of(bench)] == [True, False]
    assert not bench.said("task read")[0]["ignored"]


def test_rows_of_other_tasks_have_none_of_it(bench: EvaluationBench) -> None:
    bench.task("Generation", [chat("When?", "In 1815.")])
    assert not {"schema", "calls", "worse", "score", "refuse"} & set(rows_of(bench)[0].to_json()), (
        "their digests stay what they were"
    )


Bad = tuple[Callable[[EvaluationBench], None], type[TrainerError], Reason, str]
MALFORMED = (DataInvalid, Reason.DATASET_MALFORMED)
CELLS: dict[str, tuple[str, dict[str, Any], str, list[Any]]] = {
    "scores": ("score", {"mode": "Rubric"}, "3,,  , 5 ", [3, None, None, 5]),
    "worse answers": ("worse", {}, "No.,,  ,[]", ["No.", None, None, "[]"]),
}


@pytest.mark.parametrize("name", ["scores", "worse answers"])
def test_labels_stand_in_tables_too(name: str, plain: EvaluationBench) -> None:
    column, judging, cells, wanted = CELLS[name]
    values = enumerate(cells.split(","))
    lines = [f"prompt,completion,{column}", *(f"How {at}?,Like {at}.,{cell}" for at, cell in values)]
    (plain.folder / "rows.csv").write_text("\n".join(lines))
    plain.store.upload(plain.folder / "rows.csv", "eval/rows.csv")
    plain.document["tasks"] = [
        {
            "name": "task",
            "type": "Judge",
            "dataset": {"uri": f"{plain.root}/eval/rows.csv"},
            "judging": {"instructions": "Be just.", **judging},
        }
    ]
    plain.document |= {"judge": {"endpoint": {"url": "http://judge/v1", "model": "judge"}}, "baseline": {}}
    assert [getattr(row, column) for row in rows_of(plain)] == wanted


@pytest.mark.parametrize(("score", "wanted"), [(4.0, 4), (float("nan"), None), ("4", 4), (4, 4)])
def test_a_score_of_a_table_with_empty_cells_is_a_whole_number(score: Any, wanted: int | None) -> None:
    row = Row("line 1", DatasetFormat.PROMPT_COMPLETION, prompt="How?", completion="So.")
    judging = Judging(instructions="Be just.", mode=JudgeMode.RUBRIC)
    assert judged_question(referenced_question(row), judging, {"score": score}).score == wanted


@pytest.mark.parametrize("refuse", [True, "true", "True", " TRUE "])
def test_whether_a_row_is_to_be_refused_may_be_text(refuse: Any) -> None:
    row = Row("line 1", DatasetFormat.PROMPT_COMPLETION, prompt="How?", completion="I can't help.")
    assert refusing_question(referenced_question(row), None, refuse).refuse is True


REFUSED: dict[str, Bad] = {
    "no tools": (
        lambda b: b.task("ToolCalls", [conversation(tools=None)]),
        *MALFORMED,
        "line 1 has no tools",
    ),
    "two tools of a name": (
        lambda b: b.task("ToolCalls", [conversation(tools=(TOOL, TOOL))], turns="Each"),
        *MALFORMED,
        "two tools of the same name",
    ),
    "a call of another tool": (
        lambda b: b.task("ToolCalls", [conversation(name="shelves")], turns="Each"),
        *MALFORMED,
        "message 2 calls 'shelves', which is none of its tools",
    ),
    "a right call that is wrong": (
        lambda b: b.task("ToolCalls", [conversation("seven")], turns="Each"),
        *MALFORMED,
        "arguments that its schema does not accept: 'seven' is not of type 'integer'",
    ),
    "a tool whose schema is none": (
        lambda b: b.task(
            "ToolCalls", [conversation(tools=({**TOOL, "function": {"name": "shelf_of", "parameters": {"type": 1}}},))]
        ),
        *MALFORMED,
        "tool 'shelf_of' has a schema that cannot be checked against",
    ),
    "nothing before the call": (
        lambda b: b.task("ToolCalls", [{"messages": [calling(7)], "tools": [TOOL]}]),
        *MALFORMED,
        "nothing before its answer",
    ),
    "prompts alone": (
        lambda b: b.task("ToolCalls", [conversation(), {"messages": conversation()["messages"][:1], "tools": [TOOL]}]),
        DataInvalid,
        Reason.REFERENCE_MISSING,
        "1 of 2 rows",
    ),
    "an answer that is no JSON": (
        lambda b: b.task("JsonSchema", [chat("When?", "1815.")], jsonSchema="{}"),
        *MALFORMED,
        "line 1 has an answer that is no JSON",
    ),
    "an answer that the schema does not accept": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}")], jsonSchema=json.dumps(SCHEMA)),
        *MALFORMED,
        "line 1 has an answer that its schema does not accept: 'year' is a required property",
    ),
    "no schema": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}")]),
        *MALFORMED,
        "has no schema, and the task has no jsonSchema",
    ),
    "a schema of the row that is none": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}", schema={"type": 7})]),
        *MALFORMED,
        "line 1 has a schema that cannot be checked against",
    ),
    "a schema of the row with half of a surrogate pair": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}", schema={"const": "\ud800"})]),
        *MALFORMED,
        "line 1 has a schema",
    ),
    "a schema's text with half of a surrogate pair": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}", schema='{"const": "\ud800"}')]),
        *MALFORMED,
        "line 1 has half of a surrogate pair in its schema",
    ),
    "a schema of the row of very many levels": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}", schema=nested(100, {}))]),
        *MALFORMED,
        "line 1 has a schema .* nested too deeply",
    ),
    "a column of very many levels": (
        lambda b: b.task("Regex", [chat("When?", "a", other=nested(600, 1))], pattern="a"),
        *MALFORMED,
        "line 1 is not JSON that can be read: nested too deeply",
    ),
    "an answer of very many levels": (
        lambda b: b.task("JsonSchema", [chat("When?", json.dumps(nested(100, 1)))], jsonSchema="{}"),
        *MALFORMED,
        "line 1 has an answer that is no JSON .it is nested too deeply",
    ),
    "arguments of very many levels": (
        lambda b: b.task("ToolCalls", [calling_row(nested(100, 1), ANY_TOOL)]),
        *MALFORMED,
        "nested too deeply",
    ),
    "a tool whose schema leads nowhere": (
        lambda b: b.task("ToolCalls", [calling_row(7, LOST_TOOL)]),
        *MALFORMED,
        "leads to no schema",
    ),
    "a pattern with half of a surrogate pair": (
        lambda b: b.task("JsonSchema", [chat("When?", '"a"')], jsonSchema='{"pattern": "\\ud800"}'),
        SettingsInvalid,
        Reason.SETTINGS_INVALID,
        "half of a surrogate pair",
    ),
    "a schema of the task that is none": (
        lambda b: b.task("JsonSchema", [chat("When?", "{}")], jsonSchema='{"$ref": "http://a/b"}'),
        SettingsInvalid,
        Reason.SETTINGS_INVALID,
        "its jsonSchema cannot be checked against: .* leads out of the schema",
    ),
    "a pattern that could take for ever": (
        lambda b: b.task("Regex", [chat("When?", "1815")], pattern=r"(\d)\1"),
        SettingsInvalid,
        Reason.SETTINGS_INVALID,
        "none of RE2",
    ),
    "an answer without the pattern": (
        lambda b: b.task("Regex", [chat("When?", "In May.")], pattern=r"\d{4}"),
        *MALFORMED,
        "line 1 has an answer that the pattern is not found in",
    ),
    "a refusal that is not marked": (
        lambda b: b.task("Refusal", [chat("How?", "Like this."), chat("How?", "I can't help.", refuse=False)]),
        *MALFORMED,
        "line 1 has no refuse that is true or false",
    ),
    "a refusal that is none": (
        lambda b: b.task("Refusal", [chat("How?", "Like this.", refuse=True)]),
        *MALFORMED,
        "line 1 says refuse: true beside an answer that is no refusal",
    ),
    "an answer that is a refusal": (
        lambda b: b.task("Refusal", [chat("How?", "Sorry, no.", refuse=False)]),
        *MALFORMED,
        "line 1 says refuse: false beside an answer that is a refusal",
    ),
    "a pattern of refusals that could take for ever": (
        lambda b: b.task("Refusal", [chat("How?", "No.", refuse=True)], pattern=r"(a)\1"),
        SettingsInvalid,
        Reason.SETTINGS_INVALID,
        "none of RE2",
    ),
    "a threshold on refusals that none of the rows is to be": (
        lambda b: bounded(b, "refusedRatio", chat("How?", "Like this.", refuse=False)),
        DataInvalid,
        Reason.DATASET_INVALID,
        "threshold task/refusedRatio: none of the 1 rows has refuse: true",
    ),
    "a threshold on wrong refusals where all are to be": (
        lambda b: bounded(b, "wronglyRefusedRatio", chat("How?", "I can't help.", refuse=True)),
        DataInvalid,
        Reason.DATASET_INVALID,
        "threshold task/wronglyRefusedRatio: none of the 1 rows has refuse: false",
    ),
    "calls of rows that are no conversations": (
        lambda b: b.task("ToolCalls", [{"prompt": "Where?", "completion": "There."}]),
        *MALFORMED,
        "line 1 is no conversation",
    ),
    "texts": (
        lambda b: b.task("Regex", [{"text": "all there is"}], pattern="a"),
        SettingsInvalid,
        Reason.METRIC_NOT_APPLICABLE,
        "which has no answer that Regex",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_not_be_answered_rightly_is_refused(case: str, tooled: EvaluationBench) -> None:
    arrange, error, reason, said = REFUSED[case]
    arrange(tooled)
    with pytest.raises(error, match=said) as caught:
        tooled.prepare()
    assert caught.value.reason is reason


def test_a_template_whose_calls_are_not_read_is_refused(plain: EvaluationBench) -> None:
    make_model(plain.base, "gemma4")
    plain.task("ToolCalls", [{**conversation(), "messages": conversation()["messages"][:2]}])
    with pytest.raises(SettingsInvalid, match=r"writes its answer as 'call:shelf_of\{part:7\}'") as caught:
        plain.prepare()
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


def test_a_pattern_is_found_however_the_letters_of_an_answer_are_composed(bench: EvaluationBench) -> None:
    bench.task("Regex", [chat("Where?", "cafe\u0301")], pattern="^caf\u00e9$")
    assert [row.reference for row in bench.tasks().rows("task")] == ["cafe\u0301"]
