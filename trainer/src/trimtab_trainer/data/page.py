"""data.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .request import Request
from .rows import Rows
from .selection import Selection


def write_page(file: Path, audit: dict[str, Any], rows: Rows, selection: Selection, request: Request) -> None:
    """Write the page."""
    file.write_text("")
