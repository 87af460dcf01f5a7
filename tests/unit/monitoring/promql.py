"""Which metrics and labels an expression of PromQL names. promtool says whether it is one at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<range>\[[^\]]*\]) | (?P<number>\d[\w.]*)
    | (?P<name>[a-zA-Z_:][\w:]*) | (?P<mark>[^\s])""",
    re.VERBOSE,
)
BINARY = {"and", "or", "unless", "offset", "bool", "inf", "nan"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass
class Used:
    """Labels by the metric that they select; labels that group; and labels of selectors without a metric."""

    selected: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


def used(expression: str) -> Used:
    """Return what an expression names."""
    tokens = [(str(m.lastgroup), m[0]) for m in TOKEN.finditer(expression) if m.lastgroup not in ("comment", "range")]
    found, metric, place = Used(), "", 0
    while place < len(tokens):
        kind, text = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        if text == "{":
            end = next(at for at in range(place, len(tokens)) if tokens[at][1] == "}")
            found.selected.setdefault(metric, set()).update(_names(tokens[place:end]))
            place = end
        elif kind == "name" and text in GROUPING:
            if following == "(":
                end = next(at for at in range(place, len(tokens)) if tokens[at][1] == ")")
                found.grouped.update(_names(tokens[place + 1 : end]))
                place = end
        elif kind == "name" and text not in BINARY and following not in ("(",) and not _aggregates(tokens, place):
            metric = text
            found.selected.setdefault(metric, set())
        place += 1
    return found


def _names(tokens: list[tuple[str, str]]) -> set[str]:
    return {text for kind, text in tokens if kind == "name"}


def _aggregates(tokens: list[tuple[str, str]], place: int) -> bool:
    """Tell an aggregation whose labels come before its argument: sum by (a) (x)."""
    return place + 1 < len(tokens) and tokens[place + 1][1] in ("by", "without")
