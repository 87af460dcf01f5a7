"""No connection to another place while files of a task are read or asked. No torch.

The libraries that read them try hubs first where they can, and data can name places. What tries it all the same is told
by its name.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ...contract import Reason
from ...errors import SettingsInvalid


class NetworkRefused(OSError):
    """Something tried to reach another place while a task was run."""


@contextmanager
def offline(name: str) -> Iterator[None]:
    """Refuse every connection while the block runs, and name the first that was tried.

    Raises:
        SettingsInvalid: HARNESS_TASK_REFUSED, the task of this name tried to reach the network.
    """
    tried: list[str] = []

    def refuse(*arguments: Any, **more: Any) -> NoReturn:
        place = next((str(each) for each in arguments if not isinstance(each, socket.socket)), "another place")
        tried.append(place)
        raise NetworkRefused(f"{place} is not reached while a task is run")

    connecting = dict.fromkeys(("connect", "connect_ex", "sendto", "sendmsg"), refuse)
    looking_up = dict.fromkeys(("getaddrinfo", "gethostbyname", "create_connection"), refuse)
    with replaced(socket.socket, **connecting), replaced(socket, **looking_up):
        try:
            yield
        except Exception as error:  # whatever a library made of a refused connection
            if tried:
                raise _reached_out(name, tried) from error
            raise
    if tried:
        raise _reached_out(name, tried)


def _reached_out(name: str, tried: list[str]) -> SettingsInvalid:
    return SettingsInvalid(
        f"harness task {name} tried to reach {tried[0]}, but tasks are run without a network; put what it needs into "
        "the folder",
        Reason.HARNESS_TASK_REFUSED,
    )


@contextmanager
def local_datasets() -> Iterator[None]:
    """Keep the datasets library from counting downloads, and its progress bars out of the log."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        # It tells a hub of every file it opens, local ones too.
        with replaced(datasets.config, HF_HUB_OFFLINE=True):
            yield
    finally:
        if not bars:
            datasets.enable_progress_bars()


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Give a module or class other attributes while the block runs."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)  # it was inherited
