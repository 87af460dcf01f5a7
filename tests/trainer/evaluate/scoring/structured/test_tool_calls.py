"""Tool calls: read as the templates of real models write them, and what an answer with them is worth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.evaluate.scoring.structured.schemas import canonical
from trimtab_trainer.evaluate.scoring.structured.tool_calls import (
    Call,
    CallFigures,
    Unreadable,
    calls_text,
    expected_calls,
    figures_of,
    read_calls,
)

from tests.trainer.real_templates import make_model

PART = {"type": "object", "properties": {"part": {"type": "integer"}}, "required": ["part"]}
NOTE = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
SCHEMAS = {"shelf_of": json.dumps(PART), "note": json.dumps(NOTE), "ping": "{}"}
SEVEN, EIGHT = Call("shelf_of", '{"part":7}'), Call("shelf_of", '{"part":8}')

READ: dict[str, tuple[str, tuple[Call, ...]]] = {
    "words": ("It is on shelf four.", ()),
    "nothing": ("", ()),
    "Hermes": ('<tool_call>\n{"name": "shelf_of", "arguments": {"part": 7}}\n</tool_call>', (SEVEN,)),
    "words before it": ('Let me see. <tool_call>{"name": "shelf_of", "arguments": {"part": 7}}</tool_call>', (SEVEN,)),
    "two in marks": (
        '<tool_call>{"name": "shelf_of", "arguments": {"part": 7}}</tool_call>\n'
        '<tool_call>{"name": "shelf_of", "arguments": {"part": 8}}</tool_call>',
        (SEVEN, EIGHT),
    ),
    "cut off behind the object": ('<tool_call>{"name": "shelf_of", "arguments": {"part": 7}}', (SEVEN,)),
    "the opening mark left out": ('{"name": "shelf_of", "arguments": {"part": 7}}\n</tool_call>', (SEVEN,)),
    "thoughts before it": ('<think>{"name": 3}</think>{"name": "ping", "arguments": {}}', (Call("ping", "{}"),)),
    "Llama": ('{"name": "shelf_of", "parameters": {"part": 7}}', (SEVEN,)),
    "Llama, two": (
        '{"name": "shelf_of", "parameters": {"part": 7}}; {"name": "shelf_of", "parameters": {"part": 8}}',
        (SEVEN, EIGHT),
    ),
    "Mistral": ('[{"name": "shelf_of", "arguments": {"part": 7}}]', (SEVEN,)),
    "OpenAI": ('{"type": "function", "function": {"name": "shelf_of", "arguments": "{\\"part\\": 7}"}}', (SEVEN,)),
    "no arguments": ('{"name": "ping"}', (Call("ping", "{}"),)),
    "7.0 is 7": ('{"name": "shelf_of", "arguments": {"part": 7.0}}', (SEVEN,)),
    "elements": (
        "<tool_call>\n<function=shelf_of>\n<parameter=part>\n7\n</parameter>\n</function>\n</tool_call>",
        (SEVEN,),
    ),
    "text of elements stays text where the schema says so": (
        "<function=note>\n<parameter=text>\n12\n</parameter>\n</function>",
        (Call("note", '{"text":"12"}'),),
    ),
    "a function closed by the mark alone": (
        "<tool_call>\n<function=shelf_of>\n<parameter=part>\n7\n</parameter>\n</tool_call>",
        (SEVEN,),
    ),
    "signs that begin no parameter": (
        "<function=shelf_of>\n<parameter=part>7</parameter>\n<br>\n</function>",
        (SEVEN,),
    ),
    "JSON with words behind it is words": ('{"name": "ping"} is what I would call.', ()),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_calls_are_read(case: str) -> None:
    text, wanted = READ[case]
    assert read_calls(text, SCHEMAS) == wanted


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "shelf_of", "arguments": {"part": </tool_call>',
        '<tool_call>{"name": "a"}<tool_call>{"name": "b"}</tool_call>',
        "<tool_call>shelf_of(7)</tool_call>",
        "<tool_call>\n<function=ping>\n<parameter=part>\n7",
        "<function=ping><parameter=part>7</function>",
        "<tool_call>\n<function=ping>\n",
        "<tool_call>\n<function=ping>\n<parameter=par",
        "<tool_call>\n<function=shelf_of>\n<parameter=part>7</parameter>\n<param",
        "<tool_call>\n<function=shelf_of>\n<parameter=part>7</parameter>\n",
        "<function=shelf_of>\n<parameter=part>7</parameter>\n</func",
        "<tool_call><function=ping></function></tool_call><tool_call><function=ping>",
        "<tool_call>\n<function=ping>\n<parameter=par</tool_call>",
        "<tool_call>\n<function=shelf_of>\n<parameter=part>7</parameter>\n<param\n</function>\n</tool_call>",
        "<function=shelf_of>\n<parameter=part>7</parameter>\n<parameter= >8</parameter>\n</function>",
        "<tool_call><function=></function></tool_call>",
        '{"arguments": {}}',
        '{"name": 7}',
        '{"name": "ping", "arguments": [1]}',
        '{"name": "ping", "arguments": "no JSON"}',
        '{"name": "ping", "arguments": {"a": NaN}}',
        "<function=shelf_of><parameter=part>7</parameter><parameter=part>8</parameter></function>",
        '<function=shelf_of><parameter=any>{"p": 1, "p": 2}</parameter></function>',
        "[1, 2]",
        "{",
        "[" * 100_000,
    ],
)
def test_what_begins_a_call_and_is_none_is_said(text: str) -> None:
    with pytest.raises(Unreadable):
        read_calls(text, SCHEMAS)
    assert figures_of(text, SCHEMAS, (SEVEN,)) == CallFigures(0.0, 0.0, 0.0, 0.0)


def called(*calls: tuple[str, dict[str, Any]]) -> str:
    return "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>" for name, arguments in calls
    )


WORTH: dict[str, tuple[str, tuple[Call, ...], CallFigures]] = {
    "the call": (called(("shelf_of", {"part": 7})), (SEVEN,), CallFigures(1, 1, 1, 1)),
    "other arguments": (called(("shelf_of", {"part": 8})), (SEVEN,), CallFigures(0, 1, 1, 0)),
    "arguments of another type": (called(("shelf_of", {"part": "7"})), (SEVEN,), CallFigures(0, 0, 1, 0)),
    "true is not 1": (called(("shelf_of", {"part": True})), (Call("shelf_of", '{"part":1}'),), CallFigures(0, 0, 1, 0)),
    "a tool that there is not": (called(("shelves", {"part": 7})), (SEVEN,), CallFigures(0, 0, 0, 0)),
    "a call where words were right": (called(("ping", {})), (), CallFigures(0, 1, 0, 0)),
    "words where a call was right": ("Shelf four.", (SEVEN,), CallFigures(0, 0, 0, 0)),
    "words where words were right": ("Shelf four.", (), CallFigures(1, 1, 1, 1)),
    "nothing where words were right": ("<think>Hm.</think>\n\u200b", (), CallFigures(0, 0, 0, 0)),
    "in another order": (
        called(("shelf_of", {"part": 8}), ("shelf_of", {"part": 7})),
        (SEVEN, EIGHT),
        CallFigures(1, 1, 1, 1),
    ),
    "letters composed otherwise": (
        called(("shelf_of", {"part": 7, "wo": "Cafe\u0301"})),
        (Call("shelf_of", canonical({"part": 7, "wo": "Caf\u00e9"})),),
        CallFigures(1, 1, 1, 1),
    ),
    "one of two": (called(("shelf_of", {"part": 8})), (SEVEN, EIGHT), CallFigures(0, 1, 0, 0.5)),
    "one too many": (called(("ping", {}), ("shelf_of", {"part": 7})), (SEVEN,), CallFigures(0, 1, 0, 0.5)),
    "the same one twice": (called(*[("shelf_of", {"part": 7})] * 2), (SEVEN,), CallFigures(0, 1, 0, 0.5)),
}


@pytest.mark.parametrize("case", WORTH)
def test_an_answer_is_worth_this(case: str) -> None:
    text, expected, wanted = WORTH[case]
    assert figures_of(text, SCHEMAS, expected) == wanted


def test_calls_are_kept_as_they_are_compared() -> None:
    text = calls_text([("shelf_of", {"part": 7}), ("note", {"text": "a\u00df"})])
    assert expected_calls(text) == (SEVEN, Call("note", '{"text":"a\\u00df"}'))
    assert expected_calls(calls_text([])) == ()


@pytest.mark.parametrize(
    "name", ["llama3_1", "llama3_2", "nemotron_3_nano", "qwen2_5", "qwen3", "qwen3_5_think", "qwen3_instruct_2507"]
)
def test_calls_are_read_as_templates_of_real_models_write_them(name: str, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "shelf_of", "description": "Tell the shelf.", "parameters": PART}}
    call = {"type": "function", "function": {"name": "shelf_of", "arguments": {"part": 7}}}
    messages = ({"role": "user", "content": "Where?"}, {"role": "assistant", "content": "", "tool_calls": [call]})
    tokenizer = RowTokenizer(make_model(tmp_path / "model", name))
    row = Row("x", DatasetFormat.MESSAGES, messages=messages, tools=(tool,))
    (whole,) = tokenizer.tokenise_answers([row])
    text = tokenizer.text(whole.tokens[whole.supervised], control=False)
    assert read_calls(text, SCHEMAS) == (SEVEN,), text


def test_what_is_there_twice_is_named() -> None:
    twice = "<function=shelf_of><parameter=part>7</parameter><parameter=part>7</parameter></function>"
    with pytest.raises(Unreadable, match="the parameter 'part' is there twice"):
        read_calls(twice, SCHEMAS)
    with pytest.raises(Unreadable, match="the name 'p' twice in one object"):
        read_calls('<function=shelf_of><parameter=any>{"p": 1, "p": 2}</parameter></function>', SCHEMAS)
    words = '{"p": 1, "p": 2} is no JSON'
    written = f"<function=shelf_of><parameter=any>{words}</parameter></function>"
    assert read_calls(written, SCHEMAS) == (Call("shelf_of", canonical({"any": words})),)


def test_a_call_of_very_many_parameters_that_do_not_end_is_none_in_linear_time() -> None:
    began = time.process_time()
    text = "<function=shelf_of><parameter=part>7</parameter>" + "<parameter=part>8" * 20_000
    with pytest.raises(Unreadable, match="'part' does not end"):
        read_calls(text, SCHEMAS)
    assert time.process_time() - began < 5, "searching for the end of each would take a minute"


def test_an_answer_of_very_many_levels_is_no_call_and_no_crash() -> None:
    for levels in (100, 600, 900):
        deep = "[" * levels + "]" * levels
        for text in (
            f'{{"name": "shelf_of", "arguments": {{"part": {deep}}}}}',
            f"<function=shelf_of>\n<parameter=part>\n{deep}\n</parameter>\n</function>",
        ):
            assert figures_of(text, {"shelf_of": '{"required": ["other"]}'}, ()).exact == 0.0
