"""Folders on a local disk that are made anew: what an earlier attempt left in them is gone first, or nothing begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
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


def tidy(folder: Path, warn: Callable[..., object]) -> None:
    """Remove what can be removed of a folder that is of no use any more; what stays is told, and no error.

    For `finally`, where an error would take the place of the first one, or of a success. NFS keeps a file that is still
    mapped under another name, and its folder is not empty then. Where old files could do harm, `remove` comes before
    the next use.

    Args:
        warn: called with a message and fields, once, where something stays.
    """
    errors: list[BaseException] = []
    shutil.rmtree(folder, onerror=lambda _function, _path, raised: errors.append(raised[1]))
    if errors := [error for error in errors if not isinstance(error, FileNotFoundError)]:
        warn("scratch not removed, it takes room", folder=str(folder), error=str(errors[0]))
