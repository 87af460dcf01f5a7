"""What tenants wrote is shown, and never obeyed."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.text import UNSEEN, age, clean, duration

from tests.unit.cli.cluster import HOSTILE

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_escapes_and_direction_marks_are_written_out() -> None:
    assert clean("\x1b[31mred\x9b") == "\\x1b[31mred\\x9b"
    assert clean("a\u202eb\u2028c\ud800") == "a\\u202eb\\u2028c\\ud800"
    assert clean("line\r\nline\ttab") == "line\\x0d\\x0aline tab"
    assert clean("[bold]Größe 模型 ✓[/]") == "[bold]Größe 模型 ✓[/]"
    assert "\x1b" not in clean(HOSTILE)


@settings(deadline=None)
@given(st.text(st.characters()))
def test_nothing_invisible_is_left_of_any_text(text: str) -> None:
    assert not {unicodedata.category(each) for each in clean(text)} & UNSEEN
    assert clean(clean(text)) == clean(text)


def test_times_are_as_kubectl_writes_them() -> None:
    assert age("2026-11-28T11:59:15Z", NOW) == "45s"
    assert age("2026-11-28T11:48:00Z", NOW) == "12m"
    assert age("2026-11-25T11:00:00Z", NOW) == "3d1h"
    assert age("2026-11-28T12:00:09Z", NOW) == "0s", "a clock that is ahead"
    assert age("yesterday", NOW) == ""
    assert age(None, NOW) == ""
    assert duration(3723) == "1h2m"
