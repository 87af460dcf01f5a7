"""What processes that train as one tell each other: agreements, sums, and what the leader knows.

Every process calls the same methods in the same order. They agree over gloo, on the processor, where one that died is
noticed at once and one that hangs after `patience`; only gradients of accelerators go over NCCL, right after all have
agreed that they are there. Alone (one process) every method gives what it was given.

A signal never raises inside: callers ask outside of `Interruption.at_once`, or where all can be thrown away.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ...errors import Interrupted, ProcessLost
from ...interruption import Interruption
from .meeting import is_here, meet
from .processes import Place
from .sharing import dealt

T = TypeVar("T")
PATIENCE = "TRIMTAB_RANK_TIMEOUT_SECONDS"
PATIENCE_SECONDS = 900
"""What a process may take longer than the others: storage that a checkpoint waits for, a slower accelerator."""
BUCKET_NUMBERS = 1 << 26
"""Gradients that are summed at once, 256 MiB of them; a larger one is alone."""
LOOPBACK = "lo"
ASKED_EVERY = 0.05
"""Seconds between two looks at whether the others are there."""


class World:
    """This process among those that train one run."""

    def __init__(self, place: Place | None = None) -> None:
        """Know where this process is; `join` meets the others."""
        self.place = place = place or Place()
        self.rank, self.size = place.rank, place.size
        self.local_rank, self.local_size = place.local_rank, place.local_size
        self._patience = timedelta(seconds=int(os.environ.get(PATIENCE, PATIENCE_SECONDS)))
        self._store: Any = None
        self._met = 0
        self._bucket: Tensor | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which of all micro-batches are computed here."""
        return dealt(self.rank, self.size)

    def join(self, about: str = "", stop: Interruption | None = None) -> None:
        """Meet the others; each has an accelerator of its own by now, where there are any.

        Args:
            about: what this process is about to do; those of other pods have to say the same.
            stop: ends the waiting for other pods.

        Raises:
            ProcessLost: they do not come.
            Interrupted: those of other pods do not.
            SettingsInvalid: they are not what this one is.
        """
        if self.size == 1:
            return
        # Where all are on one machine no name has to be resolved and no other interface is needed.
        if is_here(self.place) and LOOPBACK in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", LOOPBACK)
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
        with _lost("they did not come"):
            if self.place.address is None:
                self._store = dist.FileStore(self.place.meeting, self.size)  # type: ignore[attr-defined]  # of C++
            else:
                self._store = meet(self.place, about, self._patience, stop or Interruption())
            dist.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.size, timeout=self._patience
            )
        if dist.get_world_size() != self.size:
            raise ProcessLost(f"{dist.get_world_size()} processes are here, {self.size} were started")

    def leave(self) -> None:
        """Need the others no more."""
        if self._store is not None:
            self._store = None
            dist.destroy_process_group()

    # -- agreements ---------------------------------------------------------------------------------------------------

    def meet(self, stop: Interruption) -> None:
        """Wait for all, however long they take: whoever dies meanwhile ends the run from outside."""
        self._met += 1
        if self.size == 1:
            return
        self._tell(f"met/{self._met}/{self.rank}")
        others = [f"met/{self._met}/{rank}" for rank in range(self.size)]
        self._await(others, stop)

    def leader_first(self, work: Callable[[], T], stop: Interruption) -> T:
        """Do something in the leader, and in the others once that is done."""
        return self._first(self.leads, "0", work, stop, work)

    def pod_first(self, work: Callable[[], T], stop: Interruption, then: Callable[[], T]) -> T:
        """Do something in the first process of each pod, and something else in its others once that is done."""
        return self._first(self.local_rank == 0, f"pod-{self.place.node}", work, stop, then)

    def _first(self, here: bool, who: str, work: Callable[[], T], stop: Interruption, then: Callable[[], T]) -> T:
        result = work() if here or self.size == 1 else None
        self._met += 1
        if self.size == 1:
            return cast(T, result)
        if here:
            self._tell(f"met/{self._met}/{who}")
            return cast(T, result)
        self._await([f"met/{self._met}/{who}"], stop)
        return then()

    def _tell(self, key: str) -> None:
        with _lost():
            self._store.set(key, "1")

    def _await(self, keys: list[str], stop: Interruption) -> None:
        while not self._is_told(keys):
            stop.check()
            time.sleep(ASKED_EVERY)

    def _is_told(self, keys: list[str]) -> bool:
        with _lost():
            return bool(self._store.check(keys))

    def any(self, here: bool) -> bool:
        """Tell whether it is so in any process."""
        return here if self.size == 1 else self.sum([float(here)])[0] > 0

    def stop_together(self, stop: Interruption) -> None:
        """Raise `Interrupted` in all processes if any of them was told to stop."""
        if self.any(stop.requested):  # whoever is told after this tells it the next time
            stop.request()
            stop.check()

    @contextmanager
    def working(self, stop: Interruption) -> Iterator[None]:
        """Give a block in which each does its share, thrown away by all if any is told to stop meanwhile."""
        told = False
        try:
            with stop.at_once():
                yield
        except Interrupted:
            told = True
        if told:
            stop.request()
        self.stop_together(stop)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64)
        with _lost():
            dist.all_reduce(told)
        found: list[float] = told.tolist()
        return found

    def gather(self, value: T) -> list[T]:
        """Return what each process gives, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _lost():
            dist.all_gather_object(found, value)
        return found

    def from_leader(self, value: T, stop: Interruption) -> T:
        """Return the leader's value in all processes, however long it takes to find it."""
        if self.size == 1:
            return value
        self.leader_first(lambda: None, stop)
        told: list[Any] = [value]
        with _lost():
            dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        found: T = told[0]
        return found

    def announce(self, code: int) -> int:
        """Return in all processes the leader's number; those of the others are not heard."""
        told = torch.tensor([code])
        if self.size > 1:
            with _lost():
                dist.broadcast(told, src=0)
        return int(told)

    # -- weights ------------------------------------------------------------------------------------------------------

    def collect(self, whole: Tensor, own: Tensor) -> Callable[[], None]:
        """Begin to put the slices of all processes side by side; return what waits for that.

        Args:
            whole: uint8[size * n], which is filled by rank.
            own: uint8[n], this process's slice.
        """
        if self.size == 1:
            whole.copy_(own)
            return lambda: None
        with _lost():
            work = dist.all_gather_single(whole, own, async_op=True)

        def arrived() -> None:
            with _lost():
                work.wait()

        return arrived

    # -- gradients ----------------------------------------------------------------------------------------------------

    def add_gradients(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; one that nobody has stays None.

        They go through a flat float32 buffer, which is kept: of an adapter all at once, of all weights of a model as
        many as it holds, for a copy of all gradients is a quarter of what training takes. The sums are the same bits
        in every process.
        """
        if self.size == 1:
            return
        groups = _grouped(list(parameters.values()))
        if self._bucket is None:
            longest = max(sum(p.numel() for p in group) + len(group) for group in groups)
            self._bucket = torch.empty(longest, dtype=torch.float32, device=groups[0][0].device)
        for group in groups:
            self._add(group, self._bucket)

    def _add(self, group: Sequence[nn.Parameter], bucket: Tensor) -> None:
        sizes = [p.numel() for p in group]
        used = bucket[: sum(sizes) + len(group)]
        there = used[-len(group) :]
        views = [view.view_as(p) for view, p in zip(torch.split(used[: -len(group)], sizes), group, strict=True)]
        for view, parameter in zip(views, group, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
        there.copy_(torch.tensor([float(p.grad is not None) for p in group]))
        with _lost():
            dist.all_reduce(used)
        for view, parameter, count in zip(views, group, there.tolist(), strict=True):
            if not count:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(view)


def _grouped(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Return parameters in groups that fit into the buffer of gradients; one that is larger is alone."""
    groups, size = [list[nn.Parameter]()], 0
    for parameter in parameters:
        size += parameter.numel()
        if size > BUCKET_NUMBERS and groups[-1]:
            groups.append([])
            size = parameter.numel()
        groups[-1].append(parameter)
    return groups


@contextmanager
def _lost(what: str = "they did not answer") -> Iterator[None]:
    """Give a block whose failure means that others are gone."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(f"the other processes are lost: {what} ({str(error).partition(chr(10))[0][:200]})") from error
