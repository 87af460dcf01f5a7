"""Revisions: an immutable name for every digest, and what the status remembers of them."""

from __future__ import annotations

from trimtab_agent.contract import Revision

from trimtab_operator.api.adapterrollout import (
    AdapterRollout,
    AdapterRolloutStatus,
    RevisionState,
    RevisionStatus,
)

WAS_SERVED = (RevisionState.SERVING, RevisionState.PREVIOUS, RevisionState.RETIRED)


def revision_of(rollout: AdapterRollout, uri: str, digest: str) -> Revision:
    """Return the revision of a digest: `<adapterName>@<first 8 digits>`, the same whoever asks."""
    return Revision(name=f"{rollout.spec.adapter_name}@{digest.removeprefix('sha256:')[:8]}", uri=uri, digest=digest)


def served(rollout: AdapterRollout, status: AdapterRolloutStatus) -> Revision | None:
    """Return the revision that the alias is to point at."""
    return revision_of(rollout, status.served.uri, status.served.digest) if status.served is not None else None


def previous(rollout: AdapterRollout, status: AdapterRolloutStatus) -> Revision | None:
    """Return the revision that was served before, which stays loaded for a rollback."""
    found = next((each for each in status.revisions if each.state is RevisionState.PREVIOUS), None)
    return revision_of(rollout, found.uri, found.digest) if found is not None else None


def was_served(status: AdapterRolloutStatus, digest: str) -> bool:
    """Tell whether an adapter was served here before: going back to it is no news to be proven by traffic."""
    return any(each.digest == digest and each.state in WAS_SERVED for each in status.revisions)


def promoted(
    rollout: AdapterRollout, status: AdapterRolloutStatus, revision: Revision, approved_by: list[str]
) -> list[RevisionStatus]:
    """Return the history after a revision became the served one, newest first; `approved_by`: with whose approval."""
    kept = [each for each in status.revisions if each.digest != revision.digest]
    after = {RevisionState.SERVING: RevisionState.PREVIOUS, RevisionState.PREVIOUS: RevisionState.RETIRED}
    moved = [each.model_copy(update={"state": after.get(each.state, each.state)}) for each in kept]
    now_served = _status(revision, RevisionState.SERVING).model_copy(update={"approved_by": approved_by})
    return trimmed(rollout, [now_served, *moved])


def begun(rollout: AdapterRollout, status: AdapterRolloutStatus, revision: Revision) -> list[RevisionStatus]:
    """Return the history with a revision on its way. One that was served before keeps that state until it is again."""
    kept = without_incoming(status.revisions)
    if any(each.digest == revision.digest for each in kept):
        return kept
    return trimmed(rollout, [_status(revision, RevisionState.INCOMING), *kept])


def without_incoming(revisions: list[RevisionStatus]) -> list[RevisionStatus]:
    """Return the history without what is on its way."""
    return [each for each in revisions if each.state is not RevisionState.INCOMING]


def trimmed(rollout: AdapterRollout, revisions: list[RevisionStatus]) -> list[RevisionStatus]:
    """Return the history with as many retired revisions as the spec keeps."""
    kept, retired = [], 0
    for each in revisions:
        retired += each.state is RevisionState.RETIRED
        if each.state is not RevisionState.RETIRED or retired <= rollout.spec.revision_history_limit:
            kept.append(each)
    return kept


def _status(revision: Revision, state: RevisionState) -> RevisionStatus:
    return RevisionStatus(name=revision.name, uri=revision.uri, digest=revision.digest, state=state)
