"""Folders of files, committed by a MANIFEST.json that is put last and once: what has no manifest does not exist.

Rows, views, checkpoints and adapters are all written this way. A manifest is a JSON object; every `files` list in it,
or in one of its parts, names files of the same prefix with size and sha256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..contract import canonical_json
from ..contract.parsing import JSON_BYTES, Unreadable, read_object
from ..errors import PreparedDataMissing
from .store import FileEntry, ObjectDamaged, ObjectMissing, Store

MANIFEST = "MANIFEST.json"

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read: the whole document, and the files it names."""

    document: dict[str, Any]
    files: tuple[FileEntry, ...]


def upload_folder(store: Store, folder: Path, prefix: str) -> tuple[FileEntry, ...]:
    """Upload all files below a folder to `<prefix>/`; return their entries, paths relative to the prefix, sorted."""
    entries = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        entry = store.upload(file, join(prefix, name))
        entries.append(FileEntry(name, entry.size, entry.sha256))
    return tuple(entries)


def commit(store: Store, prefix: str, document: dict[str, Any]) -> bool:
    """Put the manifest, after all its files; False means that a different one is there already (read it)."""
    data = canonical_json(document)
    path = join(prefix, MANIFEST)
    # A put that was repeated because its answer got lost finds itself in the way.
    return store.put_once(path, data) or store.read(path) == data


def keep(
    store: Store, prefix: str, document: dict[str, Any], read: Callable[[], Kept | None], folder: Path | None = None
) -> Kept:
    """Store what has a content address, manifest last and once; return what is stored: another's, if it was first.

    Args:
        document: the manifest, but for its files.
        read: returns what is stored, None if it is not there or not as it was written: then it is stored anew.
        folder: with the files, whose names hold their hash, so that two writers never mix; None: it has none.

    Raises:
        ObjectDamaged: what is stored does not stay as it was written.
        TrainerError: storage failed; nothing half-written is visible.
    """
    for _ in range(2):
        if not _has_manifest(store, prefix):
            entries = upload_folder(store, folder, prefix) if folder is not None else ()
            commit(store, prefix, {**document, "files": [entry.to_json() for entry in entries]})
        if (stored := read()) is not None:
            return stored
        store.delete([join(prefix, MANIFEST)])
    raise ObjectDamaged(f"{store.address(prefix)} is not as it was written; check the object storage")


def _has_manifest(store: Store, prefix: str) -> bool:
    try:
        return read_manifest(store, prefix) is not None
    except ObjectDamaged:
        store.delete([join(prefix, MANIFEST)])
        return False


def name_by_hash(file: Path) -> Path:
    """Rename a file to one whose name holds its hash, as `keep` wants it; return that."""
    return file.rename(file.with_name(f"{file.stem}-{FileEntry.read(file, file.name).sha256[:16]}{file.suffix}"))


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """Return the manifest of a prefix, or None if there is none.

    Raises:
        ObjectDamaged: there is one that cannot be understood.
    """
    path = join(prefix, MANIFEST)
    try:
        store.confined(path)
        data = store.read(path, JSON_BYTES)
    except ObjectMissing:
        return None
    try:
        return parse_manifest(data)
    except Unreadable as error:
        raise ObjectDamaged(f"{store.address(path)} is no manifest: {error}; delete its folder") from error


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest that these bytes are.

    Raises:
        Unreadable: they are none, or its files cannot lie beside each other in one folder.
        ObjectDamaged: a path leaves the folder.
    """
    document = read_object(data)
    lists = [part["files"] for part in (document, *document.values()) if isinstance(part, dict) and "files" in part]
    if not all(isinstance(each, list) for each in lists):
        raise Unreadable("its files are no list")
    files = tuple(FileEntry.of(item) for each in lists for item in each)
    paths = {entry.path for entry in files} | {MANIFEST}
    if len(paths) != len(files) + 1:
        raise Unreadable("two of its files have one path")
    if any(parent in paths for path in paths for parent in _parents(path)):
        raise Unreadable("one of its files is the folder of another")
    return Manifest(document, files)


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def store_folder(store: Store, folder: Path, prefix: str, document: dict[str, Any]) -> None:
    """Put a folder in place under its content address: all its files, then the manifest that names them.

    Raises:
        ObjectDamaged: another manifest is there for the same content address.
    """
    entries = upload_folder(store, folder, prefix)
    if not commit(store, prefix, {**document, "files": [entry.to_json() for entry in entries]}):
        raise ObjectDamaged(
            f"{store.address(prefix)} holds other bytes for the same content address; delete it, it is made again"
        )


def whole(store: Store, prefix: str) -> Manifest | None:
    """Return a manifest if its files are there in full; one that cannot be read is deleted, to be made again."""
    try:
        manifest = read_manifest(store, prefix)
    except ObjectDamaged:
        store.delete([join(prefix, MANIFEST)])
        return None
    if manifest is None:
        return None
    sizes = {info.path: info.size for info in store.list(f"{prefix}/")}
    there = all(sizes.get(join(prefix, entry.path)) == entry.size for entry in manifest.files)
    return manifest if there else None


def verify(store: Store, prefix: str, manifest: Manifest) -> None:
    """Read every byte of the files that a manifest names.

    Raises:
        ObjectMissing, ObjectDamaged: one is not there, or not as it was written.
    """
    for entry in manifest.files:
        path = join(prefix, entry.path)
        store.confined(path)
        found = store.digest(path, entry.size)
        if (found.size, found.sha256) != (entry.size, entry.sha256):
            raise ObjectDamaged(f"{store.address(path)} is not as it was published")


def fetch(
    store: Store, prefix: str, target: Path, wanted: Callable[[str], bool] = lambda path: True
) -> Manifest | None:
    """Download the (wanted) files of a prefix into a folder, each verified; None if there is no manifest.

    Raises:
        ObjectMissing, ObjectDamaged: a file is not what the manifest says.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    for entry in manifest.files:
        if wanted(entry.path):
            download(store, prefix, entry, target)
    return manifest


def download(store: Store, prefix: str, entry: FileEntry, target: Path) -> None:
    """Download one file that a manifest names into a folder, verified.

    Raises:
        ObjectMissing, ObjectDamaged: it is not what the manifest says.
    """
    path = join(prefix, entry.path)
    store.confined(path)
    store.download(path, target / entry.path, sha256=entry.sha256, size=entry.size)


def fetch_prepared(
    store: Store, prefix: str, target: Path, wanted: Callable[[str], bool] = lambda path: True
) -> Manifest:
    """Download the (wanted) files of a prefix that an earlier stage wrote, each verified.

    Raises:
        PreparedDataMissing: there is no manifest (a lifecycle rule deleted it), or a file is not what it says.
    """
    return _prepared(store, prefix, lambda: fetch(store, prefix, target, wanted))


def prepared_manifest(store: Store, prefix: str) -> Manifest:
    """Return the manifest of what an earlier stage wrote.

    Raises:
        PreparedDataMissing: there is none.
    """
    return _prepared(store, prefix, lambda: read_manifest(store, prefix))


def _prepared(store: Store, prefix: str, read: Callable[[], Manifest | None]) -> Manifest:
    try:
        manifest = read()
    except (ObjectMissing, ObjectDamaged) as error:
        raise PreparedDataMissing(f"{error.message}; the prepare stage has to run again") from error
    if manifest is None:
        raise PreparedDataMissing(f"{store.address(prefix)} has no manifest; the prepare stage has to run again")
    return manifest


def join(prefix: str, name: str) -> str:
    """Return the path of a name below a prefix, which may be empty."""
    return f"{prefix.rstrip('/')}/{name}" if prefix else name
