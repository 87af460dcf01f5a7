"""The gate: what has ended stays ended whoever writes, and what is not understood is touched by nobody."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from ...api import NOT_UNDERSTOOD
from ...api.definitions.schema import Schema
from ...api.status.conditions import MESSAGE_LENGTH
from ...domain.kind import AnyKind
from ...domain.views import format_time
from ..kube import Body


def summary_of(kind: AnyKind, body: Body) -> Body:
    """Return the condition whose reason is the state of an object, as it is stored; empty where there is none."""
    conditions = body.get("status", {}).get("conditions") or ()
    found: Body = next((c for c in conditions if c.get("type") == kind.summary), {})
    return found


def has_ended(kind: AnyKind, body: Body) -> bool:
    """Tell whether an object says of itself that it has ended."""
    return kind.ends and summary_of(kind, body).get("status", "Unknown") != "Unknown"


def admitted(kind: AnyKind, stored: Body, status: Body) -> Body:
    """Return what may be written of a status.

    Of an object that has ended nothing changes any more but the generation that was looked at, and conditions of the
    types that its kind says come later: its verdict was acted upon, its children may be gone, and another round from
    the start would do everything again.
    """
    if not has_ended(kind, stored):
        return status
    kept: Body = stored.get("status", {})
    seen = max(status.get("observedGeneration") or 0, kept.get("observedGeneration") or 0)
    made = {**kept, "observedGeneration": seen} if seen else kept
    told = {each["type"]: each for each in status.get("conditions") or () if each.get("type") in kind.later}
    if not told:
        return made
    there = kept.get("conditions") or []
    known = {each.get("type") for each in there}
    conditions = [told.get(each.get("type"), each) for each in there]
    return {**made, "conditions": [*conditions, *(each for name, each in told.items() if name not in known)]}


def not_understood(kind: AnyKind, body: Body, error: ValidationError, now: datetime) -> Body:
    """Return the status of an object that holds a value which this operator does not know.

    Most likely a later version wrote it, or will come soon and know it; so this is no end, everything else of the
    status stays as it is, and what runs goes on.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = (
        f"this version of the operator does not understand {field}: {first['msg']}; nothing of it is touched. It goes "
        "on when an operator runs that does, or when that field is mended"
    )
    status: Body = body.get("status", {})
    known = status.get("conditions") or []
    before: Body = next((c for c in known if c.get("type") == kind.summary), {})
    unmoved = before.get("status") == "Unknown" and before.get("lastTransitionTime")
    said = {
        "type": kind.summary,
        "status": "Unknown",
        "reason": NOT_UNDERSTOOD,
        "message": message[:MESSAGE_LENGTH],
        "observedGeneration": body["metadata"].get("generation", 1),
        "lastTransitionTime": unmoved or format_time(now),
    }
    return {**status, "conditions": [said, *(c for c in known if c.get("type") != kind.summary)]}


def changes(stored: Body, known: Body, wanted: Body, schema: Schema) -> Body:
    """Return the merge patch (RFC 7386) that makes a wanted status of the stored one.

    `known` is the stored one as this version understands it, `schema` what it is made of. What `known` lacks beside
    `stored` is another version's and stays: in objects, and in those items of lists that are the same ones by the keys
    that their list is a map by, whether or not what is known of them changes.
    """
    patch: Body = {}
    for key in known.keys() | wanted.keys():
        before, after, part = stored.get(key), wanted.get(key), schema.get("properties", {}).get(key, {})
        if after is None:
            patch |= {key: None} if before is not None else {}
        elif isinstance(before, dict) and isinstance(after, dict):
            inner = changes(before, known.get(key) or {}, after, part)
            patch |= {key: inner} if inner else {}
        elif isinstance(before, list) and isinstance(after, list):
            kept = _items(before, known.get(key) or [], after, part)
            patch |= {key: kept} if kept != before else {}
        elif before != after:
            patch[key] = after
    return patch


def _items(stored: list[Any], known: list[Any], wanted: list[Any], schema: Schema) -> list[Any]:
    """Return the wanted items, with what else is stored of those that were there."""
    keys: list[str] = schema.get("x-kubernetes-list-map-keys", [])
    if not keys or len(stored) != len(known):
        return wanted

    def name_of(item: Body) -> tuple[Any, ...]:
        return tuple(item.get(key) for key in keys)

    there = {name_of(understood): (item, understood) for item, understood in zip(stored, known, strict=True)}
    made = []
    for item in wanted:
        before, understood = there.get(name_of(item), ({}, {}))
        made.append(merged(before, changes(before, understood, item, schema["items"])))
    return made


def merged(body: Body, patch: Body) -> Body:
    """Return what a merge patch (RFC 7386) makes of an object."""
    made = {key: value for key, value in body.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict):
            made[key] = merged(made.get(key) or {}, value)
        elif value is not None:
            made[key] = value
    return made
