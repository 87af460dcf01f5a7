"""What the page of a run says of preferences: curves and results that only DPO, KTO and ORPO have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .curves import Series

SHOWN = {
    "accuracy": "Accuracy of rewards, share of pairs",
    "margin": "Margin of rewards",
    "chosen_reward": "Reward of wanted answers",
    "rejected_reward": "Reward of the others",
    "chosen_log_probability": "Log-probability of wanted answers, nats",
    "rejected_log_probability": "Log-probability of the others, nats",
}
"""Figures and what they are called; the first two are drawn."""
DRAWN = ("accuracy", "margin")
CURVES = (("is-target", "training", "curve"), ("is-baseline", "validation", "evaluations"))
UNITS = {
    "DPO": "the mean over pairs",
    "KTO": "the mean over labelled answers",
    "ORPO": "nats a token of the chosen answer, and what the odds ratio adds",
}


def preference_series(figures: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Series, ...]]]:
    """Yield the title and the curves of each chart; nothing where no preferences were learned."""
    for name in DRAWN:
        drawn = tuple(
            Series(kind, called, points)
            for kind, called, curve in (
                ("is-target", "training", "curve"),
                ("is-baseline", "validation", "evaluations"),
            )
            if (points := tuple(_points(figures[curve], name)))
        )
        if drawn:
            yield SHOWN[name], drawn


def _points(curve: list[dict[str, Any]], name: str) -> Iterator[tuple[int, float]]:
    for point in curve:
        value = (point.get("preference") or {}).get(name)
        if value is not None:
            yield point["step"], value


def preference_results(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return what was found on the test rows, by name."""
    told = figures.get("testPreference") or {}
    keys = {name: "".join([first, *map(str.title, rest)]) for name in SHOWN for first, *rest in [name.split("_")]}
    return [(words, told[keys[name]]) for name, words in SHOWN.items() if told.get(keys[name]) is not None]


def loss_unit(method: str) -> str:
    """Return what a loss is measured in."""
    return UNITS.get(method, "nats per supervised token")
