"""Chat templates that fail, as whoever wrote them did not mean it: refused by name, whatever Python says of them."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import DatasetFormat, Reason
from trimtab_trainer.data.encoding import jinja
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.errors import DataInvalid, SettingsInvalid

from tests.trainer.tiny import CHATML, CHATML_GENERATION, make_tiny_model

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


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
ENDLESS_TEXT = "{% for a in range(99999) %}{{ 'a' * 9999 }}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "words"), [(ENDLESS, "more than 0.3 s for one conversation"), (ENDLESS_TEXT, "more than 100,000 char")]
)
@pytest.mark.parametrize("blocks", [False, True], ids=["plain", "with generation blocks"])
def test_a_template_without_an_end_is_refused_by_name_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str, blocks: bool
) -> None:
    """Loops within loops went on until the deadline of the job."""
    monkeypatch.setattr(jinja, "SECONDS", 0.3)
    monkeypatch.setattr(jinja, "CHARACTERS", 100_000)
    base, template = make_tiny_model(tmp_path / "model"), CHATML_GENERATION if blocks else CHATML
    with pytest.raises(SettingsInvalid, match=words) as caught:
        RowTokenizer(base, template + source)
    assert caught.value.reason is Reason.CHAT_TEMPLATE_INVALID
    unless_short = "{% if messages | length > 4 %}" + source + "{% endif %}"
    longer = Row("a.jsonl line 2", DatasetFormat.MESSAGES, messages=TURNS * 3)
    tokenizer = RowTokenizer(base, template + unless_short)
    started = time.process_time()
    with pytest.raises(SettingsInvalid, match=words):  # not once a row: there may be a million
        list(tokenizer.tokenise([ROW, longer, longer, longer, longer, longer, longer, longer]))
    assert time.process_time() - started < 2
    assert list(tokenizer.tokenise([ROW])), "the time of what comes later is its own"
    assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_number_without_an_end_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "SECONDS", 0.3)
    with pytest.raises(SettingsInvalid, match="cannot be used"):
        RowTokenizer(make_tiny_model(tmp_path / "model"), CHATML + "{{ (9 ** 9 ** 9) % 7 }}")
