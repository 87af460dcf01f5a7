"""Three hundred files made from good ones by chance: each is accepted with its counts, or refused with its place."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trimtab_trainer.data.cleaning.steps import Audit
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.errors import DataInvalid, SettingsInvalid

from tests.trainer.test_data_rows import conversation, rows_of
from tests.trainer.tiny import CHATML, make_tiny_model

FILES = 300
ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "messages": lambda n: conversation(f"question {n}", f"answer {n}", "and?", "that", system="be short"),
    "completions": lambda n: {"prompt": f"question {n}", "completion": f"answer {n}", "source": "a"},
    "text": lambda n: {"text": f"text {n}", "id": n},
    "alpaca": lambda n: {"instruction": f"do {n}", "input": "", "output": f"done {n}"},
    "sharegpt": lambda n: {"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": f"a{n}"}]},
}
STRANGE: tuple[Any, ...] = (
    None,
    "",
    " ",
    0,
    -1.5,
    True,
    [],
    {},
    [[]],
    ["a"],
    {"a": {"b": []}},
    "\ud800",
    "\x00",
    "\u2028",
    "<|im_end|>",
    "a" * 5000,
    1e308,
)
KEYS = ("role", "content", "messages", "text", "prompt", "tools", "weight", "chosen", "x", "", "name", "tool_calls")


def changed(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """Return a value with one thing in it that is otherwise."""
    if isinstance(value, dict) and value and (depth == 0 or chance.random() < 0.8):
        made, key = dict(value), chance.choice(list(value))
        match chance.randrange(4):
            case 0:
                del made[key]
            case 1:
                made[chance.choice(KEYS)] = made[key]
            case 2:
                made[key] = changed(made[key], chance, depth + 1)
            case _:
                made[chance.choice(KEYS)] = chance.choice(STRANGE)
        return made
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], changed(value[at], chance, depth + 1), *value[at + 1 :]]
    return chance.choice(STRANGE)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: list[Any]) -> bytes | None:
    """Return rows as Parquet, None of rows that are no table."""
    try:
        made = pa.Table.from_pylist([row if isinstance(row, dict) else {"x": row} for row in rows])
        written = io.BytesIO()
        pq.write_table(made, written)
    except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
        return None
    return written.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return bytes of which some are others, more or fewer."""
    at = chance.randrange(max(1, len(data)))
    match chance.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + chance.randbytes(7) + data[at:]
        case _:
            return data + data[:at]


def made(number: int) -> tuple[str, bytes]:
    """Return the name and the bytes of a file."""
    chance = random.Random(number)
    name = chance.choice(list(ROWS))
    rows: list[Any] = [ROWS[name](n) for n in range(6)]
    for _ in range(chance.randrange(3)):
        at = chance.randrange(len(rows))
        rows[at] = changed(rows[at], chance)
    ending, data = chance.choice((".jsonl", ".json", ".csv", ".parquet")), lines(rows)
    if ending == ".json":
        data = json.dumps(rows).encode()
    elif ending == ".parquet":
        data = table(rows) or b"PAR1"
    elif ending == ".csv":
        data = b"prompt,completion\n" + b"\n".join(b'"q%d","a\n%d"' % (n, n) for n in range(6))
    if ending != ".parquet" and chance.random() < 0.4:
        pack, suffix = chance.choice(((gzip.compress, ".gz"), (zstd, ".zst")))
        ending, data = ending + suffix, pack(data)
    return f"rows{ending}", damaged(data, chance) if chance.random() < 0.4 else data


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> RowTokenizer:
    return RowTokenizer(make_tiny_model(tmp_path_factory.mktemp("fuzz") / "base", chat_template=CHATML))


@pytest.mark.parametrize("number", range(FILES))
@pytest.mark.timeout(300)
def test_a_file_is_accepted_with_its_counts_or_refused_with_its_place(
    tmp_path: Path, tokenizer: RowTokenizer, number: int
) -> None:
    name, data = made(number)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / name).write_bytes(data)
    audit = Audit()
    try:
        rows = list(tokenizer.tokenise(rows_of(folder, audit=audit)))
    except (DataInvalid, SettingsInvalid) as refusal:
        words = str(refusal)
        assert name in words or words.startswith("the data "), words
        assert "Traceback" not in words
        assert len(words) < 2000
        if refusal.reason.value in ("DatasetMalformed", "FormatUnknown"):
            assert re.search(r"(line|row|after|rows) \d+|byte|column|rows\.", words), words
    else:
        assert rows or audit.dropped
        assert len(rows) + audit.dropped >= audit.read
