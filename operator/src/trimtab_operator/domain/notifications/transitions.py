"""What is told of an object: each condition that says something now, as a value with an id of its own.

The conditions are the record. The id of a transition follows from the object alone, so whoever reads the same object
later, after a death or as another leader, tells it under the same id, and receivers know it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_operator.api import PASSED, SUCCEEDED, WARNED
from trimtab_operator.api.status.conditions import MESSAGE_LENGTH
from trimtab_operator.api.status.rollout_reasons import RolloutReason
from trimtab_operator.api.tracking import TRACKED

from ..conditions import cut
from ..kind import AnyKind
from ..plan import Body

VERDICTS = (PASSED, WARNED, TRACKED)
"""Conditions beside the summary that are told, once they are not Unknown any more."""
CONDITIONS_READ = 8
WORD_LENGTH, NAME_LENGTH = 64, 253
MARK_LENGTH = 16
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
"""As we write times; two of them compare as texts."""


@dataclass(frozen=True, slots=True)
class Transition:
    """That a condition of an object says something else than before.

    Attributes:
        id: `<uid>-<type>-<mark>`; the same one for the same change, whoever tells it and whenever.
        mark: 16 hexadecimal digits of all that the id is made of.
        kind: of the object.
        namespace: of the object.
        name: of the object.
        uid: of the object.
        generation: of the object.
        version: resourceVersion of the object that it was read from.
        seen: when it was read, in RFC 3339.
        type: of the condition; so are status, reason, message and since, its lastTransitionTime.
        attempt: number of the newest attempt, of what runs in attempts.
        digest: of the adapter that it is about, where there is one.
        final: of an object that has ended, since when this is so and will not change; empty of one that goes on.
    """

    id: str
    mark: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    version: int
    seen: str
    type: str
    status: str
    reason: str
    message: str
    since: str
    attempt: int | None
    digest: str | None
    final: str = ""


def transitions_of(kind: AnyKind, body: Body, version: int, seen: str) -> tuple[Transition, ...]:
    """Return what an object says now, the summary first; `version` is its resourceVersion, `seen` the time.

    Whatever somebody wrote into a status, this does not raise, and what it returns is bounded.
    """
    metadata, status = body["metadata"], _mapping(body.get("status"))
    told = list(_told(kind, status))
    ended = _ended(kind, told)
    made = []
    for each in told:
        condition, state, reason, since = (
            _text(each.get(key), WORD_LENGTH) for key in ("type", "status", "reason", "lastTransitionTime")
        )
        if not reason:
            continue  # nobody of ours wrote that
        attempt, digest = _attempt(status), _digest(status, reason)
        # The same word comes again within one lastTransitionTime: with another attempt, or of another adapter.
        parts = (metadata["uid"], condition, state, reason, since, str(attempt), str(digest))
        mark = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:MARK_LENGTH]
        generation = metadata.get("generation", 1)
        made.append(
            Transition(
                id=f"{metadata['uid']}-{condition}-{mark}",
                mark=mark,
                kind=kind.name,
                namespace=metadata["namespace"],
                name=metadata["name"],
                uid=metadata["uid"],
                generation=generation if isinstance(generation, int) else 1,
                version=version,
                seen=seen,
                type=condition,
                status=state,
                reason=reason,
                message=_text(each.get("message"), MESSAGE_LENGTH),
                since=since,
                attempt=attempt,
                digest=digest,
                final=max(ended, since) if ended and TIME.fullmatch(since) else "",
            )
        )
    return tuple(made)


def _told(kind: AnyKind, status: Body) -> Iterator[Body]:
    """Yield the conditions that are told, the summary first."""
    conditions = [each for each in _list(status.get("conditions"))[:CONDITIONS_READ] if isinstance(each, dict)]
    yield from (each for each in conditions if each.get("type") == kind.summary)
    yield from (each for each in conditions if each.get("type") in VERDICTS and each.get("status") != "Unknown")


def _ended(kind: AnyKind, told: Sequence[Body]) -> str:
    """Return when an object ended, empty of one that goes on or of which nobody can tell; the summary is first."""
    if kind.summary != SUCCEEDED or not told or told[0].get("type") != SUCCEEDED:
        return ""
    since = _text(told[0].get("lastTransitionTime"), WORD_LENGTH)
    return since if told[0].get("status") in ("True", "False") and TIME.fullmatch(since) else ""


def _attempt(status: Body) -> int | None:
    attempts = _list(status.get("attempts"))
    number = _mapping(attempts[-1]).get("number") if attempts else None
    return number if isinstance(number, int) else None


def _digest(status: Body, reason: str) -> str | None:
    """Return the digest of the adapter that a state is about: taken back, on its way, waiting, served, or made."""
    rejected = _list(status.get("rejected"))
    back = [rejected[-1]] if reason in (RolloutReason.ROLLED_BACK, RolloutReason.REJECTED) and rejected else []
    places = [*back, *(status.get(field) for field in ("step", "approval", "served", "artifact"))]
    found = (_mapping(place).get("digest") for place in places)
    return next((_text(digest, 80) for digest in found if isinstance(digest, str)), None)


def _mapping(value: Any) -> Body:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any, length: int) -> str:
    return cut(value, length) if isinstance(value, str) else ""
