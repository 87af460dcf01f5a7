"""Questions that are under way beside each other, with the answers in their order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from .interruption import Interruption

T = TypeVar("T")

LOOK_SECONDS = 0.5
"""How often who waits looks whether to go on waiting."""


def ask_all(
    count: int,
    ask: Callable[[int, threading.Event], T],
    *,
    at_once: int,
    name: str,
    stop: Interruption,
    silent: Callable[[float], object] = lambda seconds: None,
) -> list[T]:
    """Return the answers to so many questions.

    Args:
        count: of questions.
        ask: asks one, by its number from 0, in a thread; the event is set once nobody waits for it any more.
        at_once: most that are under way at the same time.
        name: what the threads are called.
        stop: ends the waiting.
        silent: called here while no answer comes, with the seconds since the last one; what it raises ends the waiting.

    Raises:
        Interrupted: told to stop.
        Exception: what `ask` raised, of the first that is heard of.
    """
    given_up = threading.Event()
    waiting, replies = SimpleQueue[int](), SimpleQueue[tuple[int, T | Exception]]()
    for number in range(count):
        waiting.put(number)

    def work() -> None:
        while not given_up.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                replies.put((number, ask(number, given_up)))
            except Exception as error:  # raised again where it is waited for
                replies.put((number, error))

    # Daemons: a process that is told to stop does not wait for who does not answer.
    for number in range(min(at_once, count)):
        threading.Thread(target=work, name=f"{name}-{number}", daemon=True).start()
    found: dict[int, T] = {}
    heard = time.monotonic()
    try:
        while len(found) < count:
            stop.check()
            try:
                number, reply = replies.get(timeout=LOOK_SECONDS)
            except Empty:
                silent(time.monotonic() - heard)
                continue
            if isinstance(reply, Exception):
                raise reply
            found[number], heard = reply, time.monotonic()
    finally:
        given_up.set()
    return [found[number] for number in range(count)]
