"""Where everything goes: data to stdout, as a table or as JSON or YAML; all else to stderr. Commands never print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from .text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPE_WIDTH = 4000
"""Characters of a line where no terminal is: nothing is cut for `grep`."""


class Format(StrEnum):
    """How data is written."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"


def show(
    form: Format,
    data: Callable[[], Any],
    picture: Callable[[], RenderableType],
    plain: Callable[[], Iterable[str]] | None = None,
) -> None:
    """Write data in a format; `picture` is what a person sees, `plain` the same for a pipe where it is made sooner."""
    match form:
        case Format.json:
            sys.stdout.write(json.dumps(data(), indent=2) + "\n")  # in ASCII: whatever else there is, is escaped
        case Format.yaml:
            import yaml

            sys.stdout.write(yaml.safe_dump(data(), sort_keys=False))
        case _ if plain is not None and not sys.stdout.isatty():
            sys.stdout.write("".join(f"{each}\n" for each in plain()))
        case _:
            draw(picture())


def draw(picture: RenderableType) -> None:
    """Write a picture: with colours to a terminal, as plain text without spaces at the ends of lines to a pipe."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(markup=False, highlight=False, emoji=False).print(picture)
        return
    console = Console(markup=False, highlight=False, emoji=False, width=PIPE_WIDTH, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(picture)
    sys.stdout.write("".join(each.rstrip() + "\n" for each in captured.get().splitlines()))


def line(text: str) -> None:
    """Write a line of data."""
    sys.stdout.write(clean(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a person something that is no data."""
    sys.stderr.write(clean(text) + "\n")
