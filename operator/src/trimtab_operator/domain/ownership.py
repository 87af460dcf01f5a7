"""Whose a child is, as its metadata says it."""

from __future__ import annotations

from trimtab_operator.api import API_VERSION
from trimtab_operator.api.definitions.customresource import ObjectMeta

from .plan import Body


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
