"""What one endpoint has still to hear, and what it has heard. No I/O.

What has to outlive a death is small: for each kind a resourceVersion, `since`, up to which all is told that the objects
said then, and the marks of what was told of objects that are newer, or that go on and so will be. An object that has
ended is newer again when somebody labels it: a time, `until`, says that all that had ended before is told. Whoever goes
on compares the first list with that. What is not in there is told again rather than not at all.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...domain.notifications import Endpoint, Transition
from ...domain.notifications.transitions import MARK_LENGTH, TIME

PENDING_MAXIMUM = 4096
"""Transitions of an endpoint that wait in memory. What comes beyond is looked for in the cache once there is room."""
TOLD_WRITTEN = 2000
"""Marks that are written down: 40 kB. Of more than that in a minute, the first may be told twice after a death."""


@dataclass(frozen=True)
class Record:
    """What is written down of an endpoint; versions before `until` was there know nothing of it."""

    since: Mapping[str, int]
    told: tuple[str, ...] = ()
    until: str = ""

    def to_text(self) -> str:
        value = {"since": dict(sorted(self.since.items())), "told": list(self.told), "until": self.until}
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def read(cls, text: object) -> Record | None:
        """Return what was written down, None where it is nothing that this version wrote."""
        try:
            value: Any = json.loads(text) if isinstance(text, str) else None  # whatever it is, it is an error below
            since, told, until = value["since"], value["told"], value.get("until")
            versions = {str(kind): int(version) for kind, version in since.items()}
            marks = tuple(mark for mark in told if isinstance(mark, str) and len(mark) == MARK_LENGTH)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            return None
        is_time = isinstance(until, str) and TIME.fullmatch(until)
        return cls(versions, marks[-TOLD_WRITTEN:], until if is_time else "")


@dataclass(frozen=True)
class Present:
    """An object as it is now: its resourceVersion, whether it has ended, and the marks of what it says."""

    version: int
    over: bool
    marks: tuple[str, ...]


@dataclass
class Waiting:
    """A transition that waits, and since when on the monotonic clock."""

    transition: Transition
    added: float
    refusals: int = 0


@dataclass
class Outbox:
    """Of one endpoint. `record` is what the leader before wrote down, None of an endpoint that is new.

    A new one is told of nothing that was so before.
    """

    endpoint: Endpoint
    record: Record | None = None
    clock: Callable[[], float] = time.monotonic
    since: dict[str, int] = field(default_factory=dict)
    told: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """By mark: kind and uid of the object, and since when that is final."""
    overflowed: bool = False
    _pending: OrderedDict[str, Waiting] = field(default_factory=OrderedDict)
    _known: set[str] = field(default_factory=set)
    _left_out: dict[str, int] = field(default_factory=dict)
    """By kind: the lowest version of what found no room."""
    _left_out_finals: set[str] = field(default_factory=set)
    _until: str = ""

    def __post_init__(self) -> None:
        if self.record is not None:
            self.since = dict(self.record.since)
            self._known = set(self.record.told)
            self._until = self.record.until

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def next(self) -> Waiting | None:
        """The one that waits longest."""
        return next(iter(self._pending.values()), None)

    def waited(self) -> float:
        """Return the seconds that the one which waits longest has waited, 0 where none does."""
        first = self.next
        return self.clock() - first.added if first is not None else 0.0

    def found(self, transition: Transition) -> None:
        """Take in what an object said when it was first looked at."""
        if not self.endpoint.wants(transition):
            return
        since, mark = self.since.get(transition.kind), transition.mark
        is_old = bool(transition.final) and transition.final < self._until
        if since is None or transition.version <= since or mark in self._known or mark in self.told or is_old:
            self.told[mark] = (transition.kind, transition.uid, transition.final)
        else:
            self.add(transition)

    def add(self, transition: Transition) -> None:
        """Take in a change."""
        if not self.endpoint.wants(transition) or transition.mark in self._pending:
            return
        if len(self._pending) >= PENDING_MAXIMUM:
            self.overflowed = True
            lowest = self._left_out.get(transition.kind, transition.version)
            self._left_out[transition.kind] = min(lowest, transition.version)
            oldest = {*self._left_out_finals, *filter(None, (transition.final,))}
            self._left_out_finals = {min(oldest)} if oldest else set()
            return
        self._pending[transition.mark] = Waiting(transition, self.clock())

    def began(self, moments: Mapping[str, int]) -> bool:
        """Know all that was there, by kind at which resourceVersion; tell whether that is to be written down.

        A record from above it is that of a cluster before a backup was restored: it says nothing of this one.
        """
        self._known.clear()
        self._until = ""
        fresh = {kind: moment for kind, moment in moments.items() if self.since.get(kind, moment + 1) > moment}
        self.since |= fresh
        return bool(fresh)

    def done(self, transition: Transition) -> None:
        """Note that one need not be told any more: it was, or will never be taken."""
        self._pending.pop(transition.mark, None)
        self.told.pop(transition.mark, None)
        self.told[transition.mark] = (transition.kind, transition.uid, transition.final)

    def looked_again(self) -> None:
        """Know that what all objects say now was `found` again since `overflowed` was taken back."""
        if not self.overflowed:
            self._left_out.clear()
            self._left_out_finals.clear()

    def advance(
        self, seen: Mapping[str, int], present: Callable[[str, str], Present | None], before: str = ""
    ) -> Record:
        """Move `since` on, forget the marks that nobody will ask for, and return what to write down.

        Args:
            seen: by kind, a resourceVersion up to which certainly every change was taken in.
            present: an object as it is now, given kind and uid; None where it is gone.
            before: a time before which certainly all ended that has, as far as it was taken in.
        """
        finals = (waiting.transition.final for waiting in self._pending.values())
        until = min(filter(None, (before, *self._left_out_finals, *finals)), default="") if before else ""
        limits = dict(self._left_out)
        for waiting in self._pending.values():
            one = waiting.transition
            limits[one.kind] = min(limits.get(one.kind, one.version), one.version)
        for kind, version in seen.items():
            reached = min(version, limits[kind] - 1) if kind in limits else version
            self.since[kind] = max(self.since.get(kind, 0), reached)
        newer: dict[str, tuple[str, str, str]] = {}
        lasting: dict[str, tuple[str, str, str]] = {}
        ended: dict[str, tuple[str, str, str]] = {}
        for mark, (kind, uid, final) in self.told.items():
            found = present(kind, uid)
            if found is not None and mark in found.marks:
                if found.version > self.since.get(kind, 0):
                    newer[mark] = (kind, uid, final)
                elif not found.over:  # it may change while it says the same
                    lasting[mark] = (kind, uid, final)
                elif final and final >= until:  # it may be changed, and `until` does not cover it yet
                    ended[mark] = (kind, uid, final)
        others, room = [*ended.items(), *lasting.items()], max(0, TOLD_WRITTEN - len(newer))
        self.told = {**dict(others[max(0, len(others) - room) :]), **newer}
        return Record(dict(self.since), tuple(self.told)[-TOLD_WRITTEN:], until)
