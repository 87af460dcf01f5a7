"""Adapters on the volume that agent and engine share: one immutable folder for each digest.

    <root>/<digest hex>/{adapter_model.safetensors, adapter_config.json, ..., MANIFEST.json}

A folder appears by one rename, when every byte has the hash that its manifest says and the manifest has the digest that
was asked for. It is never written again, and never removed while an engine lists it: an engine that evicted an adapter
and needs it again reads the folder, and dies when it is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import Credentials, Reason, canonical_json, digest_of
from trimtab_trainer.errors import SettingsInvalid, TrainerError
from trimtab_trainer.storage import (
    MANIFEST,
    FileEntry,
    ObjectDamaged,
    ObjectMissing,
    download,
    open_store,
    parse_manifest,
    read_manifest,
)

from ..failures import FailureReason, RevisionFailed
from ..logs import keys
from ..metrics import ERRORS
from .tensors import CONFIG, MAXIMUM_MAGNITUDE, Health, examine

log = logging.getLogger(__name__)
PART = ".part-"
BASE_CONFIG = "config.json"
"""Of a model; adapters have none."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that lies on the volume, verified: its folder, its health, and the base model it was made for."""

    digest: str
    folder: Path
    health: Health
    base_model_digest: str | None


class AdapterStore:
    """Fetches, verifies and removes; every method blocks, so it is called in a thread."""

    def __init__(
        self, root: Path, credentials: Credentials | None = None, maximum_magnitude: float = MAXIMUM_MAGNITUDE
    ) -> None:
        self._root = root
        self._credentials = credentials
        self._maximum_magnitude = maximum_magnitude

    def folder(self, digest: str) -> Path:
        """Return where an adapter of this digest lies, whether or not it does."""
        return self._root / digest.removeprefix("sha256:")

    def prepare(self) -> None:
        """Make the root, and remove what an earlier process left half-written."""
        self._root.mkdir(parents=True, exist_ok=True)
        for left_over in self._root.glob(f"{PART}*"):
            shutil.rmtree(left_over)

    def bring(self, uri: str, digest: str) -> Adapter:
        """Fetch an adapter and verify it.

        Raises:
            RevisionFailed: and nothing else, whatever lies there.
        """
        try:
            self.fetch(uri, digest)
            return self.verify(digest)
        except RevisionFailed:
            raise
        except Exception as error:  # a bug of ours: told, and tried again with pauses that grow
            ERRORS.inc()
            log.exception("adapter could not be read", extra=keys(digest=digest))
            raise RevisionFailed(
                FailureReason.ARTIFACT_DAMAGED,
                f"the adapter could not be read ({type(error).__name__}); the agent's log says more",
                permanent=False,
            ) from error

    def fetch(self, uri: str, digest: str) -> Path:
        """Bring an adapter to the volume unless it is there; return its folder.

        Raises:
            RevisionFailed: it cannot be had, or is not what its digest says.
        """
        folder = self.folder(digest)
        if folder.is_dir():
            return folder
        part = self._root / f"{PART}{uuid.uuid4().hex}"
        try:
            store = open_store(uri, self._credentials)
            manifest = read_manifest(store, "")
            if manifest is None:
                raise RevisionFailed(
                    FailureReason.ARTIFACT_MISSING, f"there is no {MANIFEST} at {uri}; correct the uri", permanent=False
                )
            artifact = _artifact(manifest.document, digest)
            files = _files(artifact)
            self._has_room_for(files)
            for entry in files:
                download(store, "", entry, part)
            part.mkdir(parents=True, exist_ok=True)
            (part / MANIFEST).write_bytes(canonical_json(manifest.document))
            _open_to_the_engine(part)
            part.rename(folder)
        except TrainerError as error:
            raise _named(error) from error
        except OSError as error:
            if not folder.is_dir():  # another task was first
                raise RevisionFailed(
                    FailureReason.STORAGE_FAILED, f"{self._root}: {error.strerror or error}", permanent=False
                ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return folder

    def verify(self, digest: str) -> Adapter:
        """Read a folder again from its first byte to its last.

        Raises:
            RevisionFailed: permanent; it is not what its digest says, or its weights would harm an engine.
        """
        folder = self.folder(digest)
        try:
            artifact = _artifact(parse_manifest((folder / MANIFEST).read_bytes()).document, digest)
            for entry in _files(artifact):
                if FileEntry.read(folder / entry.path, entry.path) != entry:
                    raise ObjectDamaged(f"{folder / entry.path} is not what was fetched")
        except (OSError, ValueError, TrainerError) as error:
            raise RevisionFailed(FailureReason.ARTIFACT_DAMAGED, str(error), permanent=True) from error
        base = artifact.get("baseModel")
        health = examine(folder, self._maximum_magnitude)
        return Adapter(digest, folder, health, base if isinstance(base, str) else None)

    def _has_room_for(self, files: list[FileEntry]) -> None:
        """Refuse what the volume cannot hold, before it is full for everybody."""
        size, free = sum(entry.size for entry in files), shutil.disk_usage(self._root).free
        if size > free:
            raise RevisionFailed(
                FailureReason.STORAGE_FAILED,
                f"the adapter has {size} bytes, the volume of the agent {free} left; give it a larger one",
                permanent=False,
            )

    def remove(self, digest: str) -> None:
        """Remove a folder that no engine has listed since it was fetched."""
        gone = self._root / f"{PART}{uuid.uuid4().hex}"
        try:
            self.folder(digest).rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone)

    def digests(self) -> set[str]:
        """Return the digests of all folders on the volume."""
        with os.scandir(self._root) as entries:
            names = [entry.name for entry in entries if len(entry.name) == 64 and entry.is_dir()]
        return {f"sha256:{name}" for name in names if not name.startswith(".")}

    def unwanted(self, wanted: Collection[str], listed: Collection[str]) -> set[str]:
        """Return the digests that no share wants and whose folder no engine lists as a model's root."""
        unasked = self.digests().difference(wanted)
        roots = {str(Path(root)) for root in listed} if unasked else set()
        return {digest for digest in unasked if str(self.folder(digest)) not in roots}


def _artifact(document: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the part of a manifest that defines an adapter, if it has the digest that was asked for."""
    artifact = document.get("artifact")
    if not isinstance(artifact, dict):
        raise ObjectDamaged(f"{MANIFEST} is none of an adapter")
    found = digest_of(artifact)
    if found != digest:
        raise RevisionFailed(
            FailureReason.DIGEST_MISMATCH, f"the adapter there has digest {found}, not {digest}", permanent=True
        )
    return artifact


def _files(artifact: dict[str, Any]) -> list[FileEntry]:
    try:
        files = [FileEntry.of(item) for item in artifact["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ObjectDamaged(f"{MANIFEST} names no files of an adapter") from error
    names = {entry.path for entry in files}
    if CONFIG not in names and BASE_CONFIG in names:
        raise RevisionFailed(
            FailureReason.NOT_SUPPORTED,
            "it is a whole model, and engines load adapters; start an engine with it instead",
            permanent=True,
        )
    return files


def _open_to_the_engine(folder: Path) -> None:
    """Let another user read, and nobody write."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o444)


def _named(error: TrainerError) -> RevisionFailed:
    if isinstance(error, ObjectDamaged):
        # Whoever restores the object need not restart anything; until then each try is refused again.
        return RevisionFailed(FailureReason.ARTIFACT_DAMAGED, error.message, permanent=False)
    if isinstance(error, ObjectMissing):
        return RevisionFailed(FailureReason.ARTIFACT_MISSING, error.message, permanent=False)
    if isinstance(error, SettingsInvalid):
        denied = error.reason in (Reason.ACCESS_DENIED, Reason.CREDENTIALS_MISSING)
        reason = FailureReason.ACCESS_DENIED if denied else FailureReason.STORAGE_FAILED
        return RevisionFailed(reason, error.message, permanent=False)  # keys and buckets are put right while it runs
    return RevisionFailed(FailureReason.STORAGE_FAILED, error.message, permanent=False)
