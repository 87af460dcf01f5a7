"""The kinds of Trimtab: names, columns, and what reasons mean. `kinds.json` is generated from the operator's models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from .errors import Invalid, near


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and where its value stands in the object."""

    name: str
    type: str
    path: str


@dataclass(frozen=True)
class Explanation:
    """What a reason means, and what a person does next."""

    meaning: str
    next_step: str


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        summary: type of the condition whose reason is the state.
        stop: field of the spec that holds an object up while it is true; None where nothing does.
        addresses: patterns of the fields that are addresses, by path.
        reasons: explanations by type of condition and reason.
    """

    name: str
    group: str
    version: str
    plural: str
    singular: str
    short_name: str
    summary: str
    stop: str | None
    addresses: dict[str, str] = field(hash=False, repr=False)
    columns: tuple[Column, ...]
    wide_columns: tuple[Column, ...]
    reasons: dict[str, dict[str, Explanation]] = field(hash=False, repr=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    @property
    def words(self) -> tuple[str, ...]:
        """What people call it, in small letters."""
        return (self.plural, self.singular, self.short_name)

    def explained(self, condition: str, reason: str) -> Explanation | None:
        """Return what a reason means, or None for one of another version of the operator."""
        return self.reasons.get(condition, {}).get(reason)


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(files(__package__).joinpath("kinds.json").read_text(encoding="utf-8"))
    return table


def gitops_marks() -> frozenset[str]:
    """Return labels and annotations by which tools mark objects that they keep as they are in git."""
    return frozenset(_table()["gitOpsMarks"])


def lower_is_better() -> frozenset[str]:
    """Return the metrics of which less is better; of all others more is."""
    return frozenset(_table()["lowerIsBetter"])


@cache
def kinds() -> tuple[Kind, ...]:
    """Return all kinds, in the order in which people meet them."""
    return tuple(_kind(each, _table()["group"], _table()["version"]) for each in _table()["kinds"])


def kind_named(word: str) -> Kind:
    """Return the kind that a person means, whatever form of the name it is.

    Raises:
        Invalid: there is none; the sentence has those that there are.
    """
    wanted = word.lower().removesuffix(".trimtab.dev")
    for kind in kinds():
        if wanted in kind.words:
            return kind
    known = [kind.singular for kind in kinds()]
    hint = near(wanted, known) or f"the kinds are {', '.join(known)}"
    raise Invalid(f"there is no kind {word}", hint)


def _kind(told: dict[str, Any], group: str, version: str) -> Kind:
    return Kind(
        name=told["name"],
        group=group,
        version=version,
        plural=told["plural"],
        singular=told["singular"],
        short_name=told["shortName"],
        summary=told["summary"],
        stop=told["stop"],
        addresses=told["addresses"],
        columns=tuple(Column(**each) for each in told["columns"]),
        wide_columns=tuple(Column(**each) for each in told["wideColumns"]),
        reasons={
            condition: {reason: Explanation(text["meaning"], text["nextStep"]) for reason, text in reasons.items()}
            for condition, reasons in told["reasons"].items()
        },
    )
