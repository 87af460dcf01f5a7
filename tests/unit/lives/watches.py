"""How a cache hears of the cluster: late, in parts, and of different resources in any order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.cluster.cache import Store, version_of

from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.rounds import Rounds


def deliver(operator: Rounds, api: FakeApi, random: Random, share: float, *, in_order: bool = False) -> Iterator[Key]:
    """Tell of a share of what is new and of what is gone, and yield whom that concerns.

    `in_order`: of each resource what happened first is told first, as a watch does; audits do not.
    """

    def heard() -> bool:
        return random.random() < share

    for store in operator.cache.stores:
        bodies = [body for place, body in api.objects.items() if place[0] == store.resource.plural]
        there = {body["metadata"].get("uid"): body for body in bodies if store.wants(body)}
        unheard = [body for uid, body in there.items() if version_of(body) > _known(store, uid)]
        news = sorted(unheard, key=version_of)
        for body in news:
            if heard():
                if (key := store.put(body)) is not None:
                    yield key
            elif in_order:
                break
        unwanted = {body["metadata"].get("uid"): version_of(body) for body in bodies if not store.wants(body)}
        for entry in store:
            if entry.uid in there or unwanted.get(entry.uid, entry.version + 1) <= entry.version:
                continue  # the second was read by its name since it left the selection
            if heard() and (key := store.remove(entry.uid, unwanted.get(entry.uid))) is not None:
                yield key


def _known(store: Store[object], uid: str) -> int:
    entry = store.of_uid(uid)
    return entry.version if entry is not None else -1
