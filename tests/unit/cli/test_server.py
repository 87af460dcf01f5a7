"""What the client makes of answers that come in parts."""

from __future__ import annotations

import io

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.errors import Problem
from trimtab.server import Server


class Parts(urllib3.HTTPResponse):
    """An answer that comes in these parts."""

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__(io.BytesIO(), preload_content=False)
        self._parts = parts

    def stream(self, amt: int | None = None, decode_content: bool | None = None) -> list[bytes]:  # type: ignore[override]
        return self._parts


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=6) | st.sampled_from([b"\n", b"a\n", b"\n\n"]), max_size=12))
def test_lines_are_the_same_however_they_come(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    *ended, last = whole.split(b"\n")
    assert list(Server.lines_of(Parts(parts))) == ended + ([last] if last else [])


def test_a_line_of_thousands_of_parts_is_one_and_has_a_bound_where_one_is_given() -> None:
    parts = [b"x" * 1024] * 4096
    assert list(Server.lines_of(Parts(parts))) == [b"x" * 2**22]
    with pytest.raises(Problem, match="1,000,000 bytes"):
        list(Server.lines_of(Parts(parts), most=1_000_000))
