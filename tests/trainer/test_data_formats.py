"""Rows of other tools are read as they were meant: OpenAI's exports, Alpaca, ShareGPT; JSON and CSV; keys to ignore."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from trimtab_trainer.contract import DatasetFormat, Reason, RunConfig
from trimtab_trainer.data.cleaning.clusters import answer_key
from trimtab_trainer.data.cleaning.steps import Audit, Columns, clean
from trimtab_trainer.data.reading.formats import Row, conform, resolve
from trimtab_trainer.data.reading.readers import Record
from trimtab_trainer.data.reading.source import copy
from trimtab_trainer.errors import DataInvalid

from tests.trainer.tiny import write_rows

CALL = {"id": "call_1", "type": "function", "function": {"name": "shelf_of", "arguments": '{"part": 7, "of": null}'}}
CALLED = {**CALL, "function": {"name": "shelf_of", "arguments": {"part": 7, "of": None}}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "shelf_of", "parameters": {"type": "object", "properties": {}}},
}
USER = {"role": "user", "content": "Where is part 7?"}
# As OpenAI's fine-tuning API takes it, with the keys that its exports have and leave empty
EXPORTED: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Where is"}, {"type": "text", "text": "part 7?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "function_call": None},
        {"role": "tool", "content": "shelf 3", "tool_call_id": "call_1", "name": "shelf_of"},
        {"role": "assistant", "content": "On shelf 4.", "weight": 0, "audio": None, "annotations": []},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No, 3.", "weight": 1, "reasoning_content": "It said 3."},
    ],
    "tools": [TOOL],
    "parallel_tool_calls": True,
}
READ: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Where is\npart 7?"},
    {"role": "assistant", "content": "", "tool_calls": [CALLED]},
    {"role": "tool", "content": "shelf 3", "tool_call_id": "call_1", "name": "shelf_of"},
    {"role": "assistant", "content": "On shelf 4.", "weight": 0},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "No, 3.", "reasoning_content": "It said 3."},
]


def row(value: dict[str, Any], row_format: DatasetFormat = DatasetFormat.AUTO, *ignore: str) -> Row:
    record = Record(value, "a.jsonl line 1")
    detected = resolve(row_format, iter([record]), ignore)
    return conform(record, detected.format, guessed=detected.guessed, ignore=ignore)


def read(folder: Path, audit: Audit | None = None) -> list[Row]:
    source = copy(folder.as_uri() + "/", None, folder.parent / "copied")
    return list(clean(source.records(), resolve(DatasetFormat.AUTO, source.records()), audit or Audit(), "the data"))


def refused(value: dict[str, Any], words: str, reason: Reason = Reason.DATASET_MALFORMED) -> None:
    with pytest.raises(DataInvalid, match=words) as caught:
        row(value)
    assert caught.value.reason is reason
    assert caught.value.message.startswith("a.jsonl line 1")


# OpenAI


def test_an_export_is_read_as_it_is() -> None:
    found = row(EXPORTED)
    assert list(found.messages) == READ
    assert found.tools == (TOOL,)
    assert found.ignored == ("parallel_tool_calls",)
    assert found.answer == '{"arguments":{"of":null,"part":7},"name":"shelf_of"}\nIt said 3.\nNo, 3.', (
        "without weight 0"
    )


def test_what_is_read_is_read_again_from_what_is_stored() -> None:
    """Held-out rows are published, and evaluated."""
    found = row({**EXPORTED, "group": "shelves"})
    again = row(json.loads(found.to_json()))
    assert (again.messages, again.tools, again.group) == (found.messages, found.tools, "shelves")
    assert again.to_json() == found.to_json()
    assert answer_key(again) == answer_key(found)


def test_what_is_stored_keeps_the_order_in_which_templates_write_tools_and_arguments() -> None:
    """Evaluations asked with sorted keys what was learned as it was written."""
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}
    call = {"function": {"name": "f", "arguments": {"z": 1, "a": {"y": 2, "b": 3}}}}
    value = {"messages": [USER, {"role": "assistant", "tool_calls": [call]}], "tools": [{"function": function}]}
    found = row(value)
    again = row(json.loads(found.to_json()))
    for each in (found, again):
        (called,), (tool,) = each.messages[1]["tool_calls"], each.tools or ()
        assert json.dumps(called["function"]["arguments"]) == '{"z": 1, "a": {"y": 2, "b": 3}}'
        assert json.dumps(tool["function"]) == json.dumps(function)
    assert again.to_json() == found.to_json()
    call["function"]["arguments"] = {"a": {"b": 3, "y": 2}, "z": 1}
    assert row(value).canonical() == found.canonical()
    plain = row({"messages": [USER, {"role": "assistant", "content": "3.", "reasoning": "odd"}], "group": "g"})
    assert plain.to_json() == plain.canonical(), "nothing else has an order"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "thinking_content"])
def test_thoughts_have_many_names(key: str) -> None:
    answer = {"role": "assistant", "content": "3.", key: "It is odd."}
    assert row({"messages": [USER, answer]}).messages[1] == READ[6] | {
        "content": "3.",
        "reasoning_content": "It is odd.",
    }


def test_lists_may_be_json_that_is_text() -> None:
    written = {"messages": json.dumps(EXPORTED["messages"]), "tools": json.dumps([TOOL["function"]])}
    assert list(row(written).messages) == READ
    assert row(written).tools == (TOOL,)


def test_what_is_no_tool_or_no_call_is_refused_with_its_place() -> None:
    def called(call: Any) -> dict[str, Any]:
        return {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": call}]}

    refused({"messages": [USER], "tools": [{"type": "function"}]}, "has a tool without a name")
    refused({"messages": [USER], "tools": "shelf_of"}, "has tools that are text, but no JSON")
    refused(called([{"function": {"arguments": '{"part": 7}'}}]), "message 2 has a tool call without a name")
    refused(
        called([{"function": {"name": "f", "arguments": "{part: 7}"}}]), "arguments of a tool call that are text, but"
    )
    refused(
        called([{"function": {"name": "f", "arguments": "[7]"}}]), "message 2 has a tool call whose arguments are no"
    )
    refused(called({"function": {"name": "f"}}), "message 2 has tool_calls that are no list")
    refused(
        called([{"function": {"name": "f", "arguments": '{"part": NaN}'}}]), "message 2 has the number nan in its tool_"
    )
    refused(called([{"function": {"name": "f", "arguments": {"at": b"7"}}}]), "message 2 has a bytes in its tool_calls")
    refused(called("1" * 5000), "has tool_calls that are text, but no JSON")
    two = {"role": "assistant", "content": "x", "reasoning": "a", "thinking": "b"}
    refused({"messages": [USER, two]}, "message 2 has thoughts under two keys that differ")
    refused({"messages": [USER, {"role": "ipython", "content": "x"}]}, "role 'ipython'.*as tool", Reason.FORMAT_UNKNOWN)


def test_a_word_that_is_long_is_shown_in_part() -> None:
    long = "x" * 5000
    with pytest.raises(DataInvalid) as caught:
        row({"messages": [{"role": long, "content": "x"}]})
    assert len(caught.value.message) < 400
    with pytest.raises(DataInvalid) as caught:
        row({"conversations": [{"from": [long], "value": "x"}]})
    assert len(caught.value.message) < 400


# Alpaca and ShareGPT


def test_alpaca_is_a_conversation() -> None:
    found = row({"instruction": "Find the shelf.", "input": "part 7", "output": "3", "text": "### Instruction"})
    assert found.format is DatasetFormat.MESSAGES
    assert [*found.messages] == [
        {"role": "user", "content": "Find the shelf.\npart 7"},
        {"role": "assistant", "content": "3"},
    ]
    assert found.ignored == ("text",)
    whole = {
        "instruction": "And 8?",
        "input": "",
        "output": "4",
        "system": "Be short.",
        "history": [["Where is 7?", "3"]],
    }
    assert [(each["role"], each["content"]) for each in row(whole).messages] == [
        ("system", "Be short."), ("user", "Where is 7?"), ("assistant", "3"), ("user", "And 8?"), ("assistant", "4"),
    ]  # fmt: skip
    refused({"instruction": "x", "output": ["better", "worse"]}, "has a output that is no text")
    refused({"instruction": "x", "output": "y", "history": [["x"]]}, "has a history that is no list of")


def test_sharegpt_is_a_conversation() -> None:
    turns = [
        {"from": "system", "value": "Be short."}, {"from": "human", "value": "Where is 7?"},
        {"from": "gpt", "value": "3"}, {"from": "observation", "value": "box 9"},
        {"from": "assistant", "value": "9", "weight": 0},
    ]  # fmt: skip
    found = row({"conversations": turns, "tools": json.dumps([TOOL]), "id": "identity_0"})
    assert [each["role"] for each in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert (found.messages[4]["weight"], found.tools, found.ignored) == (0, (TOOL,), ("id",))
    assert row({"conversations": turns[1:3], "system": "Be short."}).messages == found.messages[:3]
    refused(
        {"conversations": [{"from": "narrator", "value": "x"}]},
        "from 'narrator' is none of system, human",
        Reason.FORMAT_UNKNOWN,
    )
    refused({"conversations": []}, "lacks conversations, a list of {from, value}")


def test_a_format_says_why_it_is_that_one() -> None:
    detected = resolve(DatasetFormat.AUTO, iter([Record({"prompt": "x", "completion": "y"}, "train/b.csv line 2")]))
    assert (detected.format, detected.guessed) == (DatasetFormat.PROMPT_COMPLETION, True)
    assert detected.why == "the first row, train/b.csv line 2, has prompt and completion"
    named = resolve(DatasetFormat.ALPACA, iter([]))
    assert (named.format, named.guessed, named.why) == (DatasetFormat.ALPACA, False, "dataset.format says so")


# Keys to ignore


def test_keys_that_a_user_names_are_ignored_wherever_they_are() -> None:
    value = {
        "messages": [{**USER, "mood": "fine"}, {"role": "assistant", "content": "3"}],
        "tools": [TOOL],
        "images": ["a"],
    }
    refused(value, "has images: only text is learned; .*dataset.ignoreKeys", Reason.FORMAT_UNKNOWN)
    found = row(value, DatasetFormat.AUTO, "images", "mood", "tools")
    assert found.tools is None
    assert found.messages[0] == USER
    assert found.ignored == ("images", "messages.mood", "tools")


def test_what_a_format_is_made_of_cannot_be_ignored() -> None:
    found = row({"messages": [USER, {"role": "assistant", "content": "3"}]}, DatasetFormat.AUTO, "messages", "content")
    assert [each["content"] for each in found.messages] == [USER["content"], "3"]
    assert found.ignored == (), "what is learned is not told as ignored"


def test_settings_that_are_not_set_leave_a_run_as_it_was() -> None:
    run: dict[str, Any] = {
        "baseModel": {"uri": "s3://models/a"},
        "dataset": {"training": {"uri": "s3://data/a/"}},
        "output": {"uri": "s3://out/a"},
    }
    assert {"ignoreKeys", "chatTemplate"}.isdisjoint(RunConfig.model_validate(run).to_json()["dataset"])
    run["dataset"] |= {"ignoreKeys": ["images"], "chatTemplate": "s3://data/own.jinja"}
    assert RunConfig.model_validate(run).to_json()["dataset"]["ignoreKeys"] == ["images"]


# Files


def test_json_is_a_list_of_rows_or_lines_in_disguise(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(8)]
    (folder / "a.json").write_text(json.dumps(rows[:2], indent=2))
    (folder / "b.json.gz").write_bytes(gzip.compress(json.dumps({"data": rows[2:4]}).encode()))
    write_rows(folder / "c.json", rows[4:7])
    write_rows(folder / "d.json", rows[7:])
    found = read(folder)
    assert [each.completion for each in found] == [each["completion"] for each in rows]
    assert [each.place for each in found[1:6]] == [
        "a.json item 2", "b.json.gz item 1", "b.json.gz item 2", "c.json line 1", "c.json line 2"
    ]  # fmt: skip
    (folder / "a.json").write_text('[\n{"prompt": "x", "completion": "y"},\n{"prompt": }]')
    with pytest.raises(DataInvalid, match=r"a\.json line 3 is not JSON: .* at column 12"):
        read(folder)


def test_csv_has_a_row_a_record_and_places_are_lines(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        lines = csv.writer(file)
        lines.writerows(
            [["id", "prompt", "completion", "weight"], [1, "Two\nlines, quoted", 'so "it" is', ""], [2, "q", "ü", ""]]
        )
    with pa.output_stream(str(folder / "b.csv.zst"), compression="zstd") as stream:
        stream.write(b"prompt,completion\r\nq,a\r\n")
    audit = Audit()
    found = read(folder, audit)
    assert [(each.prompt, each.completion) for each in found] == [
        ("Two\nlines, quoted", 'so "it" is'),
        ("q", "ü"),
        ("q", "a"),
    ]
    assert [each.place for each in found] == ["a.csv line 2", "a.csv line 4", "b.csv.zst line 2"]
    assert list(audit.ignored) == ["id"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"prompt,completion\nq,a,b\n", r"a\.csv line 2 has more values than the 2 columns"),
        (b"prompt,completion\nq,a\nq\n", r"a\.csv line 3 has fewer values than the 2 columns"),
        (b'prompt,completion\nq,"a\n', r"a\.csv line 2 is not CSV"),
        (b"prompt,prompt\nq,a\n", r"a\.csv line 1 names a column twice"),
        (b"prompt,completion\nq,\xff\n", r"a\.csv after line 1 is not UTF-8"),
        (b"question,reply\nq,a\n", r"a\.csv line 2: the format is unknown"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_named(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_bytes(text)
    with pytest.raises(DataInvalid, match=words):
        read(tmp_path / "data")


@pytest.mark.parametrize(
    ("group", "found"), [(float("nan"), None), (" ", None), ([], None), (5, "5"), (5.0, "5"), (0.5, "0.5"), ("5", "5")]
)
def test_a_group_is_what_a_table_means(group: Any, found: str | None) -> None:
    """pandas writes 5.0 for 5 in a column in which another row has none, and a number that is none for that."""
    written = {"messages": [USER, {"role": "assistant", "content": "3."}], "group": group}
    assert row(written).group == found
    assert Columns(group="group").group_of(written, row(written)).group == found
