"""Carry out a plan: actions in order, then one status write, then events.

Whatever is repeated meets its own work: names of children are deterministic, an object that is there already counts as
created only if its controller has the same uid, deletes and status writes have preconditions. What the API server
answers goes into the cache at once, so the next decision sees it whether or not the watch has brought it yet.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from ...api.definitions.schema import Schema, structural
from ...domain.kind import AnyKind
from ...domain.plan import Action, Adopt, Create, Delete, Note, Suspend
from ...domain.views import OWNER_LABELS, controller_of
from .. import metrics
from ..cluster.cache import Cache, Store, version_of
from ..kube import (
    BY_KIND,
    JOBS,
    JSON_PATCH,
    MERGE_PATCH,
    OWN,
    AlreadyExists,
    ApiError,
    Body,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    Resource,
    Unreachable,
)
from ..logs import keys
from .children import made_otherwise, note_of_nobodys, serves_as_well, was_made_here
from .gate import admitted, changes
from .workqueue import Retry

log = logging.getLogger(__name__)


class Writer(Protocol):
    """The part of the client that acting needs."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...
    async def create(self, resource: Resource, namespace: str, body: Body) -> Body: ...
    async def patch(self, resource: Resource, namespace: str, name: str, content_type: str, patch: object) -> Body: ...
    async def patch_status(self, resource: Resource, metadata: Body, changes: Body) -> Body: ...
    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> Body: ...


class NameIsTaken(Exception):
    """A child's name is held by an object of another owner, or of none (`nobodys`)."""

    def __init__(self, resource: Resource, name: str, *, nobodys: bool = False) -> None:
        super().__init__(f"{resource.kind} {name}")
        self.resource = resource
        self.name = name
        self.nobodys = nobodys


class Actor:
    """Writes to the cluster, and to the cache what came of it."""

    def __init__(self, kube: Writer, cache: Cache, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._kube = kube
        self._now = now
        self._jobs = cache.jobs
        self._stores: dict[str, Store[Any]] = {"Job": cache.jobs, **cache.owners}
        self._own = frozenset(cache.owners)
        self._follow = cache.follow

    async def act(self, action: Action | Adopt, about: dict[str, Any]) -> Note | None:
        """Carry out one action; return what a person should know of what came of it.

        Raises:
            NameIsTaken: something else has the name of what is to be created.
            Retry: the cluster is no longer what the action was planned for.
            Denied: a policy made of it what is of no use.
        """
        match action:
            case Create(body):
                return await self._create(body, about)
            case Delete():
                await self._delete(action, about)
            case Suspend():
                await self._suspend(action, about)
            case Adopt(body):
                await self._adopt(body, about)
        return None

    async def _create(self, body: Body, about: dict[str, Any]) -> Note | None:
        resource, metadata = BY_KIND[body["kind"]], body["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        begun = self._now()
        try:
            created = await self._kube.create(resource, namespace, body)
        except AlreadyExists:
            created = await self._what_is_there(resource, body)
        except Unreachable:
            made = await self._made_unheard(resource, body, begun)
            if made is None:
                raise
            created = made
            await self._refuse_another(resource, created, body, about)
        else:
            log.info("created", extra=keys(**about, child=f"{body['kind']}/{name}"))
            await self._refuse_another(resource, created, body, about)
        self._learn_of_child(resource, created)
        return note_of_nobodys(resource, created)

    async def _made_unheard(self, resource: Resource, body: Body, begun: datetime) -> Body | None:
        """Return what a creation without an answer has made, None where it is not known to have made anything."""
        try:
            found = await self._kube.get(resource, body["metadata"]["namespace"], body["metadata"]["name"])
        except (ApiError, Unreachable):
            return None
        return found if was_made_here(found, body, begun) else None

    async def _what_is_there(self, resource: Resource, body: Body) -> Body:
        """Return the object that has the name of what is to be created, if it can be used in its place."""
        metadata = body["metadata"]
        try:
            found = await self._kube.get(resource, metadata["namespace"], metadata["name"])
        except NotFound:
            raise Retry(0.5, "it was there and is gone") from None
        ours = self.is_child(resource, found, metadata["ownerReferences"][0]["uid"])
        runs = resource.kind in self._stores  # whose that is matters
        if not ours and (runs or not serves_as_well(found, body)):
            raise NameIsTaken(resource, metadata["name"], nobodys=controller_of(found) is None) from None
        if "deletionTimestamp" in found["metadata"]:
            self._learn_of_child(resource, found)
            raise Retry(1, "its name is free when it is gone") from None
        return found

    async def _refuse_another(self, resource: Resource, created: Body, body: Body, about: dict[str, Any]) -> None:
        """Delete what was created and is not what was asked for, because a policy or a webhook made another of it.

        It would work for nobody, or as what it is not, and another be created when it has ended, for ever.

        Raises:
            Denied: it was so.
        """
        if resource.kind not in self._stores or not (what := self._overruled(resource, created, body)):
            return
        metadata = created["metadata"]
        await self._delete(Delete(resource.kind, metadata["namespace"], metadata["name"], metadata["uid"]), about)
        raise Denied(200, "Overruled", f"a policy or a webhook {what}; it was deleted again")

    def _overruled(self, resource: Resource, created: Body, asked: Body) -> str:
        """Return what was made of a child otherwise than asked for, "" where it can be used."""
        owners = asked["metadata"].get("ownerReferences", ())
        if not all(self.is_child(resource, created, owner["uid"]) for owner in owners):
            return f"takes {asked['metadata']['name']} its owner, or what tells that it is one of ours"
        return made_otherwise(resource, created, asked)

    def is_child(self, resource: Resource, body: Body, owner_uid: str) -> bool:
        """Tell whether an object is one that we made: its controller says so, and it can be read as what we make.

        Its labels may be anybody's. What is no attempt or no trial by them would be created again in every round
        otherwise.
        """
        controller = controller_of(body)
        if controller is None or controller[2] != owner_uid:
            return False
        if resource.kind in self._own:
            labels = body["metadata"].get("labels") or {}
            return labels.get(OWNER_LABELS.get(controller[0], "")) == controller[1]
        return resource is not JOBS or self._jobs.reads(body)

    async def _delete(self, action: Delete, about: dict[str, Any]) -> None:
        resource = BY_KIND[action.kind]
        store = self._stores[action.kind]
        try:
            answer = await self._kube.delete(resource, action.namespace, action.name, action.uid)
        except NotFound:
            store.remove(action.uid)
            return
        except Conflict:  # another object has the name: the one to delete is gone
            store.remove(action.uid)
            return
        log.info("deleted", extra=keys(**about, child=f"{action.kind}/{action.name}"))
        if answer.get("kind") == action.kind:  # a finalizer holds it
            self._learn_of_child(resource, answer)
        else:
            store.remove(action.uid)

    async def _suspend(self, action: Suspend, about: dict[str, Any]) -> None:
        resource = BY_KIND[action.kind]
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": action.uid},
            {"op": "add", "path": "/spec/suspend", "value": action.suspend},
        ]
        try:
            changed = await self._kube.patch(resource, action.namespace, action.name, JSON_PATCH, patch)
        except NotFound:
            self._stores[action.kind].remove(action.uid)
            raise Retry(0, f"the {action.kind} to suspend is gone") from None
        except Invalid:
            await self._refresh(resource, action.namespace, action.name, action.uid)
            if self._stores[action.kind].of_uid(action.uid) is not None:
                raise  # it is that very one: a policy refuses, which says 422 as a test of the patch does
            raise Retry(0.5, f"the {action.kind} to suspend is another one now") from None
        self._learn_of_child(resource, changed)
        if bool(changed["spec"].get("suspend")) is not action.suspend:  # or it would be written again at once, for ever
            as_it_was = str(not action.suspend).lower()
            raise Denied(200, "Overruled", f"a policy or a webhook keeps spec.suspend of {action.name} {as_it_was}")
        log.info(
            "suspended" if action.suspend else "resumed", extra=keys(**about, child=f"{action.kind}/{action.name}")
        )

    async def _adopt(self, body: Body, about: dict[str, Any]) -> None:
        """What another controller has is left to that one: an object has one controller."""
        resource, wanted = BY_KIND[body["kind"]], body["metadata"]
        namespace, name = wanted["namespace"], wanted["name"]
        found = (await self._kube.get(resource, namespace, name))["metadata"]
        controller = controller_of({"metadata": found})
        if found["uid"] != wanted["uid"] or "deletionTimestamp" in found:
            return
        if controller is not None and controller[0] not in OWNER_LABELS:
            raise NameIsTaken(resource, name)
        owners = [owner for owner in found.get("ownerReferences") or () if not owner.get("controller")]
        metadata = {
            "resourceVersion": found["resourceVersion"],
            "labels": wanted["labels"],
            "ownerReferences": [*owners, *wanted["ownerReferences"]],
        }
        changed = await self._kube.patch(resource, namespace, name, MERGE_PATCH, {"metadata": metadata})
        log.warning("adopted again", extra=keys(**about, child=f"{resource.kind}/{name}"))
        self._learn_of_child(resource, changed)

    async def write_status(self, kind: AnyKind, stored: Body, status: Body) -> bool:
        """Write the status if it differs from the stored one; tell whether that changed anything.

        resourceVersion is a precondition: a status that was decided on from an older object, or by a process that is
        not the leader any more, is refused. So what the gate sees is what would be overwritten.
        """
        resource, metadata, raw = OWN[kind.name], stored["metadata"], stored.get("status", {})
        wanted = admitted(kind, stored, status)
        if wanted == raw:
            return False
        before, after = _typed(kind, raw), _typed(kind, wanted)
        if before is not None and before == after:
            return False
        known = before.to_json() if before is not None else raw
        patch = changes(raw, known, wanted, _schema_of(kind.crd.status))
        if not patch:
            return False
        try:
            written = await self._kube.patch_status(resource, metadata, patch)
        except (Conflict, NotFound):
            await self._refresh(resource, metadata["namespace"], metadata["name"], metadata["uid"])
            raise Retry(0, "it changed while it was decided on") from None
        self._learn(resource, written)
        if version_of(written) == version_of(stored):
            return False  # all of it was left out: the served definition is an earlier one
        if before is not None and after is not None:
            metrics.count(kind.measures(before, after, self._now()))
        return True

    async def _refresh(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        store = self._stores[resource.kind]
        found: Body | None = None
        with contextlib.suppress(NotFound):
            found = await self._kube.get(resource, namespace, name)
        if found is None or found["metadata"]["uid"] != uid:
            store.remove(uid)
        if found is not None:
            store.put(found)

    def _learn(self, resource: Resource, body: Body) -> None:
        store = self._stores.get(resource.kind)
        if store is not None:
            store.put(body)

    def _learn_of_child(self, resource: Resource, body: Body) -> None:
        """Take in what an action made of a child; one that is decided on itself has to be looked at.

        Its watch brings nothing new then, so nobody else would.
        """
        store = self._stores.get(resource.kind)
        key = store.put(body) if store is not None else None
        if key is not None and resource.kind in self._own:
            self._follow(key)


def _typed(kind: AnyKind, status: Body) -> Any:
    """Return the typed form of a status, None of one that a later version wrote and this one does not understand."""
    try:
        return kind.crd.status.model_validate(status, extra="ignore")
    except ValidationError:
        return None


@cache
def _schema_of(status: type[BaseModel]) -> Schema:
    """Return what a status is made of."""
    return structural(status, defaults=False)
