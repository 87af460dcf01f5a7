"""The templates of pages: whatever comes from data is escaped, and what is not there is told as "not measured"."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import wording


def environment(package: str) -> Environment:
    """Return the environment of a package's `templates`, which extend `page.html.jinja`; equal values, equal bytes."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("trimtab_trainer.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        figure=wording.figure,
        percent=wording.percent,
        setting=wording.setting,
        short=wording.short,
        shortened=wording.shortened,
        size=wording.size,
        duration=wording.duration,
        count=lambda value: f"{value:,}",
    )
    found.globals.update(
        interval=wording.interval,
        measured=wording.measured,
        decimals=wording.decimals,
    )
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Return each value of nested objects with its path."""
    if isinstance(value, dict) and value:
        for key in sorted(value, key=str):
            yield from leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _finished(value: Any) -> Any:
    """Return what an expression of the template prints: no `None`, no `nan`, no character that HTML cannot hold."""
    if isinstance(value, Markup):
        return value
    if value is None or isinstance(value, float):
        return wording.figure(value)
    return wording.visible(value) if isinstance(value, str) else value
