"""Any body on n gloo processes: forked from the test's, so that torch is loaded once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from trimtab_trainer.training.distributed.nodes import Nodes
from trimtab_trainer.training.distributed.processes import Place
from trimtab_trainer.training.distributed.world import PATIENCE, World

from tests.ports import free_port

T = TypeVar("T")
WAIT_SECONDS = 240
"""A process that has not ended by then is a failure, whatever else the machine does."""


def on_ranks(size: int, folder: Path, body: Callable[[World], T], *, pods: int = 1, patience: int = 120) -> list[T]:
    """Return what the body gives in each of so many processes, by rank; one that raises fails the test.

    Those of several pods meet at an address, as there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if size == 1:
        return [body(World())]
    context = multiprocessing.get_context("fork")
    each, address = size // pods, f"127.0.0.1:{free_port()}" if pods > 1 else ""
    places = [
        Place.of(Nodes(rank // each, pods, each, address), rank % each, folder / "meeting") for rank in range(size)
    ]
    processes = [context.Process(target=_one, args=(place, folder, body, patience)) for place in places]
    for process in processes:
        process.start()
    end = time.monotonic() + WAIT_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    failed = {
        rank: (folder / f"{rank}.error").read_text() for rank in range(size) if (folder / f"{rank}.error").exists()
    }
    assert not failed, failed
    assert not hanging, f"hanging: {hanging}"
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def _one(place: Place, folder: Path, body: Callable[[World], T], patience: int) -> None:
    os.environ[PATIENCE] = str(patience)
    try:
        world = World(place)
        world.join()
        found = body(world)
        world.gather(None)  # nobody leaves while somebody still asks
        world.leave()
        (folder / f"{place.rank}.pickle").write_bytes(pickle.dumps(found))
    except BaseException:  # told to the test whose copy this process is
        (folder / f"{place.rank}.error").write_text(traceback.format_exc())
    finally:
        os._exit(0)  # nothing of the test's own process is to be undone here
