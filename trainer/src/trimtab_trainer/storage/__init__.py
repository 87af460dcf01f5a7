"""Object storage: one interface over S3 and over a mounted volume, verified on every read.

`open_store` gives a `Store` rooted at a URI; `manifest` commits folders of files with a MANIFEST.json put last.
"""

from .manifest import (
    MANIFEST,
    Manifest,
    commit,
    download,
    fetch,
    fetch_prepared,
    keep,
    name_by_hash,
    parse_manifest,
    prepared_manifest,
    read_manifest,
    store_folder,
    upload_folder,
    verify,
    whole,
)
from .opening import open_store
from .store import FileEntry, ObjectDamaged, ObjectInfo, ObjectMissing, Store

__all__ = [
    "MANIFEST",
    "FileEntry",
    "Manifest",
    "ObjectDamaged",
    "ObjectInfo",
    "ObjectMissing",
    "Store",
    "commit",
    "download",
    "fetch",
    "fetch_prepared",
    "keep",
    "name_by_hash",
    "open_store",
    "parse_manifest",
    "prepared_manifest",
    "read_manifest",
    "store_folder",
    "upload_folder",
    "verify",
    "whole",
]
