"""What a notebook and a terminal show of a value: `Shown` is drawn by rich, and as HTML in a notebook."""

from __future__ import annotations

from typing import Any


class Shown:
    """A value with a rich repr. What draws it is imported when it is drawn."""

    def __rich__(self) -> Any:
        from .rendering import rendered

        return rendered(self)

    def _repr_html_(self) -> str:
        from .rendering import as_html

        return as_html(self)
