"""Where each alias points: a pure decision over what shares want and what is proven."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..contract import Share
from ..engine.table import AliasEntry

NOT_YET = "its revision is being brought in"


@dataclass(frozen=True)
class Known:
    """Which revisions are proven, which the engine lists (None: it does not answer), and why others do not serve."""

    proven: Collection[str]
    listed: Collection[str] | None
    failures: Mapping[str, str]


def decide(
    shares: Collection[Share],
    table: Mapping[str, AliasEntry],
    known: Known,
    *,
    waiting_seconds: Mapping[str, float],
    restore_seconds: float,
) -> dict[str, AliasEntry]:
    """Return the entries to write. An alias moves to proven revisions only; until then it stays where it is.

    `waiting_seconds` says for how long an alias could not answer; beyond `restore_seconds` it no longer holds the pod
    back, and answers 503 with the reason.
    """
    entries = {}
    for share in shares:
        for alias, weights in share.aliases.items():
            entry = _entry(weights, table.get(alias), known)
            reason = cannot_answer(entry, known)
            if reason is not None and waiting_seconds.get(alias, 0) >= restore_seconds:
                entry = AliasEntry(unavailable=f"{reason}; given up after {restore_seconds:g} s")
            entries[alias] = entry
    return entries


def _entry(weights: Mapping[str, int], now: AliasEntry | None, known: Known) -> AliasEntry:
    targets = {name for name, weight in weights.items() if weight > 0}
    if targets <= set(known.proven):
        return AliasEntry(to=dict(weights))
    if now is not None and now.to:
        # Either these same revisions, proven by an earlier process of this agent, or what was served before them.
        return now
    reasons = [f"{name}: {known.failures[name]}" for name in sorted(targets) if name in known.failures]
    return AliasEntry(pending="; ".join(reasons) or NOT_YET)


def cannot_answer(entry: AliasEntry, known: Known) -> str | None:
    """Return why an alias cannot answer now, or None. An engine that does not answer at all is no reason."""
    if not entry.to:
        return entry.pending or NOT_YET
    if known.listed is None:
        return None
    missing = sorted(entry.targets - set(known.listed))
    if not missing:
        return None
    return "; ".join(f"{name}: {known.failures.get(name, 'not loaded')}" for name in missing)
