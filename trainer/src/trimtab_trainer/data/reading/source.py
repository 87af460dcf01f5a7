"""Files of a data set: found below a URI, copied to the scratch folder with their hashes, read record by record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ...contract import Credentials, Reason
from ...errors import DataInvalid, SettingsInvalid
from ...storage import MANIFEST, FileEntry, ObjectMissing, open_store
from .readers import Record, kind_of, read

SHOWN_NAMES, SHOWN_LENGTH = 3, 64
KINDS_IN_WORDS = "a .jsonl, .json, .csv, .tsv or .parquet file, all but the last plain or .gz or .zst"
PAPERS = (".md", ".rst", "LICENSE", "LICENCE", "NOTICE", "README")
"""How the names of files end that say what lies beside them."""
TEMPLATE_BYTES = 1 << 20
NO_ROWS = frozenset({"dataset_info.json", "dataset_infos.json", "state.json", MANIFEST})
"""What lies beside the rows in copies of a hub's data sets, and of our own mirrors."""


def is_data(path: str) -> bool:
    """Tell whether a file can be read as rows, by its name."""
    return kind_of(path)[0] is not None and path.rpartition("/")[2] not in NO_ROWS and not _is_hidden(path)


def _is_hidden(path: str) -> bool:
    """Tell whether a file is one of those that systems and editors leave beside data: `.part-0.crc`, `__MACOSX/`."""
    return any(each.startswith((".", "__")) for each in path.split("/"))


def _may_be_data(path: str) -> bool:
    """Tell whether somebody may believe that a file which is not read is."""
    name = path.rpartition("/")[2]
    return not _is_hidden(path) and name not in NO_ROWS and not name.startswith("_") and not name.endswith(PAPERS)


@dataclass(frozen=True)
class Found:
    """The files that a URI means: those that are read as (path below the parent folder, size), and the names of others.

    Of these such are left out as nobody takes for data.
    """

    files: tuple[tuple[str, int], ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The local copies of one side's files, in the order they are read; `unread` are names of others that lie there."""

    uri: str
    folder: Path
    files: tuple[FileEntry, ...]
    unread: tuple[str, ...] = ()

    def records(self) -> Iterator[Record]:
        """Yield every record of every file, in order.

        Raises:
            DataInvalid: DATASET_MALFORMED, with the file and the 1-based line or row.
        """
        for entry in self.files:
            yield from read(self.folder / entry.path, entry.path)


def unread_warning(uri: str, unread: Sequence[str]) -> str | None:
    """Return what a person should know of files that are not read, None where there are none."""
    if not unread:
        return None
    more = f" and {len(unread) - SHOWN_NAMES} more" if len(unread) > SHOWN_NAMES else ""
    shown = ", ".join(name[:SHOWN_LENGTH] for name in unread[:SHOWN_NAMES])
    return f"{len(unread)} of the files at {uri} are not read: {shown}{more}; rows are in {KINDS_IN_WORDS}"


def find(uri: str, credentials: Credentials | None) -> Found:
    """Return the files that a URI means: one file, or all below a prefix.

    Raises:
        DataInvalid: DATASET_NOT_FOUND where nothing is there, DATASET_EMPTY where nothing of it can be read.
    """
    root, name = folder_of(uri)
    store = open_store(root, credentials)
    if name:
        found = [info for info in store.list(name) if info.path == name or info.path.startswith(name + "/")]
    else:
        found = store.list()
    if not found:
        raise DataInvalid(f"there is nothing at {uri}; upload the data, or correct the uri", Reason.DATASET_NOT_FOUND)
    readable = [
        (info.path, info.size) for info in found if is_data(info.path) or (info.path == name and kind_of(name)[0])
    ]
    if not readable:
        raise DataInvalid(
            f"none of the {len(found)} files at {uri} (such as {found[0].path}) is {KINDS_IN_WORDS}; convert the data",
            Reason.DATASET_EMPTY,
        )
    if not any(size for _, size in readable):
        raise DataInvalid(f"the files at {uri} are empty; upload them again", Reason.DATASET_EMPTY)
    read = {path for path, _ in readable}
    unread = (info.path for info in found if info.path not in read and info.size and _may_be_data(info.path))
    return Found(tuple(readable), tuple(unread))


def copy(uri: str, credentials: Credentials | None, folder: Path) -> Source:
    """Copy the files a URI means into a folder, hashed while they are read.

    Raises:
        DataInvalid: as of `find`; DATASET_NOT_FOUND also where a file vanished meanwhile.
    """
    store = open_store(folder_of(uri)[0], credentials)
    entries = []
    found = find(uri, credentials)
    for path, _ in found.files:
        try:
            entries.append(store.download(path, folder / path))
        except ObjectMissing as error:
            raise DataInvalid(f"{store.address(path)} vanished while it was read", Reason.DATASET_NOT_FOUND) from error
    return Source(uri, folder, tuple(entries), found.unread)


def read_template(uri: str, credentials: Credentials | None) -> str:
    """Return a chat template of the user's own.

    Raises:
        SettingsInvalid: CHAT_TEMPLATE_INVALID, it is not there, or no text of a reasonable length.
    """
    root, name = folder_of(uri)
    store = open_store(root, credentials)
    try:
        data = store.start(name, TEMPLATE_BYTES + 1) if name else b""
        if not 0 < len(data) <= TEMPLATE_BYTES:
            raise _no_template(uri, f"is no file of 1 to {TEMPLATE_BYTES} bytes")
        return data.decode("utf-8-sig")
    except ObjectMissing:
        raise _no_template(uri, "is not there") from None
    except UnicodeDecodeError:
        raise _no_template(uri, "is not UTF-8") from None


def _no_template(uri: str, trouble: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"the chat template at {uri} {trouble}; upload it, or correct dataset.chatTemplate",
        Reason.CHAT_TEMPLATE_INVALID,
    )


def folder_of(uri: str) -> tuple[str, str]:
    """Return the URI of the folder to look in, and the name or the beginning of names there."""
    root, _, name = uri.rpartition("/")
    if root in ("s3:/", "file://"):  # a bucket's name or the root folder alone
        return uri, ""
    return root + "/", unquote(name) if uri.startswith("file:") else name
