"""Addresses of pages: built and read in one place, so that every page can be shared. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from ..objects import CustomObject

ALL = "-"
"""In the place of a namespace: all of them. No namespace has this name."""
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
STATES = ("running", "waiting", "failed", "done")
ORDERS = ("-age", "age", "name", "-name", "state", "loss", "-loss")
TEXT_LENGTH = 100
PAGE = re.compile(r"[1-9][0-9]{0,5}")
ROWS = 50
"""Of a table's page."""


def namespace_path(namespace: str) -> str:
    return f"/ns/{quote(namespace or ALL, safe='')}"


def page_path(namespace: str, *parts: str) -> str:
    return "/".join([namespace_path(namespace), *(quote(part, safe="") for part in parts)])


def object_path(about: CustomObject, *parts: str) -> str:
    return page_path(about.namespace, about.kind.plural, about.name, *parts)


def compare_path(namespace: str, plural: str, names: Iterable[str]) -> str:
    return page_path(namespace, "compare") + "?" + urlencode([("kind", plural), *(("name", name) for name in names)])


@dataclass(frozen=True)
class Selection:
    """What of a list is shown: the state of a table as its address has it."""

    text: str = ""
    state: str = ""
    order: str = ORDERS[0]
    page: int = 1

    @classmethod
    def read(cls, query: dict[str, str]) -> Selection:
        """Return the selection of a query; what is no selection is left at its default."""
        state, order, page = query.get("state", ""), query.get("order", ""), query.get("page", "")
        return cls(
            text=query.get("text", "").strip()[:TEXT_LENGTH],
            state=state if state in STATES else "",
            order=order if order in ORDERS else ORDERS[0],
            page=int(page) if PAGE.fullmatch(page) else 1,
        )

    def query(self, **changes: object) -> str:
        """Return the query of this selection with changes, without what is the default."""
        told = replace(self, **{"page": 1, **changes})  # type: ignore[arg-type]  # each field has its own type
        default = Selection()
        names = ("text", "state", "order", "page")
        pairs = [(name, getattr(told, name)) for name in names if getattr(told, name) != getattr(default, name)]
        return f"?{urlencode(pairs)}" if pairs else "?"


def within(path: str) -> str:
    """Return a path of the console, or its first page for whatever else it is: no redirect leads elsewhere."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if safe else "/"
