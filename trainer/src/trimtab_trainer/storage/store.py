"""The interface `Store`, its values, and the one way bytes become a file: hashed, synced, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self

from ..contract.parsing import Unreadable, whole_number
from ..errors import StorageFailed

CHUNK_BYTES = 1 << 20
READ_BYTES = 64 << 20
"""Most bytes of an object that is read into memory as a whole."""
PATH_BYTES, NAME_BYTES = 1024, 200
"""Most bytes of a path in a manifest, and of each of its parts: file systems have 255, and parts get suffixes."""
SHA256 = re.compile(r"[0-9a-f]{64}")


class ObjectMissing(StorageFailed):
    """An object that was asked for does not exist."""


class ObjectDamaged(StorageFailed):
    """An object is there, but its bytes are not those that were written."""


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One object of a listing; the path is relative to the store's root."""

    path: str
    size: int


@dataclass(frozen=True, order=True)
class FileEntry:
    """A file as manifests name it; `sha256` is the hex digest of its bytes."""

    path: str
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it stands in a manifest."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256}

    @classmethod
    def of(cls, item: Any) -> Self:
        """Return the entry that `to_json` was called on.

        Raises:
            Unreadable: it is none.
            ObjectDamaged: its path leaves the folder.
        """
        path, size, sha256 = (
            (item.get(key) for key in ("path", "size", "sha256")) if isinstance(item, dict) else (0,) * 3
        )
        if not isinstance(path, str) or not path.isprintable() or len(path.encode()) > PATH_BYTES:
            raise Unreadable(f"the path of a file is not up to {PATH_BYTES} printable bytes")
        if any(len(part.encode()) > NAME_BYTES for part in path.split("/")):
            raise Unreadable(f"a part of a file's path has more than {NAME_BYTES} bytes")
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise Unreadable("the sha256 of a file is none")
        return cls(checked(path), whole_number(size, "the size of a file"), sha256)

    @classmethod
    def read(cls, file: Path, path: str) -> Self:
        """Return the entry of a local file under a path, after reading every byte."""
        with file.open("rb") as opened:
            return cls(path, file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest())


class Store(ABC):
    """Objects below one URI. Paths are relative, with `/`, and never leave the root.

    Every method raises a `TrainerError` with a named reason: `SettingsInvalid` where retrying cannot help (no such
    bucket, access denied, keys missing), else `StorageFailed` or one of its kinds `ObjectMissing`, `ObjectDamaged`.
    """

    uri: str

    @abstractmethod
    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose path starts with `prefix` (not only whole folders), sorted by path."""

    @abstractmethod
    def chunks(self, path: str, offset: int = 0) -> Generator[bytes]:
        """Yield an object's bytes in order, from `offset` on."""

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write an object, replacing what is there; readers see the old or the new one, never a part."""

    @abstractmethod
    def put_once(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; of several writers exactly one gets True."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> FileEntry:
        """Write a file's bytes as an object; return its path, size and hash."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether an object exists."""

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that do not exist are no error."""

    def confined(self, path: str) -> None:
        """Refuse a path that a manifest names and that leads out of the root all the same (a link on a volume).

        Raises:
            ObjectDamaged: it does.
        """
        checked(path)

    def read(self, path: str, limit: int = READ_BYTES) -> bytes:
        """Return an object's bytes; for small objects.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: it has more bytes than `limit`.
        """
        data = self.start(path, limit + 1)
        if len(data) > limit:
            raise ObjectDamaged(
                f"{self.address(path)} has more than {limit} bytes; what is there was not written by us"
            )
        return data

    def start(self, path: str, length: int) -> bytes:
        """Return an object's first bytes, at most `length`, without reading the rest."""
        return self.part(path, 0, length)

    def part(self, path: str, offset: int, length: int) -> bytes:
        """Return at most `length` of an object's bytes, from `offset` on, without reading the rest."""
        data = bytearray()
        with closing(self.chunks(path, offset)) as chunks:
            for chunk in chunks:
                data += chunk
                if len(data) >= length:
                    break
        return bytes(data[:length])

    def digest(self, path: str, size: int | None = None) -> FileEntry:
        """Read an object to its end without keeping it; return its size and hash.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: it has more bytes than `size`; no more are read.
        """
        hashed, length = hashlib.sha256(), 0
        with closing(self.chunks(path)) as chunks:
            for chunk in chunks:
                length += len(chunk)
                self._ends(path, length, size)
                hashed.update(chunk)
        return FileEntry(path, length, hashed.hexdigest())

    def download(self, path: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> FileEntry:
        """Write an object to `target`, which appears only when it is whole, synced and has the expected hash.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: its size or hash is not the expected one; no more than `size` bytes are ever written.
        """
        hashed, length = hashlib.sha256(), 0
        with replacing(target) as file, closing(self.chunks(path)) as chunks:
            for chunk in chunks:
                length += len(chunk)
                self._ends(path, length, size)
                hashed.update(chunk)
                file.write(chunk)
            entry = FileEntry(path, length, hashed.hexdigest())
            if size is not None and size != length:
                raise ObjectDamaged(f"{self.address(path)} has {length} bytes, but {size} were written; restore it")
            if sha256 is not None and sha256 != entry.sha256:
                raise ObjectDamaged(
                    f"{self.address(path)} has sha256 {entry.sha256}, but {sha256} was written; restore or delete it"
                )
        return entry

    def _ends(self, path: str, length: int, size: int | None) -> None:
        if size is not None and length > size:
            raise ObjectDamaged(f"{self.address(path)} has more than the {size} bytes that were written; restore it")

    def local(self, path: str) -> Path | None:
        """Return the file that holds an object, if it lies on this machine anyway."""
        return None

    def address(self, path: str) -> str:
        """Return the full URI of an object, for messages."""
        return f"{self.uri.rstrip('/')}/{path}"


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Open `target` for writing beside itself; it takes its place, synced, when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def checked(path: str) -> str:
    """Return a relative path that stays below its root, or raise: paths also come from manifests, which are data."""
    parts: Sequence[str] = path.split("/")
    bad = "\0" in path or any(part in ("", ".", "..") for part in parts)
    if not path or bad or PurePosixPath(path).is_absolute():
        raise ObjectDamaged(f"{path!r} is no relative object path; what names it was not written by Trimtab")
    return path
