"""The gate that every status write passes: what has ended stays ended, whoever writes."""

from __future__ import annotations

from .follow import SUMMARY_CONDITIONS
from .kube import ADAPTERROLLOUTS, Body


def has_ended(body: Body) -> bool:
    """Tell whether an object says of itself that it has ended; an AdapterRollout never does."""
    if body["kind"] == ADAPTERROLLOUTS.kind:
        return False
    conditions = body.get("status", {}).get("conditions", ())
    summary = next((c for c in conditions if c.get("type") == SUMMARY_CONDITIONS[body["kind"]]), {})
    return summary.get("status", "Unknown") != "Unknown"


def admitted(stored: Body, status: Body) -> Body:
    """Return what may be written of a status.

    Of an object that has ended nothing changes any more but the generation that was looked at: its verdict was acted
    upon, its children may be gone, and another round from the start would do everything again.
    """
    if not has_ended(stored):
        return status
    kept: Body = stored.get("status", {})
    seen = max(status.get("observedGeneration") or 0, kept.get("observedGeneration") or 0)
    return {**kept, "observedGeneration": seen} if seen else kept
