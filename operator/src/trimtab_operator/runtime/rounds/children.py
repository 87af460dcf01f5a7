"""What the API server answers about a child, beside what was asked for: policies and webhooks write too."""

from __future__ import annotations

from datetime import datetime

from ...domain.plan import Note
from ...domain.views import INPUTS_LABEL, controller_of, parse_time, task_of
from ..kube import JOBS, USER_AGENT, Body, Resource


def was_made_here(found: Body, asked: Body, since: datetime) -> bool:
    """Tell whether an object may be what an operator was asked to create since then.

    Times of the API server have whole seconds and a clock of its own: what is not known to be ours is left alone. So is
    what another controller has: two owners' children may have one name, and an operator has made both.
    """
    metadata, controller = found["metadata"], controller_of(found)
    owners = {owner["uid"] for owner in asked["metadata"].get("ownerReferences") or ()}
    if controller is not None and controller[2] not in owners:
        return False
    made = parse_time(metadata.get("creationTimestamp"))
    by = {each.get("manager") for each in metadata.get("managedFields") or ()}
    return made is not None and made >= since.replace(microsecond=0) and USER_AGENT in by


def made_otherwise(resource: Resource, created: Body, asked: Body) -> str:
    """Return what was made of a child otherwise than asked for so that it is of no use, "" where it is of use."""
    name = asked["metadata"]["name"]
    if created["metadata"]["name"] != name:
        return f"gives {name} another name"
    if resource is not JOBS:
        return ""
    wanted, made = task_of(asked), task_of(created)
    if wanted is None or made is None or made[:2] != wanted[:2]:
        return f"writes over what {name} is told to do"
    if made[2] not in ("", wanted[2]):
        return f"writes over the label {INPUTS_LABEL} of {name}"
    return ""


def serves_as_well(found: Body, asked: Body) -> bool:
    """Tell whether what has the name of a child, and no owner, can be used in its place: it says the very same."""
    return controller_of(found) is None and _says(found, {**asked, "metadata": {}})


def note_of_nobodys(resource: Resource, made: Body) -> Note | None:
    """Return what to say of a child that has no owner, None of any other: nobody collects it.

    The operator has no right to change or delete such objects of a namespace: it would have it to all of them.
    """
    if controller_of(made) is not None:
        return None
    name, what = made["metadata"]["name"], f"{resource.kind} {made['metadata']['name']}"
    words = (
        f"{what} has no owner, because a policy or a webhook takes owners away: it stays when this object is deleted. "
        f"Let owners be there, and delete it then: kubectl delete {resource.plural} {name}"
    )
    return Note("Warning", "OwnerTaken", words)


def _says(found: object, asked: object) -> bool:
    """Tell whether something says all that was asked for, whatever else it says: the API server adds defaults."""
    if isinstance(asked, dict) and isinstance(found, dict):
        return all(_says(found.get(key), value) for key, value in asked.items())
    if isinstance(asked, list) and isinstance(found, list):
        return len(found) == len(asked) and all(map(_says, found, asked))
    return found == asked
