"""Rows as other tools and services write them: understood, or refused by name; nothing of them is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trimtab_trainer.contract import DatasetFormat, Reason
from trimtab_trainer.data.encoding.tokens import RowTokenizer, is_learned
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.data.reading.messages import Message

from tests.trainer.real_templates import make_model
from tests.trainer.test_data_formats import TOOL, USER, refused, row
from tests.trainer.tiny import make_tiny_model

ANSWER = {"role": "assistant", "content": "3"}
FUNCTION = TOOL["function"]
CALL = {"name": "shelf_of", "arguments": {"part": 7}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}


def calling(call: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]}


def turn(speaker: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value, **more}


# Calls


@pytest.mark.parametrize("key", ["parameters", "input", "args", "kwargs"])
def test_arguments_under_another_name_are_not_lost(key: str) -> None:
    words = f"message 2 has {key}: a tool call has id, .*arguments; rename it"
    refused(calling({"name": "shelf_of", key: {"part": 7}}), words, Reason.FORMAT_UNKNOWN)
    refused(calling({"function": {"name": "shelf_of", key: {"part": 7}}}), words, Reason.FORMAT_UNKNOWN)
    ignored = row(calling({"name": "shelf_of", key: {"part": 7}}), DatasetFormat.AUTO, key)
    assert ignored.messages[1]["tool_calls"][0]["function"]["arguments"] == {}
    assert ignored.ignored == (f"messages.tool_calls.{key}",)


def test_keys_of_calls_that_say_nothing_of_what_is_learned_are_taken() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": CALL, "custom": None}
    assert row(calling(call)).messages[1]["tool_calls"] == [{"id": "a", "type": "function", "function": CALL}]
    assert row(calling({"name": "shelf_of"})).messages[1]["tool_calls"][0]["function"]["arguments"] == {}


def test_arguments_with_a_key_twice_are_refused() -> None:
    """The last one was taken without a word."""
    refused(
        calling({"name": "f", "arguments": '{"part": 1, "part": 2}'}),
        "message 2 has arguments of a tool call in which an object has the key 'part' twice",
    )


def test_a_weight_within_a_content_is_not_lost() -> None:
    parts = [{"type": "text", "text": "wrong", "weight": 0}, {"type": "text", "text": "right"}]
    refused(
        {"messages": [USER, {"role": "assistant", "content": parts}]},
        "message 2 has weight: a part of type text has type, text",
        Reason.FORMAT_UNKNOWN,
    )


# OpenAI before tools


def test_functions_are_tools_and_their_call_is_a_call() -> None:
    turns = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "shelf_of", "arguments": '{"part": 7}'}},
        {"role": "function", "name": "shelf_of", "content": "3"},
        ANSWER,
    ]
    found = row({"messages": turns, "functions": [FUNCTION], "function_call": "auto"})
    assert found.tools == (TOOL,)
    assert found.messages[1:3] == (CALLED, {"role": "tool", "name": "shelf_of", "content": "3"})
    assert found.ignored == ("function_call",)
    assert row(json.loads(found.to_json())).messages == found.messages


def test_a_call_written_both_ways_is_refused() -> None:
    both = {**CALLED, "function_call": {"name": "other", "arguments": "{}"}}
    refused({"messages": [USER, both]}, "message 2 has both tool_calls and function_call")
    refused({"messages": [USER, ANSWER], "tools": [TOOL], "functions": [{"name": "other"}]}, "tools and functions that")
    assert row({"messages": [USER, ANSWER], "tools": [TOOL], "functions": [FUNCTION]}).tools == (TOOL,)
    refused(
        {"messages": [USER, ANSWER], "function_call": {"name": "shelf_of", "arguments": "{}"}},
        "has function_call: a call is learned as a part of an answer alone",
        Reason.FORMAT_UNKNOWN,
    )


# Anthropic


def test_tools_with_an_input_schema_are_the_same_tools() -> None:
    for key in ("input_schema", "inputSchema"):
        tool = {"name": "shelf_of", key: FUNCTION["parameters"]}
        assert row({"messages": [USER, ANSWER], "tools": [tool]}).tools == (TOOL,)
    flat = {"type": "function", **FUNCTION}
    assert row({"messages": [USER, ANSWER], "tools": [flat]}).tools == (TOOL,)


@pytest.mark.parametrize("kind", ["tool_use", "tool_result", "thinking", "image", "refusal"])
def test_blocks_of_other_kinds_are_refused_by_name(kind: str) -> None:
    block = [{"type": "text", "text": "I look.", "cache_control": {"type": "ephemeral"}}, {"type": kind, "text": "x"}]
    refused({"messages": [USER, {"role": "assistant", "content": block}]}, f"a part of type '{kind}', and only parts")
    assert row({"messages": [USER, {"role": "assistant", "content": block[:1]}]}).messages[1]["content"] == "I look."


# LLaMA-Factory, and ShareGPT with OpenAI's turns


@pytest.mark.parametrize("value", [json.dumps(CALL), json.dumps([CALL]), CALL, [CALL]])
def test_turns_that_call_functions_are_calls(value: Any) -> None:
    turns = [
        turn("human", "Where is part 7?"),
        turn("function_call", value),
        turn("observation", "3"),
        turn("gpt", "3"),
    ]
    found = row({"conversations": turns, "tools": json.dumps([FUNCTION]), "system": "Be short."})
    assert found.messages[2:] == (CALLED, {"role": "tool", "content": "3"}, ANSWER)
    assert found.tools == (TOOL,)


def test_what_stands_beside_a_function_call_is_not_lost() -> None:
    """A weight of 0 was, so that the call was learned."""
    call, result = turn("function_call", CALL, weight=0), turn("observation", "3")
    found = row({"conversations": [turn("human", "Where?"), call, result, turn("gpt", "3")]})
    assert found.messages[1] == {**CALLED, "weight": 0}
    call = turn("function_call", CALL, rating=5)
    refused({"conversations": [turn("human", "Where?"), call]}, "message 2 has rating", Reason.FORMAT_UNKNOWN)


def test_a_function_call_that_is_none_is_refused_with_its_turn() -> None:
    calls = {"conversations": [turn("human", "x"), turn("function_call", "shelf_of(7)")]}
    refused(calls, "turn 2 has function calls that are text, but no JSON")
    calls["conversations"][1] = turn("function_call", '["shelf_of"]')
    refused(calls, "message 2 has a tool call without a name")
    calls["conversations"][1] = turn("function_call", None)
    refused(calls, "message 2 lacks content")


def test_openai_messages_under_the_name_of_sharegpt_are_messages() -> None:
    found = row({"conversations": [USER, {**ANSWER, "weight": 0}, USER, ANSWER]})
    assert found.messages == (USER, {**ANSWER, "weight": 0}, USER, ANSWER)
    refused({"conversations": [USER, {"role": "narrator", "content": "x"}]}, "role 'narrator'", Reason.FORMAT_UNKNOWN)


# TRL


def test_prompt_and_completion_may_be_messages() -> None:
    earlier = {"role": "assistant", "content": "before"}
    found = row({"prompt": [USER, earlier, USER], "completion": [ANSWER]})
    assert found.messages == (USER, {**earlier, "weight": 0}, USER, ANSWER)
    assert found.answer == "3", "of the prompt nothing is learned"
    assert row({"prompt": "Where?", "completion": [ANSWER]}).messages == ({"role": "user", "content": "Where?"}, ANSWER)
    assert row({"prompt": [USER], "completion": "3", "x": 1}).messages == (USER, ANSWER)
    refused({"prompt": {"role": "user"}, "completion": "3"}, "has a prompt that is no text")
    refused({"prompt": [USER], "completion": [USER]}, "does not begin and end with an assistant's turn")


# Alpaca


@pytest.mark.parametrize("value", ["[]", "{}", "null"])
def test_an_input_that_looks_like_nothing_is_a_text(value: str) -> None:
    """It was left out of the question without a word."""
    found = row({"instruction": "Is this empty?", "input": value, "output": "Yes."})
    assert found.messages[0]["content"] == f"Is this empty?\n{value}"


@pytest.mark.parametrize("value", [None, "", " ", float("nan")])
def test_an_input_that_is_not_there_adds_nothing(value: Any) -> None:
    assert row({"instruction": "Go.", "input": value, "output": "Gone."}).messages[0]["content"] == "Go."


@pytest.mark.parametrize("key", ["context", "query", "suffix"])
def test_a_column_that_may_be_a_part_of_the_question_is_refused(key: str) -> None:
    value = {"instruction": "Sum it up.", key: "A long text.", "output": "A sum."}
    refused(value, f"has {key}: it may be a part of what is asked", Reason.FORMAT_UNKNOWN)
    assert row(value, DatasetFormat.AUTO, key).ignored == (key,)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"prompt": "q", "response": "a"}, "name the response completion beside a prompt"),
        ({"instruction": "q", "context": "c", "response": "a"}, "or output beside an instruction"),
        ({"conversation": [USER, ANSWER]}, "name the conversation conversations, or messages"),
        ({"contents": [{"role": "user", "parts": [{"text": "q"}]}]}, "write contents as messages"),
    ],
)
def test_formats_that_are_not_read_say_how_to_write_them(value: dict[str, Any], words: str) -> None:
    refused(value, words, Reason.FORMAT_UNKNOWN)


# Hermes


TAGS = "<tool_response>\n{}\n</tool_response>"


def hermes(*results: str) -> Row:
    """Return a row with calls, and what tools answered to them, a turn each."""
    calls = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}] * 2}
    messages: tuple[Message, ...] = (USER, calls, *({"role": "tool", "content": each} for each in results), ANSWER)
    return Row("a.jsonl line 1", DatasetFormat.MESSAGES, messages=messages, tools=(TOOL,))


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_6"])
def test_results_that_bring_the_tags_of_the_template_have_them_once(tmp_path: Path, name: str) -> None:
    """A model learned to read them twice, which no engine writes."""
    tokenizer = RowTokenizer(make_model(tmp_path / "model", name))
    plain, single, joined = tokenizer.tokenise_prompts(
        [
            hermes('{"shelf": 3}', "4"),
            hermes(TAGS.format('{"shelf": 3}'), TAGS.format("4")),
            hermes(TAGS.format('{"shelf": 3}') + "\n" + TAGS.format("4")),
        ]
    )
    assert tokenizer.text(plain).count("<tool_response>") == 2
    assert single.tolist() == joined.tolist() == plain.tolist()
    rows = [hermes("3", "4"), hermes(TAGS.format("3"), TAGS.format("4"))]
    one, other = tokenizer.tokenise_whole(rows)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.kinds.tolist() == other.kinds.tolist()
    assert not other.control
    (own,) = tokenizer.tokenise_prompts([hermes("See " + TAGS.format("3"), "4")])
    assert tokenizer.text(own).count("<tool_response>") == 3, "text beside them is somebody's own"


def test_a_template_that_writes_no_tags_keeps_those_of_the_row(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model"))
    row_ = Row("a", DatasetFormat.MESSAGES, messages=(USER, {"role": "tool", "content": TAGS.format("3")}, ANSWER))
    (prompt,) = tokenizer.tokenise_prompts([row_])
    assert TAGS.format("3") in tokenizer.text(prompt)


# What is learned of them, token by token


RESULT = {"role": "tool", "content": "3"}
SPELLINGS: dict[str, dict[str, Any]] = {
    "OpenAI": {
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "function": {"name": "shelf_of", "arguments": '{"part": 7}'}}],
            },
            {**RESULT, "tool_call_id": "a"},
            ANSWER,
        ],
        "tools": [TOOL],
    },
    "OpenAI before tools": {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "shelf_of", "arguments": '{"part": 7}'}},
            {"role": "function", "name": "shelf_of", "content": "3"},
            ANSWER,
        ],
        "functions": [FUNCTION],
    },
    "Anthropic's tools": {
        "messages": [USER, CALLED, RESULT, ANSWER],
        "tools": [{**{k: v for k, v in FUNCTION.items() if k != "parameters"}, "input_schema": FUNCTION["parameters"]}],
    },
    "LLaMA-Factory": {
        "conversations": [
            turn("human", USER["content"]),
            turn("function_call", json.dumps(CALL)),
            turn("observation", "3"),
            turn("gpt", "3"),
        ],
        "tools": json.dumps([FUNCTION]),
    },
    "TRL": {"prompt": [USER], "completion": [CALLED, RESULT, ANSWER]},
    "Hermes' results": {
        "messages": [USER, CALLED, {**RESULT, "content": TAGS.format("3")}, ANSWER],
        "tools": [TOOL],
    },
}


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_of_the_same_conversation_the_same_tokens_are_learned_however_it_is_written(tmp_path: Path, name: str) -> None:
    tokenizer = RowTokenizer(make_model(tmp_path / "model", name))
    rows = {spelling: row(value) for spelling, value in SPELLINGS.items()}
    found = {
        spelling: [(each.tokens.tolist(), each.kinds.tolist()) for each in tokenizer.tokenise([each_row])]
        for spelling, each_row in rows.items()
    }
    for spelling, sequences in found.items():
        if spelling != "TRL":  # beside a prompt there is no list of tools
            assert sequences == found["OpenAI"], spelling
        learned = "".join(
            tokenizer.text(np.array(tokens, np.int32)[is_learned(np.array(kinds))]) for tokens, kinds in sequences
        )
        call = '<tool_call>\n{"name": "shelf_of", "arguments": {"part": 7}}\n</tool_call><|im_end|>'
        assert learned.replace("\n<tool_call>", "<tool_call>") == f"{call}3<|im_end|>", spelling


def test_of_a_stored_row_the_same_tokens_are_asked_that_were_learned(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_model(tmp_path / "model", "qwen2_5"))
    tool = {"type": "function", "function": {"name": "shelf_of", "parameters": {"type": "object", "properties": {}}}}
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "shelf_of", "arguments": '{"z": 1, "a": 2}'}}]}
    learned = row({"messages": [{"role": "user", "content": "Where?"}, called], "tools": [tool]})
    stored = row(json.loads(learned.to_json()))
    (first,), (second,) = tokenizer.tokenise([learned]), tokenizer.tokenise([stored])
    assert first.tokens.tolist() == second.tokens.tolist()
    assert '"arguments": {"z": 1, "a": 2}' in tokenizer.text(first.tokens)
    (asked,), (again,) = tokenizer.tokenise_prompts([learned]), tokenizer.tokenise_prompts([stored])
    assert asked.tolist() == again.tolist()
