"""From files to tokens: formats, cleaning, and masks that are exact to the token."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import processors
from trimtab_trainer.contract import DatasetFormat, Reason
from trimtab_trainer.data.cleaning.steps import Audit, clean
from trimtab_trainer.data.encoding.tokens import RowTokenizer, Tokenised
from trimtab_trainer.data.reading.formats import Row, resolve
from trimtab_trainer.data.reading.source import Source, copy, find
from trimtab_trainer.errors import DataInvalid, SettingsInvalid

from tests.trainer.tiny import CHATML, CHATML_GENERATION, make_tiny_model, tiny_rows, write_rows

AUTO = DatasetFormat.AUTO


def conversation(*turns: str, system: str | None = None) -> dict[str, Any]:
    """Return a row in which user and assistant alternate."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
    return {"messages": messages}


def load(folder: Path, uri: str | None = None) -> Source:
    return copy(uri or folder.as_uri() + "/", None, folder.parent / "copied")


def rows_of(folder: Path, row_format: DatasetFormat = AUTO, audit: Audit | None = None) -> list[Row]:
    source = load(folder)
    detected = resolve(row_format, source.records())
    return list(clean(source.records(), detected, audit or Audit(), "the data"))


def refused(folder: Path, row_format: DatasetFormat = AUTO) -> DataInvalid:
    with pytest.raises(DataInvalid) as caught:
        rows_of(folder, row_format)
    return caught.value


def marked(tokenizer: RowTokenizer, tokenised: Tokenised) -> str:
    """Return a row's text with what is learned in brackets."""
    text, learning = "", False
    pieces = [
        (tokenizer._backend.decode([token], skip_special_tokens=False), on)
        for token, on in zip(tokenised.tokens.tolist(), tokenised.supervised.tolist(), strict=True)
    ]
    for piece, on in [*pieces, ("", False)]:
        text += ("[" if on else "]") if on != learning else ""
        learning = on
        text += piece
    return text


# Files


def test_plain_and_compressed_lines_and_parquet_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    rows = tiny_rows(5)
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines[0] + b"\n  \n" + lines[1].rstrip(b"\n"))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines[2][:9]) + gzip.compress(lines[2][9:]))
    with pa.output_stream(str(folder / "c.jsonl.zst"), compression="zstd") as stream:
        stream.write(lines[3])
    (folder / "sub").mkdir()
    pq.write_table(pa.Table.from_pylist([rows[4]]), folder / "sub/d.parquet")
    (folder / "README.md").write_text("not data")
    found = rows_of(folder)
    assert [json.loads(row.to_json()) for row in found] == rows
    assert [row.place for row in found] == [
        "a.jsonl line 1", "a.jsonl line 4", "b.jsonl.gz line 1", "c.jsonl.zst line 1", "sub/d.parquet row 1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "trouble"), [("a.parquet", "the column 'text' twice"), ("a.json", "the key 'text' twice")]
)
def test_what_is_there_twice_is_refused_in_whole_files_too(tmp_path: Path, name: str, trouble: str) -> None:
    """Most readers take the last one, without a word."""
    file = tmp_path / "data" / name
    file.parent.mkdir()
    if name == "a.parquet":
        pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), file)
    else:
        file.write_text('[{"text": "a", "text": "b"}]')
    with pytest.raises(DataInvalid, match=f"{name} has {trouble}") as caught:
        rows_of(file.parent)
    assert caught.value.reason is Reason.DATASET_MALFORMED


def test_names_may_hold_blanks_and_signs(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "my data/a b%#ü.jsonl", tiny_rows(1))
    assert [path for path, _ in find(file.as_uri(), None).files] == ["a b%#ü.jsonl"]
    assert [path for path, _ in find(file.parent.as_uri() + "/", None).files] == ["a b%#ü.jsonl"]


def test_a_uri_may_be_one_file_or_a_folder_without_its_slash(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/a.jsonl", tiny_rows(1))
    write_rows(tmp_path / "data/ab.jsonl", tiny_rows(2))
    write_rows(tmp_path / "database/c.jsonl", tiny_rows(3))
    assert [path for path, _ in find((tmp_path / "data/a.jsonl").as_uri(), None).files] == ["a.jsonl"]
    assert [path for path, _ in find((tmp_path / "data").as_uri(), None).files] == ["data/a.jsonl", "data/ab.jsonl"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, Reason.DATASET_NOT_FOUND),
        ({"notes.txt": b"x", "data.jsonx": b"{}"}, Reason.DATASET_EMPTY),
        ({"a.jsonl": b""}, Reason.DATASET_EMPTY),
    ],
)
def test_data_that_is_not_there_is_named(tmp_path: Path, files: dict[str, bytes], reason: Reason) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataInvalid) as caught:
        find(tmp_path.as_uri() + "/", None)
    assert caught.value.reason is reason


GOOD = json.dumps(tiny_rows(1)[0]).encode()
MALFORMED = {
    "a broken line": (b"{}}", "line 2 is not JSON", Reason.DATASET_MALFORMED),
    "a line cut off": (GOOD[:-5], "line 2 is not JSON", Reason.DATASET_MALFORMED),
    "a key that is there twice": (
        GOOD[:-1] + b', "messages": []}',
        "line 2 has the key 'messages' twice",
        Reason.DATASET_MALFORMED,
    ),
    "a key that is there twice inside": (
        b'{"messages": [{"role": "user", "content": "x", "role": "assistant"}]}',
        "line 2 has the key 'role' twice",
        Reason.DATASET_MALFORMED,
    ),
    "no UTF-8": (b'{"messages": "\xff"}', "line 2 is not UTF-8", Reason.DATASET_MALFORMED),
    "an array": (b"[1]", "line 2 is a JSON list", Reason.DATASET_MALFORMED),
    "another format": (b'{"text": "x"}', "line 2 lacks messages", Reason.DATASET_MALFORMED),
    "an empty conversation": (b'{"messages": []}', "line 2 lacks messages", Reason.DATASET_MALFORMED),
    "a content with an image": (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "line 2, message 1 has a content with a part of type 'image_url'",
        Reason.DATASET_MALFORMED,
    ),
    "a part without a text": (
        b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
        "line 2, message 1 lacks text",
        Reason.DATASET_MALFORMED,
    ),
    "a character that is none": (
        b'{"messages": [{"role": "user", "content": "\\ufdd0"}]}',
        "line 2, message 1 has U\\+FDD0 in its content",
        Reason.DATASET_MALFORMED,
    ),
    "half a surrogate pair": (
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        "line 2, message 1 has half of a surrogate",
        Reason.DATASET_MALFORMED,
    ),
    "a group that is a list": (GOOD[:-1] + b', "group": [7]}', "line 2 has a group", Reason.DATASET_MALFORMED),
    "a group with half a surrogate pair": (
        GOOD[:-1] + b', "group": "\\ud800"}',
        "line 2 has half of a surrogate pair in its group",
        Reason.DATASET_MALFORMED,
    ),
    "a number that nobody can count": (
        GOOD[:-1] + b', "id": ' + b"1" * 5000 + b"}",
        "line 2 is not JSON that can be read",
        Reason.DATASET_MALFORMED,
    ),
    "an unknown role": (
        b'{"messages": [{"role": "human", "content": "x"}]}',
        "line 2, message 1: role 'human' is none of .*ShareGPT's human is user",
        Reason.FORMAT_UNKNOWN,
    ),
    "ShareGPT's keys": (
        b'{"messages": [{"from": "human", "value": "x"}]}',
        "line 2, message 1 has from and value",
        Reason.FORMAT_UNKNOWN,
    ),
    "no assistant turn": (
        b'{"messages": [{"role": "user", "content": "x"}]}',
        "1 of 2 rows have no assistant turn, the first is bad.jsonl line 2",
        Reason.NO_ASSISTANT_TURN,
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_row_that_cannot_be_used_is_named_with_file_and_line(tmp_path: Path, name: str) -> None:
    line, words, reason = MALFORMED[name]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "bad.jsonl").write_bytes(GOOD + b"\n" + line + b"\n")
    error = refused(folder)
    assert error.reason is reason
    with pytest.raises(DataInvalid, match=words):
        raise error


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"conversation": []}, "ShareGPT's {conversations"),
        ({"input": "x", "output": "y"}, "write input and output as prompt and completion"),
        ({"chosen": "x", "rejected": "y"}, "learned by training.method: DPO or ORPO"),
        ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "learned by training.method: DPO or ORPO"),
        ({"question": "x"}, "write question and answer as prompt and completion"),
    ],
)
def test_an_unknown_format_is_named_with_a_hint(tmp_path: Path, row: dict[str, Any], hint: str) -> None:
    write_rows(tmp_path / "data/a.jsonl", [row])
    error = refused(tmp_path / "data")
    assert error.reason is Reason.FORMAT_UNKNOWN
    assert hint in error.message


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(gzip.compress(GOOD * 100)[:-20])
    error = refused(folder)
    assert error.reason is Reason.DATASET_MALFORMED
    assert name in error.message


def test_a_format_that_is_demanded_is_not_guessed(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/a.jsonl", [{"text": "x", "prompt": "p", "completion": "c"}])
    assert rows_of(tmp_path / "data")[0].format is DatasetFormat.PROMPT_COMPLETION
    assert rows_of(tmp_path / "data", DatasetFormat.TEXT)[0].answer == "x"
    assert refused(tmp_path / "data", DatasetFormat.MESSAGES).reason is Reason.DATASET_MALFORMED


# Cleaning


def test_blank_and_repeated_rows_are_dropped_counted_and_named(tmp_path: Path) -> None:
    rows = [*tiny_rows(2), conversation("x", " \n"), tiny_rows(1)[0], {**tiny_rows(1)[0], "id": 7}]
    write_rows(tmp_path / "data/a.jsonl", rows)
    audit = Audit()
    assert len(rows_of(tmp_path / "data", audit=audit)) == 2
    assert audit.blank.to_json() == {"count": 1, "examples": ["a.jsonl line 3"]}
    assert audit.duplicate.to_json() == {"count": 2, "examples": ["a.jsonl line 4", "a.jsonl line 5"]}
    assert (audit.read, audit.dropped) == (5, 3)


def test_nothing_but_blank_rows_is_empty_data(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/a.jsonl", [{"text": " "}])
    error = refused(tmp_path / "data")
    assert error.reason is Reason.DATASET_EMPTY
    assert "1 rows, all of them blank, of invalid text or of weight 0" in error.message


# Masks

SYSTEM = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
MASKS = {
    "one turn": (
        conversation("q", "the answer"),
        SYSTEM + "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[the answer<|im_end|>]\n",
    ),
    "two turns and a system prompt": (
        conversation("q", "a", "r", "b", system="s"),
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n",
    ),
    "blanks belong to the answer, blanks of the template do not": (
        conversation("q", "  the \n\n"),
        SYSTEM + "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[  the \n\n<|im_end|>]\n",
    ),
    "a question after the last answer is not kept": (
        conversation("q", "a", "unanswered"),
        SYSTEM + "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n",
    ),
    "an assistant that begins": (
        {"messages": [{"role": "assistant", "content": "hello"}]},
        SYSTEM + "<|im_start|>assistant\n[hello<|im_end|>]\n",
    ),
    "prompt and completion": (
        {"prompt": "q", "completion": " the answer"},
        SYSTEM + "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[ the answer<|im_end|>]\n",
    ),
    "text": ({"text": "the answer\n"}, "[the answer\n<|im_end|>]"),
}


@pytest.fixture(scope="module", params=[CHATML, CHATML_GENERATION], ids=["prefix", "generation"])
def chat_tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RowTokenizer:
    return RowTokenizer(make_tiny_model(tmp_path_factory.mktemp("chat"), chat_template=request.param))


def tokenised(tokenizer: RowTokenizer, row: dict[str, Any], folder: Path) -> Tokenised:
    write_rows(folder / "data/a.jsonl", [row])
    return next(iter(tokenizer.tokenise(rows_of(folder / "data"))))


@pytest.mark.parametrize("name", MASKS)
def test_exactly_the_answers_and_their_ends_are_learned(
    chat_tokenizer: RowTokenizer, name: str, tmp_path: Path
) -> None:
    row, want = MASKS[name]
    assert marked(chat_tokenizer, tokenised(chat_tokenizer, row, tmp_path)) == want


def test_a_character_of_several_tokens_at_the_seam_is_learned_whole(
    chat_tokenizer: RowTokenizer, tmp_path: Path
) -> None:
    result = tokenised(chat_tokenizer, conversation("漢", "漢é"), tmp_path)
    learned = result.tokens[result.supervised].tolist()
    assert chat_tokenizer._backend.decode(learned, skip_special_tokens=False) == "漢é<|im_end|>"
    assert chat_tokenizer._backend.decode(result.tokens.tolist(), skip_special_tokens=False).count("漢") == 2


def test_every_row_ends_with_a_learned_end_token(chat_tokenizer: RowTokenizer, tmp_path: Path) -> None:
    for row in (row for row, _ in MASKS.values()):
        result = tokenised(chat_tokenizer, row, tmp_path)
        assert result.tokens[np.flatnonzero(result.supervised)[-1]] == 2


def test_without_a_template_the_seam_is_tokenised_once(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=None))
    result = tokenised(tokenizer, {"prompt": "the q", "completion": "uick fox"}, tmp_path)
    assert marked(tokenizer, result) == "the[ quick fox<|im_end|>]", "the token across the seam holds answer characters"
    whole = tokenizer._backend.encode("the quick fox").ids
    assert result.tokens.tolist() == [*whole, 2]


def test_messages_need_a_template(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=None))
    with pytest.raises(SettingsInvalid, match="no chat template") as caught:
        tokenised(tokenizer, conversation("q", "a"), tmp_path)
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


@pytest.mark.parametrize("template", [CHATML, "<s>{% for m in messages %}{{ m['content'] }}{% endfor %}"])
def test_there_is_one_beginning_token(tmp_path: Path, template: str) -> None:
    folder = make_tiny_model(tmp_path / "model", chat_template=template.replace("<s>", "<|im_start|>"))
    tokenizer = RowTokenizer(folder)
    tokenizer._backend.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    for row in (conversation("q", "a"), {"text": "the"}, {"text": "<|im_start|>the"}):
        result = tokenised(tokenizer, row, tmp_path)
        assert result.tokens[0] == 1
        assert result.tokens[1] != 1
        assert len(result.tokens) == len(result.supervised)


NO_END = (
    "{% for m in messages %}{{ m['role'] + ':\n' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)


def test_a_template_without_an_end_token_gets_one_at_the_end(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=NO_END))
    result = tokenised(tokenizer, conversation("q", "a", "r", "b"), tmp_path)
    assert marked(tokenizer, result) == "user:\nq\nassistant:\n[a]\nuser:\nr\nassistant:\n[b<|im_end|>]"


GENERATION_WITHOUT_END = CHATML_GENERATION.replace(
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}",
    "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
)


def test_a_generation_block_that_closes_early_still_teaches_to_stop(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=GENERATION_WITHOUT_END))
    result = tokenised(tokenizer, conversation("q", "a", "r", "b"), tmp_path)
    assert marked(tokenizer, result).count("[a<|im_end|>]") == 1
    assert marked(tokenizer, result).endswith("[b<|im_end|>]\n")


UNUSABLE = {
    "does not compile": ("{% for %}", "does not compile"),
    "always fails": ("{{ raise_exception('never') }}", "never"),
    "leaves the answer out": ("{{ messages[0]['content'] }}", "leaves out what the assistant says"),
    "asks differently than it answers": (
        CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>robot\n' }}"),
        "generation prompt",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    template, words = UNUSABLE[name]
    with pytest.raises(SettingsInvalid, match=words) as caught:
        RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=template))
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


# Like templates that strip the reasoning from earlier turns
REWRITES = CHATML.replace(
    "message['content'] +", "(message['content'] if loop.last or '#' not in message['content'] else '') +"
)


def test_a_template_that_leaves_out_part_of_earlier_turns_gives_them_sequences_of_their_own(tmp_path: Path) -> None:
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=REWRITES))
    row = conversation("q", "thought#a", "r", "b", "s", "#c")
    write_rows(tmp_path / "data/a.jsonl", [row, conversation("q", "a", "r", "b")])
    first, last, other = list(tokenizer.tokenise(rows_of(tmp_path / "data")))
    assert marked(tokenizer, first).endswith("assistant\n[thought#a<|im_end|>]\n")
    whole = marked(tokenizer, last)
    assert "thought" not in whole
    assert whole.count("[") == 2
    assert whole.endswith("assistant\n[#c<|im_end|>]\n")
    assert (first.first, last.first, other.first) == (True, False, True)
    assert first.row is last.row
    assert marked(tokenizer, other).count("[") == 2, "nothing of it is rewritten"


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=template))
    with pytest.raises(DataInvalid, match=r"a.jsonl line 1: .*no system turn.*remove it$"):
        tokenised(tokenizer, conversation("q", "a", system="s"), tmp_path)
    write_rows(tmp_path / "data/a.jsonl", [*tiny_rows(3), *(conversation("q", f"{n}", system="s") for n in range(9))])
    with pytest.raises(DataInvalid, match=r"a.jsonl line 4: .*no system turn.*8 more rows"):
        list(tokenizer.tokenise(rows_of(tmp_path / "data")))


def test_a_template_that_asks_for_the_date_gives_the_same_tokens_every_day(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %b %Y') }} " + CHATML
    tokenizer = RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=template))
    assert marked(tokenizer, tokenised(tokenizer, conversation("q", "a"), tmp_path)).startswith("26 Jul 2024 ")


def test_a_template_runs_in_a_sandbox(tmp_path: Path) -> None:
    template = "{{ messages.__class__.__mro__[1].__subclasses__() }}" + CHATML
    with pytest.raises(SettingsInvalid, match="unsafe"):
        RowTokenizer(make_tiny_model(tmp_path / "model", chat_template=template))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"model": {"type": "Nothing"}}'])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        RowTokenizer(folder)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": "<|im_end|>"}', '{"eos_token_id": [2, null]}', "\xff"])
def test_ends_of_answers_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    """Taken for none they would make of the beginning of the next turn the end of this one, or the other way about."""
    folder = make_tiny_model(tmp_path / "model")
    (folder / "generation_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsInvalid, match=r"generation_config\.json.*restore it") as caught:
        RowTokenizer(folder)
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


@pytest.mark.parametrize("text", ["{}", '{"eos_token_id": null}', '{"eos_token_id": 2}', '{"eos_token_id": [2, 384]}'])
def test_ends_of_answers_may_be_none_one_or_several(tmp_path: Path, text: str) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "generation_config.json").write_text(text)
    assert RowTokenizer(folder).has_template
    (folder / "generation_config.json").unlink()
    assert RowTokenizer(folder).has_template
