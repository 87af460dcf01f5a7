from __future__ import annotations

import pytest
from trimtab_operator.runtime.retry_after import pause_of

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of the standard


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("9" * 400, 3600),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
    ],
)
def test_seconds_and_dates_are_read(header: str, seconds: float) -> None:
    assert pause_of(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    ["", "soon", "-1", "1.5", "\u00b2", "\u0661", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 99999 0:0:0 GMT"],
)
def test_what_says_nothing_is_no_pause(header: str) -> None:
    assert pause_of(header, NOW) is None
