"""Where the processes of several pods find each other: a store of the leader's, at the address that all were told.

Pods start when their nodes have room and their image is there, so the first wait for the last. Who comes says who it
is, before anything is summed: a pod that was told of other pods, of another run or of another attempt is refused.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch import distributed as dist

from ...errors import Interrupted, SettingsInvalid
from ...interruption import Interruption
from .processes import Place

ASKED_EVERY = 0.5
"""Seconds between two tries to reach a leader that is not there yet."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def meet(place: Place, about: str, patience: timedelta, stop: Interruption) -> Any:
    """Return the store that all processes share, once all are there.

    Args:
        place: of this process, with the address where they meet.
        about: what this one is about to do; all have to say the same.
        patience: for the last of them.
        stop: ends the waiting.

    Raises:
        Interrupted: told to stop; or some do not come, which is nobody's fault, and what is held goes to others.
        SettingsInvalid: some are not what the others are.
    """
    assert place.address is not None
    host, port = place.address
    end = time.monotonic() + patience.total_seconds()
    if not place.leads:
        _wait(lambda: _answers(host, port), end, stop, lambda: f"nobody answers at {host}:{port}, where rank 0 should")
    own = "localhost" if place.leads else host  # its name may not be known yet
    store = dist.TCPStore(  # type: ignore[attr-defined]  # of C++, which torch has no types of
        own, port, None, place.leads, timeout=patience, wait_for_workers=False
    )
    said = json.dumps([place.size, place.local_size, about])
    if store.add(f"came/{place.rank}", 1) > 1:
        raise SettingsInvalid(f"two processes say that they are rank {place.rank} of {place.size}; number the pods")
    store.set(f"says/{place.rank}", said)
    missing = set(range(place.size))

    def all_are_there() -> bool:
        missing.difference_update([rank for rank in missing if store.check([f"says/{rank}"])])
        return not missing

    _wait(all_are_there, end, stop, lambda: _absent(sorted({rank // place.local_size for rank in missing}), place))
    others = {rank: store.get(f"says/{rank}").decode() for rank in range(place.size)}
    unlike = next((rank for rank, says in others.items() if says != said), None)
    if unlike is not None:
        raise SettingsInvalid(
            f"rank {place.rank} was told {said} (processes of all pods, of each, run) and rank {unlike} "
            f"{others[unlike]}; the pods of an attempt have to be told the same"
        )
    return store


def is_here(place: Place) -> bool:
    """Tell whether all processes are on this machine, so that no other interface is needed."""
    return place.address is None or place.address[0] in LOOPBACK


def _wait(true: Callable[[], bool], end: float, stop: Interruption, otherwise: Callable[[], str]) -> None:
    while not true():
        stop.check()
        if time.monotonic() > end:
            raise Interrupted(
                f"the other pods did not come: {otherwise()}; let a queue admit all pods together, or free the nodes"
            )
        time.sleep(ASKED_EVERY)


def _answers(host: str, port: int) -> bool:
    """Tell whether a name can be resolved and somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def _absent(nodes: list[int], place: Place) -> str:
    count = place.size // place.local_size
    return f"of {count} pods {count - len(nodes)} are here, and {', '.join(map(str, nodes))} not"
