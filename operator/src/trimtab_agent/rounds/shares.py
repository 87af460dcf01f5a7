"""The shares this pod holds: accepted in order, kept on disk over a restart of the agent, united into one wish.

A share is replaced by one of a higher sequence only, so a replay, or a former leader that still writes, changes
nothing. A retired share stays for a while as the mark of its sequence: otherwise an older document could bring it back.
An hour later no call that was signed then is good any more, and the kubelet has long brought the ConfigMap without it.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from ..contract import SHARES_KEPT, Revision, Share
from ..documents import Refused, read_share

MARKS_KEPT = 1024
"""Of retired shares: as many, and for so many seconds."""
MARK_SECONDS = 3600.0


class Shares:
    """Shares by rollout; the folder is the agent's own, the engine does not see it. `now` in seconds since 1970."""

    def __init__(self, folder: Path, namespace: str, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._namespace = namespace
        self._now = now
        self._held: dict[str, Share] = {}
        self._marks: dict[str, float] = {}
        """When each retired share was retired, oldest first."""

    def load(self) -> None:
        """Read what an earlier process of this pod accepted.

        Raises:
            OSError: the folder cannot be read or made.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(self._folder.glob("*.json")):
            try:
                share = read_share(file.read_bytes())
            except Refused:
                file.unlink()  # of another version: the operator sends it again, the mounted documents hold it too
                continue
            self._held[share.rollout] = share
            if share.retired:
                self._marks[share.rollout] = file.stat().st_mtime
        self._marks = dict(sorted(self._marks.items(), key=lambda item: item[1]))
        self._prune()

    def get(self, rollout: str) -> Share | None:
        return self._held.get(rollout)

    def active(self) -> tuple[Share, ...]:
        """Return the shares that want something or may want it again, in the order of their names."""
        return tuple(share for _, share in sorted(self._held.items()) if not share.retired)

    @property
    def highest(self) -> tuple[int, int]:
        """The highest sequence that is held: whoever wants to be heard here about anything has to be above it."""
        return max((share.sequence for share in self._held.values()), default=(0, 0))

    def check(self, share: Share) -> bool:
        """Tell whether a share is news; False means that exactly this one is held already.

        Raises:
            Refused: 403 for another namespace; 409 where it is older, or takes what another share holds.
        """
        if share.namespace != self._namespace:
            raise Refused(403, "NamespaceWrong", f"this agent is of namespace {self._namespace}")
        held = self._held.get(share.rollout)
        if held is not None:
            if share.sequence == held.sequence:
                if share == held:
                    return False
                raise Refused(409, "SequenceReused", f"sequence {list(share.sequence)} was used for another content")
            if share.sequence < held.sequence:
                raise Refused(
                    409, "SequenceOld", f"sequence {list(share.sequence)} is older than {list(held.sequence)}"
                )
        wants_room = not share.retired and (held is None or held.retired)
        if wants_room and len(self._held) - len(self._marks) >= SHARES_KEPT:
            raise Refused(409, "TooManyShares", f"this pod holds {SHARES_KEPT} shares already")
        digests = {revision.name: revision.digest for revision in share.revisions}
        for other in self.active():
            if other.rollout == share.rollout:
                continue
            if taken := sorted(set(share.aliases) & set(other.aliases)):
                raise Refused(409, "AliasHeld", f"alias {taken[0]} is held by rollout {other.rollout}")
            for revision in other.revisions:
                if digests.get(revision.name, revision.digest) != revision.digest:
                    raise Refused(409, "NameTaken", f"{revision.name} is another digest in rollout {other.rollout}")
        return True

    def accept(self, share: Share) -> None:
        """Hold a share that was checked, from now on and over a restart."""
        part = self._folder / f".{uuid.uuid4().hex}.part"
        with part.open("wb") as opened:
            opened.write(share.to_bytes())
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(self._file(share.rollout))
        self._held[share.rollout] = share
        self._marks.pop(share.rollout, None)
        if share.retired:
            self._marks[share.rollout] = self._now()
        self._prune()

    def _prune(self) -> None:
        """Forget the marks that nothing older can come after."""
        for rollout, since in list(self._marks.items()):
            if len(self._marks) <= MARKS_KEPT and self._now() - since < MARK_SECONDS:
                return
            self._file(rollout).unlink(missing_ok=True)
            del self._held[rollout], self._marks[rollout]

    def _file(self, rollout: str) -> Path:
        return self._folder / f"{hashlib.sha256(rollout.encode()).hexdigest()[:32]}.json"

    def revisions(self) -> Mapping[str, tuple[Revision, Share]]:
        """Return every revision that some share wants, by name, with a share that wants it."""
        return {revision.name: (revision, share) for share in self.active() for revision in share.revisions}

    def would_want(self, share: Share) -> set[str]:
        """Return the names that would be wanted if a share were accepted."""
        others = (held for held in self.active() if held.rollout != share.rollout)
        return {revision.name for wanted in (share, *others) for revision in wanted.revisions}
