"""Files as services and libraries export them: every token that is learned is the one that was meant, or it is said."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trimtab_trainer.contract import DatasetFormat, Method, Reason
from trimtab_trainer.data.cleaning import steps
from trimtab_trainer.data.cleaning.steps import Audit, Finding
from trimtab_trainer.data.encoding import tokens
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.errors import DataInvalid, SettingsInvalid

from tests.trainer import test_data_preferences as preferences
from tests.trainer.test_data_files import LINES, put
from tests.trainer.test_data_formats import TOOL, USER, refused, row
from tests.trainer.test_data_keys import messages
from tests.trainer.test_data_rows import refused as refused_file
from tests.trainer.test_data_rows import rows_of

ANSWER = {"role": "assistant", "content": "3"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "shelf_of", "arguments": {"part": 7}}}],
}
SYSTEM = {"role": "system", "content": "Be short."}


def table(*rows: list[str]) -> bytes:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode()


# What is not to be learned


@pytest.mark.parametrize("flag", [{"train": False}, {"training": False}, {"loss": False}, {"mask": True}])
def test_a_flag_that_an_answer_is_not_learned_is_a_weight(flag: dict[str, bool]) -> None:
    found = row({"messages": [USER, ANSWER | flag, USER, ANSWER]})
    assert [message.get("weight") for message in found.messages] == [None, 0, None, None]
    shared = row({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"} | flag]})
    assert not shared.is_learned


def test_flags_that_differ_are_refused() -> None:
    refused(messages(weight=1, train=False), "message 2 has weight and train, of which one says")


# What stands beside the messages


@pytest.mark.parametrize("system", ["Be short.", [{"text": "Be short."}]], ids=["Anthropic", "Bedrock"])
def test_a_system_prompt_beside_messages_is_their_first(system: Any) -> None:
    assert row({"system": system, "messages": [USER, ANSWER]}).messages == (SYSTEM, USER, ANSWER)
    assert row({"system": system, "messages": [SYSTEM, USER, ANSWER]}).messages == (SYSTEM, USER, ANSWER)
    other = {"role": "developer", "content": "Be long."}
    refused({"system": system, "messages": [other, USER, ANSWER]}, "line 1 has a system beside messages that have")


def test_tools_beside_a_prompt_of_messages_are_kept() -> None:
    found = row({"prompt": [USER], "completion": [CALLED], "tools": [TOOL]})
    assert found.tools == (TOOL,)
    assert found.messages[1]["tool_calls"][0]["function"]["arguments"] == {"part": 7}


def test_each_tool_may_be_json_that_is_text() -> None:
    assert row({"messages": [USER, ANSWER], "tools": [json.dumps(TOOL)]}).tools == (TOOL,)


def test_parts_of_responses_are_text() -> None:
    asked = USER | {"content": [{"type": "input_text", "text": USER["content"]}]}
    said = ANSWER | {"content": [{"type": "output_text", "text": "3"}]}
    assert row({"messages": [asked, said]}).messages == (USER, ANSWER)


def test_preferences_of_openai_are_pairs() -> None:
    value = {
        "input": {"messages": [preferences.ASKED], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [preferences.RIGHT],
        "non_preferred_output": [preferences.WRONG],
    }
    found = preferences.read(value, Method.DPO)
    assert found.to_json() == preferences.read(preferences.PAIRS["messages"], Method.DPO).to_json()
    assert found.ignored == ("parallel_tool_calls",)


def test_thoughts_that_are_written_twice_are_one_if_they_are_the_same() -> None:
    once = row(messages(content="3", reasoning_content="7 is odd."))
    for content in (
        "<think>7 is odd.</think>3",
        "<think>\n7 is odd.\n</think>\n\n3",
        " <think> 7 is odd. </think>\r\n3",
    ):
        for key in ("reasoning_content", "reasoning", "thinking"):
            assert row(messages(content=content, **{key: "7 is odd."})).to_json() == once.to_json()
    indented = row(messages(content="<think>7 is odd.</think>\n    return 3", reasoning="7 is odd.\n"))
    assert indented.messages[-1]["content"] == "    return 3"
    alone = row(messages(content="<think>7 is odd.</think>3"))
    assert alone.messages[-1] == {"role": "assistant", "content": "<think>7 is odd.</think>3"}


def test_thoughts_that_are_written_twice_and_differ_are_refused() -> None:
    words = "message 2 has other thoughts in its content than under a key of their own"
    refused(messages(content="<think>7?</think>3", reasoning="7 is odd."), words)
    refused(messages(content="<think></think>3", reasoning="7 is odd."), words)


# Tables, which hold lists as text


def test_messages_within_a_table_are_not_learned_as_json(tmp_path: Path) -> None:
    file = table(["prompt", "completion"], [json.dumps([USER]), json.dumps([ANSWER])])
    (found,) = rows_of(put(tmp_path / "a", {"a.csv": file}))
    assert found.messages == (USER, ANSWER)
    json_answer = '[{"part": 7}]'
    (plain,) = rows_of(put(tmp_path / "b", {"a.csv": table(["prompt", "completion"], ["q", json_answer])}))
    assert plain.completion == json_answer
    of_python = refused_file(put(tmp_path / "c", {"a.csv": table(["prompt", "completion"], ["q", repr([ANSWER])])}))
    assert of_python.message.startswith("a.csv line 2 has messages under completion as Python writes them")


def test_tools_within_a_table_are_those_of_its_messages(tmp_path: Path) -> None:
    names, values = ["prompt", "completion", "tools"], [[USER], [CALLED], [TOOL]]
    (found,) = rows_of(put(tmp_path / "data", {"a.csv": table(names, [json.dumps(each) for each in values])}))
    assert found.tools == (TOOL,)


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "Ann", "role": "developer", "age": 30}',
        '[{"role": "user", "may": ["read"]}]',
        "{'role': 'admin', 'id': 3}",
        "[{'content': [1, 2]}]",
        "{'role': 'user', 'may': 'read'}",
    ],
)
def test_an_answer_that_is_an_object_with_a_role_is_learned_as_it_is_written(said: str) -> None:
    assert row({"prompt": "q", "completion": said}).completion == said


@pytest.mark.parametrize(
    "written",
    [
        "{'content': 'a', 'role': 'tool'}",
        "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': 'b'}]",
        "[{'content': 'a', 'role': 'user'}\n {'content': 'b', 'role': 'assistant'}]",
    ],
)
def test_messages_as_python_writes_them_are_refused(written: str) -> None:
    refused({"prompt": written, "completion": "a"}, "as Python writes them")


def test_a_row_of_messages_without_its_answer_is_refused() -> None:
    with pytest.raises(DataInvalid, match="lacks completion"):
        row({"prompt": [USER]}, DatasetFormat.PROMPT_COMPLETION)


def test_preferences_within_a_table_are_pairs_and_labels() -> None:
    pair = {key: json.dumps(value) for key, value in preferences.PAIRS["whole conversations"].items()}
    assert [list(each.messages) for each in preferences.read(pair, Method.DPO).answers] == [
        [preferences.ASKED, preferences.RIGHT],
        [preferences.ASKED, preferences.WRONG],
    ]
    for label, wanted in {"True": True, "0": False}.items():
        assert preferences.read({"prompt": "q", "completion": "a", "label": label}, Method.KTO).label is wanted


def test_maps_of_parquet_are_objects(tmp_path: Path) -> None:
    said = [[("role", message["role"]), ("content", message["content"])] for message in (USER, ANSWER)]
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    for name, turns in {"good": said, "bad": [[*said[0], ("role", "user")], said[1]]}.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"messages": pa.array([turns], kind)}), tmp_path / name / "a.parquet")
    (found,) = rows_of(tmp_path / "good")
    assert found.messages == (USER, ANSWER)
    assert "a.parquet after row 0 has a map with a key twice" in refused_file(tmp_path / "bad").message


# Files that are something else


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b"PAR1\x15\x04", "a.jsonl is Parquet; name the file .parquet"),
        ("a.csv", b"PK\x03\x04\x14", "a.csv is a ZIP archive or a workbook"),
        ("a.jsonl", b"BZh91AY", "a.jsonl is packed by bzip2; pack it by gzip or zstd"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a.parquet is a pointer of Git LFS"),
        ("a.json", b"\n<!DOCTYPE html><html>", "a.json is a web page; download the file itself"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES)), "a.jsonl.gz is packed twice"),
        ("a.jsonl", LINES.decode().encode("utf-32"), "a.jsonl line 1 is UTF-32"),
        (
            "a.jsonl",
            b'{\n "prompt": "q",\n "completion": "a"\n}\n',
            "a.jsonl line 1 is not JSON: .* (a row is one line)",
        ),
        (
            "a.jsonl",
            LINES.decode().encode("utf-16-le"),
            "a.jsonl line 1 is not UTF-8 (byte .* it has zero bytes, as UTF-16",
        ),
        (
            "a.jsonl",
            LINES + bytes(64),
            "is not JSON: .* (it has zero bytes, as UTF-16 has, or a file that was not written",
        ),
        ("a.jsonl", LINES.replace(b"}\n", b"},\n"), "a.jsonl line 1 is not JSON: .* (no comma separates rows)"),
        (
            "a.json",
            b'{\n"prompt": "q"}\n{\n"prompt": "r"}',
            "line 3 is not JSON: .* (all rows are one list, or each is",
        ),
        ("a.jsonl", b'[{"role": "user"}]\n[]\n', "line 2 is not JSON: .* (all rows are one list, or each is one line)"),
        ("a.json", b'[[{"role": "user"}]]', "item 1: the format is unknown: .* (a row that is a list of messages is"),
        ("a.json", b'[{"role": "user", "content": "q"}]', "(a message alone is no conversation"),
        ("a.csv", b"Prompt,Completion\nq,a\n", "(name the columns prompt and completion, in small letters)"),
        ("a.jsonl", b'{"prompt": "q", "completion": null}\n', "a.jsonl line 1 lacks completion"),
        ("a.jsonl", LINES + b'{"text": "a"}\n', "a.jsonl line 4 lacks prompt and completion, which the first row has"),
    ],
    ids=range(18),
)
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    message = refused_file(put(tmp_path / "data", {name: data})).message
    begin, _, end = words.partition(".* ")
    assert begin in message
    assert end in message


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tool_use", "tool_calls"),
        ("tool_result", "role tool"),
        ("thinking", "reasoning_content"),
        ("refusal", "as text"),
    ],
)
def test_a_part_that_is_no_text_says_where_it_belongs(kind: str, words: str) -> None:
    refused({"messages": [USER, ANSWER | {"content": [{"type": kind}]}]}, f"message 2 has .*type '{kind}'.*{words}")


def test_a_role_in_another_spelling_says_how_to_write_it() -> None:
    asked = USER | {"role": "User"}
    refused({"messages": [asked, ANSWER]}, "message 1: role 'User' .*write it as user", Reason.FORMAT_UNKNOWN)


def test_an_answer_that_nobody_sees_is_blank(tmp_path: Path) -> None:
    audit = Audit()
    unseen = {"prompt": "q", "completion": "\ufeff\u200b \u2060\u3164\ufe0f"}
    found = rows_of(put(tmp_path / "data", {"a.jsonl": LINES + json.dumps(unseen).encode()}), audit=audit)
    assert len(found) == 3
    assert audit.blank.places == ["a.jsonl line 4"]


def test_half_of_a_surrogate_pair_in_a_key_is_refused(tmp_path: Path) -> None:
    """The column was ignored, and its name could not be written into the audit: a bug's trace, and another try."""
    written = LINES + b'{"prompt": "q", "completion": "a", "x\\ud800": 1}\n'
    words = "a.jsonl line 4 has half of a surrogate pair in the key 'x\\ud800'"
    assert words in refused_file(put(tmp_path / "data", {"a.jsonl": written})).message


# Rows that are very long


def test_a_row_of_a_whole_book_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took 400 bytes of memory for each token before it was dropped."""
    monkeypatch.setattr(steps, "MOST_CHARACTERS", 1000)
    written = LINES + json.dumps({"prompt": "q", "completion": "word " * 300}).encode()
    audit = Audit()
    assert len(rows_of(put(tmp_path / "data", {"a.jsonl": written}), audit=audit)) == 3
    assert (audit.read, audit.dropped) == (4, 1)
    assert audit.oversized == Finding(1, ["a.jsonl line 4"])
    assert Audit.of(audit.to_json()) == audit
    of_three_bytes = json.dumps({"prompt": "q", "completion": "語" * 900}).encode()
    assert len(rows_of(put(tmp_path / "short", {"a.jsonl": of_three_bytes}))) == 1


def test_of_rows_that_are_all_whole_books_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_CHARACTERS", 1000)
    written = json.dumps({"prompt": "q", "completion": "word " * 300}).encode()
    refusal = refused_file(put(tmp_path / "data", {"a.jsonl": written}))
    assert "1 rows, all of them blank, of invalid text, of more than 1,000 characters or of weight 0" in refusal.message
    assert "a.jsonl line 1" in refusal.message


def test_long_rows_are_encoded_few_at_a_time(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many together took gigabytes."""
    monkeypatch.setattr(tokens, "BATCH_CHARACTERS", 200)
    tokenizer = RowTokenizer(tiny_model)
    lengths = [10, 90, 80, 500, 10, 150]
    rows = [Row("a", DatasetFormat.TEXT, text="x" * length) for length in lengths]
    together: list[list[int]] = []
    encode = tokenizer._backend.encode_batch

    class Watched:
        def encode_batch(self, texts: list[str], **options: Any) -> Any:
            together.append(list(map(len, texts)))
            return encode(texts, **options)

    monkeypatch.setattr(tokenizer, "_backend", Watched())
    found = [int(each.kinds.astype(bool).sum()) for each in tokenizer.tokenise(rows)]
    assert together == [[10, 90, 80], [500], [10, 150]]
    assert [int(each.kinds.astype(bool).sum()) for each in RowTokenizer(tiny_model).tokenise(rows)] == found


def test_the_chat_template_of_a_processor_is_found(tiny_model: Path, tmp_path: Path) -> None:
    """Models that also take images have it in a file of its own, and were said to have none."""
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    about = json.loads((base / "tokenizer_config.json").read_text())
    (base / "chat_template.json").write_text(json.dumps({"chat_template": about.pop("chat_template")}))
    (base / "tokenizer_config.json").write_text(json.dumps(about))
    asked = [row({"messages": [USER, ANSWER]})]
    (found,), (wanted,) = (list(RowTokenizer(folder).tokenise(asked)) for folder in (base, tiny_model))
    assert found.tokens.tolist() == wanted.tokens.tolist()
    (base / "chat_template.json").write_text("{")
    with pytest.raises(SettingsInvalid, match=r"chat_template\.json cannot be read") as caught:
        RowTokenizer(base)
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


def test_rows_of_which_none_is_learned_are_named(tmp_path: Path) -> None:
    written = json.dumps(messages(weight=0)).encode()
    with pytest.raises(DataInvalid, match=r"of weight 0, such as a\.jsonl line 1; upload"):
        raise refused_file(put(tmp_path / "data", {"a.jsonl": written}))
