"""`python -m trimtab_agent fetch-base-model`: bring the base model to the volume that the engine reads it from.

An init container of the engine's pod runs it, so that an engine needs no credentials and no way out. The files are
those that a FineTuneJob reads, and their digest is the one that its adapter names.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from pathlib import Path
from uuid import uuid4

from trimtab_trainer.base.base_model import BaseModel, digest_of_entries, find_base_model
from trimtab_trainer.contract import Reason, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.folders import tidy
from trimtab_trainer.storage import FileEntry

from .. import logs

log = logging.getLogger("trimtab_agent")

LEFT_SECONDS = 600.0
"""A download in which no file has changed for so long is nobody's any more."""


def fetch_base_model(settings: StoredBaseModel, folder: Path) -> str:
    """Put the base model's files into a folder, all of them or none; return their digest.

    A folder that has the digest already is left as it is, so a volume that several pods share is filled once.

    Raises:
        SettingsInvalid: there is no such base model, or it is not the one that `settings.digest` names.
        StorageFailed: it cannot be read now.
    """
    started = time.monotonic()
    model = find_base_model(settings)
    found = digest_of_folder(model, folder) if settings.digest is not None else None
    if found is not None and found == settings.digest:
        log.info("base model is there", extra=logs.keys(uri=settings.uri, digest=found))
        return found
    # A name of this process alone: pods on a node's network, or of one name in two namespaces, have one host name and
    # may share the volume.
    part = folder / f".part-{socket.gethostname()}-{uuid4().hex}"
    part.mkdir(parents=True)
    _remove_left(part)
    try:
        entries = tuple(model.store.download(name, part / name, size=size) for name, size in model.sizes.items())
        digest = digest_of_entries(entries)
        if settings.digest not in (None, digest):
            raise SettingsInvalid(
                f"the base model at {settings.uri} has digest {digest}, but {settings.digest} is asked for; restore "
                "it, or set TRIMTAB_BASE_MODEL_DIGEST to the new one",
                Reason.BASE_MODEL_CHANGED,
            )
        for entry in entries:
            (part / entry.path).replace(folder / entry.path)
    finally:
        tidy(part, _warn)
    size, seconds = sum(entry.size for entry in entries), round(time.monotonic() - started, 1)
    log.info("base model fetched", extra=logs.keys(uri=settings.uri, digest=digest, bytes=size, seconds=seconds))
    return digest


def _remove_left(part: Path) -> None:
    """Remove what containers of this host name that were killed have left, by the clock of the volume."""
    now, mine = part.stat().st_mtime, re.compile(rf"\.part-{re.escape(socket.gethostname())}(-[0-9a-f]{{32}})?")
    for left in part.parent.iterdir():
        if left != part and mine.fullmatch(left.name) and now - _last_change(left, now) > LEFT_SECONDS:
            tidy(left, _warn)


def _last_change(folder: Path, now: float) -> float:
    """Return when something in a folder changed last, as a Unix time; now, where it changes at this moment."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return now


def _warn(message: str, **fields: object) -> None:
    log.warning(message, extra=logs.keys(**fields))


def digest_of_folder(model: BaseModel, folder: Path) -> str | None:
    """Return the digest of the files in a folder that the base model has in storage; None if one is missing."""
    try:
        return digest_of_entries(tuple(FileEntry.read(folder / name, name) for name in model.sizes))
    except FileNotFoundError:
        return None
