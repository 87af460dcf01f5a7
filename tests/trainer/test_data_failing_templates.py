"""Chat templates that fail, as whoever wrote them did not mean it: refused by name, whatever Python says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat, Reason
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.errors import DataInvalid, SettingsInvalid

from tests.trainer.tiny import CHATML, make_tiny_model

TURNS = ({"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."})
ROW = Row("a.jsonl line 1", DatasetFormat.MESSAGES, messages=TURNS)
LONG = Row("a.jsonl line 2", DatasetFormat.MESSAGES, messages=(*TURNS, *TURNS))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ 1 // 0 }}", "by zero"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "recursion"),
        ("{{ 'a' * 1000000000000000000 }}", "MemoryError"),
        ("{{ messages[99] / 2 }}", "unsupported|no element|undefined"),
    ],
)
def test_a_template_that_fails_is_refused_by_name(tmp_path: Path, source: str, words: str) -> None:
    """A division by zero, an endless macro and a text beyond all memory ended the stage without a reason."""
    base = make_tiny_model(tmp_path / "model")
    with pytest.raises(SettingsInvalid, match=words) as caught:
        list(RowTokenizer(base, CHATML + source).tokenise([ROW]))
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID
    unless_short = "{% if messages | length > 2 %}" + source + "{% endif %}"
    with pytest.raises(DataInvalid, match=words) as refused:
        list(RowTokenizer(base, CHATML + unless_short).tokenise([LONG]))
    assert refused.value.message.startswith("a.jsonl line 2")


@pytest.mark.parametrize(
    "source", ["{% if 1 %}" * 120 + "{% endif %}" * 120, "{% for a in [1] %}" * 60 + "{% endfor %}" * 60, "{% for %}"]
)
def test_a_template_that_does_not_compile_is_refused_by_name(tmp_path: Path, source: str) -> None:
    with pytest.raises(SettingsInvalid, match="it does not compile") as caught:
        RowTokenizer(make_tiny_model(tmp_path / "model"), CHATML + source)
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID


@pytest.mark.parametrize("value", [5, True])
def test_a_template_that_is_no_text_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    file = make_tiny_model(tmp_path / "model") / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": value}))
    with pytest.raises(SettingsInvalid, match="it is no text but a") as caught:
        RowTokenizer(tmp_path / "model")
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID
