"""The first rows of a data set, so that it can be looked at in seconds: `check` calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..contract import Credentials
from ..storage import FileEntry, open_store
from .reading.readers import Record, kind_of
from .reading.source import Source, find, folder_of

PART_BYTES = 32 << 20
"""So much is read of a file of plain lines that is longer."""
WHOLE_BYTES = 256 << 20
"""Files that have no beginning to look at (packed ones, tables) are read up to this size."""
PLAIN = ("lines", None)


@dataclass(frozen=True)
class Sample(Source):
    """The beginning of one side's files.

    Attributes:
        rows: most records that are yielded.
        left_out: names of files, and parts of files, that are not looked at.
    """

    rows: int = 0
    left_out: tuple[str, ...] = ()

    def records(self) -> Iterator[Record]:
        """Yield the first records, as `Source` does."""
        return islice(super().records(), self.rows)

    @property
    def whole(self) -> bool:
        """Tell whether that is all there is."""
        return not self.left_out and next(islice(super().records(), self.rows, None), None) is None


def copy_first(uri: str, credentials: Credentials | None, folder: Path, rows: int) -> Sample:
    """Copy the beginning of the files that a URI means: as many as a few MiB hold, but one at least.

    Raises:
        DataInvalid: as `find`.
    """
    store = open_store(folder_of(uri)[0], credentials)
    entries: list[FileEntry] = []
    left_out: list[str] = []
    copied = 0
    found = find(uri, credentials)
    for path, size in found.files:
        if copied >= PART_BYTES:
            left_out.append(path)
        elif kind_of(path) == PLAIN and size > PART_BYTES:
            entries.append(_beginning(store.start(path, PART_BYTES), folder / path, path))
            left_out.append(f"{path} after {PART_BYTES >> 20} MiB")
            copied += PART_BYTES
        elif size <= WHOLE_BYTES:
            entries.append(store.download(path, folder / path))
            copied += size
        else:
            left_out.append(path)
    return Sample(uri, folder, tuple(entries), found.unread, rows, tuple(left_out))


def _beginning(data: bytes, file: Path, path: str) -> FileEntry:
    """Write the whole lines of the beginning of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data[: data.rfind(b"\n") + 1])
    return FileEntry.read(file, path)
