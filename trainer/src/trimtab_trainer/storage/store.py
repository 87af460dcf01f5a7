"""The interface `Store`, its values, and the one way bytes become a file: hashed, synced, then renamed."""

from __future__ import annotations

import hashlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self

from ..errors import StorageFailed

CHUNK_BYTES = 1 << 20


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
            KeyError, TypeError, ValueError: it is none, or its path leaves the folder.
        """
        return cls(checked(str(item["path"])), int(item["size"]), str(item["sha256"]))

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
    def chunks(self, path: str) -> Iterator[bytes]:
        """Yield an object's bytes in order."""

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

    def read(self, path: str) -> bytes:
        """Return an object's bytes; for small objects."""
        return b"".join(self.chunks(path))

    def start(self, path: str, length: int) -> bytes:
        """Return an object's first bytes, at most `length`, without reading the rest."""
        data = b""
        chunks = self.chunks(path)
        for chunk in chunks:
            data += chunk
            if len(data) >= length:
                break
        if isinstance(chunks, Generator):
            chunks.close()
        return data[:length]

    def digest(self, path: str) -> FileEntry:
        """Read an object to its end without keeping it; return its size and hash."""
        sha256, size = hashlib.sha256(), 0
        for chunk in self.chunks(path):
            sha256.update(chunk)
            size += len(chunk)
        return FileEntry(path, size, sha256.hexdigest())

    def download(self, path: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> FileEntry:
        """Write an object to `target`, which appears only when it is whole, synced and has the expected hash.

        Raises:
            ObjectMissing: there is no such object.
            ObjectDamaged: its size or hash is not the expected one.
        """
        hashed, length = hashlib.sha256(), 0
        with replacing(target) as file:
            for chunk in self.chunks(path):
                hashed.update(chunk)
                length += len(chunk)
                file.write(chunk)
            entry = FileEntry(path, length, hashed.hexdigest())
            if size is not None and size != length:
                raise ObjectDamaged(f"{self.address(path)} has {length} bytes, but {size} were written; restore it")
            if sha256 is not None and sha256 != entry.sha256:
                raise ObjectDamaged(
                    f"{self.address(path)} has sha256 {entry.sha256}, but {sha256} was written; restore or delete it"
                )
        return entry

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
    if not path or any(part in ("", ".", "..") for part in parts) or PurePosixPath(path).is_absolute():
        raise ObjectDamaged(f"{path!r} is no relative object path; what names it was not written by Trimtab")
    return path
