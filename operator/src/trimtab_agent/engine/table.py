"""The files the agent puts on the shared volume for the guard: the guard itself, the token, the table of aliases."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import guard
from ..guard.files import TABLE, TOKEN, Table

log = logging.getLogger(__name__)

PACKAGE = "trimtab_guard"
"""The guard's name on the volume, for `--middleware trimtab_guard.Guard`."""


@dataclass(frozen=True)
class AliasEntry:
    """What one alias stands for: `to` revisions by weight, or `pending`, or `unavailable`, with the reason."""

    to: Mapping[str, int] = field(default_factory=dict)
    pending: str | None = None
    unavailable: str | None = None

    def to_json(self) -> dict[str, Any]:
        if self.to:
            return {"to": dict(self.to)}
        return {"unavailable": self.unavailable} if self.unavailable is not None else {"pending": self.pending}

    @property
    def targets(self) -> set[str]:
        """Return the revisions that get requests."""
        return {name for name, weight in self.to.items() if weight > 0}


@dataclass(frozen=True)
class AliasTable:
    """All aliases of the pod, and which start of the engine was harmed, if one was."""

    aliases: Mapping[str, AliasEntry] = field(default_factory=dict)
    harmed_instance: str | None = None
    harmed_reason: str | None = None

    @property
    def targets(self) -> set[str]:
        """Return the revisions that any alias points at."""
        return {name for entry in self.aliases.values() for name in entry.targets}

    def to_bytes(self) -> bytes:
        document: dict[str, Any] = {
            "version": 1,
            "aliases": {alias: entry.to_json() for alias, entry in sorted(self.aliases.items())},
        }
        if self.harmed_instance is not None:
            document["harmed"] = {"instance": self.harmed_instance, "reason": self.harmed_reason or ""}
        return json.dumps(document, sort_keys=True).encode()

    @staticmethod
    def parse(data: bytes) -> AliasTable:
        """Return what was written; the reverse of `to_bytes`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: this agent did not write it.
        """
        document = json.loads(data)
        Table(data)
        harmed = document.get("harmed") or {}
        return AliasTable(
            {
                alias: AliasEntry(entry.get("to", {}), entry.get("pending"), entry.get("unavailable"))
                for alias, entry in document["aliases"].items()
            },
            harmed.get("instance"),
            harmed.get("reason"),
        )


class SharedVolume:
    """The folder both containers see."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.adapters = root / "adapters"
        self.table = AliasTable()
        self._written_ns = 0

    def prepare(self) -> str:
        """Put guard, token and table in place, in this order; return the token.

        A token or table that is there stays: they belong to the pod, and the engine may be serving by them.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self._install()
        token = self._token()
        try:
            self.table = AliasTable.parse((self.root / TABLE).read_bytes())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.write(AliasTable())
        return token

    def in_place(self) -> bool:
        """Tell whether an engine that starts now finds everything it needs."""
        return all((self.root / name).is_file() for name in (f"{PACKAGE}/__init__.py", TOKEN, TABLE))

    def write(self, table: AliasTable) -> None:
        """Replace the table by one rename.

        The modification time always grows, by a nanosecond at least: the guard tells tables apart by it, a kernel's
        clock may stand still for milliseconds, and inode numbers are used again.
        """
        part = self._part(TABLE)
        with part.open("wb") as file:
            file.write(table.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        self._written_ns = max(time.time_ns(), self._written_ns + 1)
        os.utime(part, ns=(self._written_ns, self._written_ns))
        part.replace(self.root / TABLE)
        self.table = table

    def _install(self) -> None:
        """Put the guard in place as a whole: its name is a link, which one rename points at another copy.

        Earlier copies go. One that cannot be removed stays: an engine that may write here as another user has put
        compiled files into it.
        """
        before = list(self.root.glob(f".{PACKAGE}.*"))
        copy, link = self.root / f".{PACKAGE}.{uuid.uuid4().hex[:8]}", self._part(PACKAGE)
        copy.mkdir()
        copy.chmod(0o755)
        for source in Path(guard.__file__).parent.glob("*.py"):
            shutil.copyfile(source, copy / source.name)
            (copy / source.name).chmod(0o644)
        link.symlink_to(copy.name)
        link.replace(self.root / PACKAGE)
        for old in before:
            try:
                old.unlink() if old.is_symlink() else shutil.rmtree(old)
            except OSError as error:
                log.warning("an earlier copy of the guard stays: %s", error)

    def _token(self) -> str:
        file = self.root / TOKEN
        try:
            token = file.read_text().strip()
            if len(token) >= 32:
                return token
        except FileNotFoundError:
            pass  # the first start on this volume: it is made below
        token = secrets.token_urlsafe(32)
        part = self._part(TOKEN)
        part.touch(mode=0o600)
        part.write_text(token)
        part.chmod(0o440)
        part.replace(file)
        return token

    def _part(self, name: str) -> Path:
        return self.root / f".{name}.{uuid.uuid4().hex[:8]}.part"
