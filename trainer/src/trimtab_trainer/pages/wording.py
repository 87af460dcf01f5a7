"""Figures as people read them: what is not there or not finite is "not measured", never a blank and never `nan`."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"
MINUS = "−"
SMALLEST, LARGEST = 1e-6, 1e9
"""Beyond these, figures are written with an exponent."""
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
CONTROLS |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)
"""Characters that HTML or UTF-8 cannot hold, as ones that can be seen."""


def measured(value: float | None) -> bool:
    """Tell whether there is a finite figure."""
    return value is not None and math.isfinite(value)


def decimals(*values: float | None) -> int:
    """Return how many decimals show three to four significant digits of the largest of some figures."""
    largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
    if largest == 0:
        return 0
    exponent = math.floor(math.log10(largest))
    return 2 - exponent if exponent < 0 else max(0, 3 - exponent)


def figure(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Return a figure with its thousands apart, at `places` decimals if given: `12.34`, `0.812`, `−0.021`."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if value and not SMALLEST <= abs(value) < LARGEST:
        text = f"{value:+.3e}" if signed else f"{value:.3e}"
    else:
        places = decimals(value) if places is None else places
        text = f"{value:+,.{places}f}" if signed else f"{value:,.{places}f}"
        if not any(digit in text for digit in "123456789"):
            text = text.lstrip("+-")  # no sign for what rounds to nothing
    return text.replace("-", MINUS)


def setting(value: float | None) -> str:
    """Return what a person wrote, with all its digits: `0.3`, `12`."""
    return NOT_MEASURED if value is None else f"{value:,.12g}".replace("-", MINUS)


def percent(value: float | None, places: int = 1) -> str:
    """Return a share as per cent: 0.05 is `5 %`."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    text = f"{value * 100:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", MINUS) + " %"


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return an interval: `0.790 to 0.834`."""
    if not (measured(low) and measured(high)):
        return NOT_MEASURED
    places = decimals(low, high)
    return f"{figure(low, places, signed=signed)} to {figure(high, places, signed=signed)}"


def short(digest: str | None) -> str:
    """Return the first twelve characters of a digest, as `kubectl get` shows it."""
    return "no digest" if digest is None else digest.removeprefix("sha256:")[:12]


def visible(text: str) -> str:
    """Return text with control characters and lone surrogates made visible; tabs and ends of lines stay."""
    return text.translate(CONTROLS)


def shortened(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, and how many are missing."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} characters more)"


def size(value: float | None) -> str:
    """Return bytes as MiB or GiB: `413 MiB`, `12.4 GiB`."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    mib = value / 2**20
    return f"{figure(mib, 0)} MiB" if mib < 1024 else f"{figure(mib / 1024, 1 if mib < 102_400 else 0)} GiB"


def duration(value: float | None) -> str:
    """Return seconds as people say them: `3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if value is None or not math.isfinite(value) or value < 0:
        return NOT_MEASURED
    if value < 60:
        return f"{figure(value, 1 if value < 10 else 0)} s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(value / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"
