"""Layers, configs, manifests and their index: a real image, so that whatever pulls images can pull a model.

Each file of the model is a layer of its own, an uncompressed tar with the file below `models/` (where KServe looks for
it). A model is of no processor, but an image is, and a node takes none of another's: the index has a manifest for each
of both, of the same layers. Annotations of layers are those of the CNCF model specification
(https://github.com/modelpack/model-spec/blob/main/docs/annotations.md). No times, so the same model is the same image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...contract import canonical_json
from ...contract.exporting import SIZE_MAXIMUM
from ...contract.parsing import Unreadable, read_object, whole_number
from .registry import ANSWER_BYTES, Registry, digest_of_bytes

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = ("amd64", "arm64")
FOLDER = "models"
FILE_MODE, FOLDER_MODE = 0o644, 0o755
CHUNK_BYTES = 1 << 20
FILE_PATH, FILE_METADATA = "org.cncf.model.filepath", "org.cncf.model.file.metadata+json"
REQUEST = "dev.trimtab.export.request"
"""Annotation of the index: the digest of what the image was made from."""


class Tar:
    """A tar of one file, made while it is read; nobody's, of no time."""

    def __init__(self, file: Path) -> None:
        self.file, self.length = file, file.stat().st_size
        folder, entry = tarfile.TarInfo(FOLDER), tarfile.TarInfo(f"{FOLDER}/{file.name}")
        folder.type, folder.mode = tarfile.DIRTYPE, FOLDER_MODE
        entry.size, entry.mode = self.length, FILE_MODE
        self._head = folder.tobuf(tarfile.PAX_FORMAT) + entry.tobuf(tarfile.PAX_FORMAT)
        self._tail = bytes(-self.length % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
        self.size = len(self._head) + self.length + len(self._tail)
        whole = hashlib.sha256()
        for chunk in self.chunks():
            whole.update(chunk)
        self.digest = f"sha256:{whole.hexdigest()}"

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes."""
        yield self._head
        with self.file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk
        yield self._tail

    def open(self) -> _Reading:
        """Return it from its beginning."""
        return _Reading(self)


class _Reading:
    """A tar that HTTP reads: it asks for the length first, then for pieces."""

    def __init__(self, tar: Tar) -> None:
        self._tar = tar
        self.seek(0)

    def seek(self, position: int) -> None:
        if position:
            raise ValueError("it is read from its beginning")
        self._chunks, self._left = self._tar.chunks(), memoryview(b"")

    def __len__(self) -> int:
        return self._tar.size

    def read(self, size: int = -1) -> bytes:
        wanted, pieces = self._tar.size if size < 0 else size, list[memoryview]()
        while wanted and (self._left or (chunk := next(self._chunks, b""))):
            left = self._left or memoryview(chunk)
            pieces.append(left[:wanted])
            self._left, wanted = left[wanted:], wanted - len(pieces[-1])
        return b"".join(pieces)


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def digest(self) -> str:
        return digest_of_bytes(self.data)

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.data)


@dataclass
class Image:
    """An image that is being put into a repository, layer after layer; nobody sees it before `commit`."""

    registry: Registry
    layers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """Put a file as a layer."""
        tar = Tar(file)
        self.registry.put_blob(tar)
        metadata = {
            "name": file.name,
            "mode": FILE_MODE,
            "uid": 0,
            "gid": 0,
            "size": tar.length,
            "mtime": "1970-01-01T00:00:00Z",
            "typeflag": ord(tarfile.REGTYPE),
        }
        annotations = {
            FILE_PATH: f"{FOLDER}/{file.name}",
            FILE_METADATA: json.dumps(metadata, separators=(",", ":"), sort_keys=True),
        }
        self.layers.append({**_descriptor(LAYER, tar.digest, tar.size), "annotations": annotations})

    def commit(self, tag: str, annotations: Mapping[str, str]) -> str:
        """Put configs and manifests, and last their index under the tag; return its digest."""
        manifests = []
        for architecture in ARCHITECTURES:
            config = _Bytes(canonical_json(self._config(architecture)))
            self.registry.put_blob(config)
            manifest = canonical_json(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": _descriptor(CONFIG, config.digest, config.size),
                    "layers": self.layers,
                    "annotations": dict(annotations),
                }
            )
            digest = digest_of_bytes(manifest)
            self.registry.put_manifest(digest, manifest, MANIFEST)
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append({**_descriptor(MANIFEST, digest, len(manifest)), "platform": platform})
        index = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": manifests,
                "annotations": dict(annotations),
            }
        )
        self.registry.put_manifest(tag, index, INDEX)
        return digest_of_bytes(index)

    def _config(self, architecture: str) -> dict[str, Any]:
        layers = [each["digest"] for each in self.layers]  # a tar that is not compressed is its own content
        return {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers},
        }


@dataclass(frozen=True)
class Found:
    """An image that is there: the digest of its index, the bytes of its layers and how many they are."""

    digest: str
    size: int
    files: int


def find_image(registry: Registry, tag: str, request: str) -> Found | None:
    """Return what a tag is of if that was made from these very things, and all of it is there; else None."""
    data = registry.manifest(tag, INDEX)
    try:
        index = read_object(data or b"", ANSWER_BYTES)
        if index["annotations"][REQUEST] != request:
            return None
        (layers, *others) = [
            read_object(registry.manifest(each["digest"], MANIFEST) or b"", ANSWER_BYTES)["layers"]
            for each in index["manifests"]
        ]
        there = all(each == layers for each in others) and all(registry.has_blob(each["digest"]) for each in layers)
        size = sum(whole_number(each["size"], "the size of a layer") for each in layers)
        whole_number(size, "the size of all layers", most=SIZE_MAXIMUM)
    except (Unreadable, KeyError, TypeError, ValueError):
        return None  # somebody else's image
    return Found(digest_of_bytes(data or b""), size, len(layers)) if there else None


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}
