"""Cold start: documents from the mounted ConfigMap, for a pod that comes up while the operator is not there.

The kubelet brings a change about a minute late, so this is no way for changes; a call that was newer wins by its
sequence. The ConfigMap holds all rollouts of the namespace: a document is for this pod if its labels match.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from pathlib import Path

from ..contract import Share
from ..documents import MountedDocument, Refused, Verifier, read_share
from ..logs import keys
from ..metrics import DOCUMENTS
from ..rounds.agent import Agent

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class MountedDocuments:
    """Reads the folder again and again; what was taken or refused for good is not looked at twice."""

    def __init__(self, folder: Path, labels: Path, verifier: Verifier, agent: Agent, every: float = 5) -> None:
        self._folder = folder
        self._labels = labels
        self._verifier = verifier
        self._agent = agent
        self._every = every
        self._settled: set[str] = set()
        self._read: dict[str, tuple[Stamp, str]] = {}

    async def run(self) -> None:
        """Read for ever."""
        while True:
            self.read()
            await asyncio.sleep(self._every)

    def read(self) -> None:
        """Take every document that is new, oldest first: of two that claim one alias, the first keeps it."""
        files = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        try:
            labels = read_labels(self._labels) if files else {}
        except OSError as error:
            log.warning("labels not read, no mounted document is taken", extra=keys(file=self._labels, err=str(error)))
            return
        found: list[tuple[Share, str, str]] = []
        marks = set()
        for file in files:
            try:
                stamp = stamp_of(file)
                read, mark = self._read.get(file.name, (None, ""))
                if read == stamp and mark in self._settled:
                    marks.add(mark)
                    continue
                data = file.read_bytes()
            except FileNotFoundError:
                continue  # the kubelet is replacing it: it is there in the next round
            except OSError as error:
                log.warning("mounted document not read", extra=keys(file=file.name, err=str(error)))
                continue
            mark = hashlib.sha256(file.name.encode() + b"\0" + data).hexdigest()
            marks.add(mark)
            self._read[file.name] = (stamp, mark)
            if mark in self._settled:
                continue
            try:
                document = MountedDocument.read(data)
                self._verifier.mounted(document)
                share = read_share(document.body)
            except Refused as error:
                self._refused(file.name, error)
                if error.reason != "KeyUnknown":  # its key may be on the way
                    self._settled.add(mark)
                continue
            if all(labels.get(key) == value for key, value in share.match_labels.items()):
                found.append((share, file.name, mark))
            else:
                self._settled.add(mark)
        for share, name, mark in sorted(found, key=lambda item: (item[0].sequence, item[1])):
            try:
                taken = self._agent.accept(share, mounted=True)
                DOCUMENTS.labels("mounted" if taken else "known").inc()
                self._settled.add(mark)
            except Refused as error:
                self._refused(name, error)
                if error.reason.startswith("Sequence"):
                    self._settled.add(mark)
        self._settled &= marks
        self._read = {name: known for name, known in self._read.items() if known[1] in marks}

    def _refused(self, name: str, error: Refused) -> None:
        DOCUMENTS.labels(error.reason).inc()
        level = logging.DEBUG if error.reason.startswith("Sequence") else logging.WARNING
        log.log(level, "mounted document refused", extra=keys(file=name, reason=error.reason, err=error.message))


def stamp_of(file: Path) -> Stamp:
    """Return what changes when another file takes a name's place: a namespace may have a thousand documents."""
    found = file.stat()
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def read_labels(file: Path) -> dict[str, str]:
    """Return the pod's labels from the downward API's file: `key="value"` a line, the value quoted as in Go.

    Raises:
        OSError: it is not there, or is not to be read.
    """
    labels = {}
    for line in file.read_text().splitlines():
        key, _, value = line.partition("=")
        try:
            labels[key] = str(json.loads(value))
        except ValueError:
            labels[key] = value
    return labels
