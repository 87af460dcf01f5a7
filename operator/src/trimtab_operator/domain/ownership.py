"""Whose a child is, as its metadata says it."""

from __future__ import annotations

from trimtab_operator.api import API_VERSION
from trimtab_operator.api.definitions.customresource import ObjectMeta

from .plan import Body

ORPHAN = "orphan"
"""Finalizer of an object that is deleted with `--cascade=orphan`."""


def leaves_children(owner: ObjectMeta) -> bool:
    """Tell whether whoever deletes an object wants its children to stay."""
    return ORPHAN in owner.finalizers


def controlled_by(kind: str, owner: ObjectMeta) -> Body:
    """Return the owner reference of a child: the garbage collector takes it with its owner, whose deletion it does not
    hold up."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
