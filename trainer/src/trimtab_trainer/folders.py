"""Folders on a local disk that are made anew: what an earlier attempt left in them is gone first, or nothing begins."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there.

    Not `shutil.rmtree(..., ignore_errors=True)`: it is silent where something cannot be removed, and old files would
    pass for some of those that are made next.

    Raises:
        OSError: something in it cannot be removed.
    """
    if folder.exists():
        shutil.rmtree(folder)


def emptied(folder: Path) -> Path:
    """Return a folder that is there and has nothing in it.

    Raises:
        OSError: what was in it cannot be removed, or it cannot be made.
    """
    remove(folder)
    folder.mkdir(parents=True)
    return folder
