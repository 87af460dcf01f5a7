"""The way of one revision into the engine: fetch, verify, load, probe. What the engine says is read back, always."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..contract import FailureAnswer, Probe, Revision, RevisionAnswer
from ..engine.probing import prove
from ..engine.vllm import Engine, EngineUnreachable, Limits, ServedModel
from ..failures import FailureReason, RevisionFailed
from ..logs import keys
from ..metrics import FAILURES, STEP_SECONDS
from ..weights.store import Adapter, AdapterStore

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
FETCHES = 4
"""Adapters fetched at once; one engine loads and proves one at a time, so that harm has one cause."""


@dataclass
class Work:
    """What is known of one revision in this pod; `proven_on` is the start of the engine it was probed on.

    `proven` outlives an engine: what its alias pointed at goes on answering as soon as it is loaded again.
    """

    revision: Revision
    probe: Probe
    adapter: Adapter | None = None
    proven: bool = False
    proven_on: str | None = None
    failure: RevisionFailed | None = None
    failed_on: str | None = None
    tries: int = 0
    next_try: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    _told: tuple[tuple[object, ...], RevisionAnswer] | None = None
    """The newest answer, and what it was made of."""

    @property
    def busy(self) -> bool:
        return self.task is not None and not self.task.done()

    def due(self, now: float, instance: str | None, loaded: bool) -> bool:
        """Tell whether there is something to do that may succeed now; `now` in seconds of a steady clock."""
        if self.busy or now < self.next_try or (self.failure is not None and self.failure.permanent):
            return False
        if self.adapter is None:
            return True
        return instance is not None and not (loaded and self.proven_on == instance)

    def renew(self, revision: Revision, probe: Probe, instance: str | None) -> None:
        """Take a newer document or another start of the engine into account: some failures are over with it."""
        failure = self.failure
        if failure is not None and not failure.harmed:
            other_engine = instance is not None and self.failed_on not in (None, instance)
            # A probe that was put right, or a uri that was corrected
            if probe != self.probe or revision != self.revision or (other_engine and self.adapter is not None):
                self.failure, self.tries, self.next_try = None, 0, 0.0
        if probe != self.probe and not self.proven:
            self.proven_on = None
        self.revision, self.probe = revision, probe

    def failed(self, error: RevisionFailed, now: float, instance: str | None) -> None:
        """Keep why it stopped, and when to try again."""
        self.failure, self.failed_on = error, instance
        if error.permanent:
            self.proven = False if error.harmed or self.proven_on is None else self.proven
        self.next_try = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self.tries)
        self.tries += 1

    def proven_here(self, instance: str | None) -> bool:
        """Tell whether this start of the engine gave the proof; an earlier one's may not move an alias."""
        return self.proven and instance is not None and self.proven_on == instance

    def answer(self, loaded: bool, instance: str | None) -> RevisionAnswer:
        """Return what is true of it: `loaded` as the engine lists it now, `probed` on that start of the engine."""
        probed, seconds = self.proven_here(instance), tuple(self.seconds.items())
        parts = (self.revision, self.adapter, self.failure, loaded, probed, seconds)
        if self._told is not None and self._told[0] == parts:
            return self._told[1]
        why, failed = self.failure, None
        if why is not None:
            failed = FailureAnswer(reason=why.reason.value, message=why.message, permanent=why.permanent)
        answer = RevisionAnswer(
            name=self.revision.name,
            digest=self.revision.digest,
            uri=self.revision.uri,
            verified=self.adapter is not None,
            rank=self.adapter.health.rank if self.adapter is not None else None,
            loaded=loaded,
            probed=probed,
            failed=failed,
            seconds={step: round(value, 4) for step, value in seconds},
        )
        self._told = parts, answer
        return answer

    def state(self, loaded: bool) -> str:
        """Return one word for the metrics."""
        if self.failure is not None:
            return "failed"
        return "serving" if self.proven and loaded else "coming"


class Bringer:
    """Brings revisions in, one call of `bring` each; it never raises what a revision can be blamed for."""

    def __init__(
        self,
        store: AdapterStore,
        engine: Engine,
        base_model_digest: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._engine = engine
        self._base_model_digest = base_model_digest
        self._clock = clock
        self._fetching = asyncio.Semaphore(FETCHES)
        self._loading = asyncio.Lock()

    async def bring(self, work: Work, limits: Limits | None, neighbours: Callable[[], set[str]]) -> None:
        """Go as far as possible; `limits` None means that the engine does not answer, and only the fetch is done."""
        try:
            if work.adapter is None:
                async with self._fetching:
                    work.adapter = await self._timed(work, "Fetch", self._fetch(work.revision))
            self._fits(work.adapter, limits)
            if limits is not None:
                async with self._loading:
                    await self._timed(work, "Load", self._load(work, work.adapter, limits))
                    if work.proven_on != limits.instance:
                        await self._timed(work, "Probe", self._prove(work, neighbours()))
                        work.proven, work.proven_on = True, limits.instance
                        log.info("revision proven", extra=keys(revision=work.revision.name, seconds=work.seconds))
            work.failure, work.tries, work.next_try = None, 0, 0.0
        except RevisionFailed as error:
            work.failed(error, self._clock(), limits.instance if limits else None)
            FAILURES.labels(error.reason.value).inc()
            log.warning(
                "revision failed",
                extra=keys(
                    revision=work.revision.name, reason=error.reason.value, err=error.message, permanent=error.permanent
                ),
            )
        except EngineUnreachable as error:
            failure = RevisionFailed(FailureReason.ENGINE_FAILED, str(error), permanent=False)
            work.failed(failure, self._clock(), limits.instance if limits else None)
            FAILURES.labels(failure.reason.value).inc()
        except Exception as error:
            # A bug of ours, which whoever started this logs and counts; without a pause it would be met every second.
            failure = RevisionFailed(FailureReason.ENGINE_FAILED, f"unexpected {type(error).__name__}", permanent=False)
            work.failed(failure, self._clock(), limits.instance if limits else None)
            FAILURES.labels(failure.reason.value).inc()
            raise

    async def _fetch(self, revision: Revision) -> Adapter:
        return await asyncio.to_thread(self._store.bring, revision.uri, revision.digest)

    def _fits(self, adapter: Adapter, limits: Limits | None) -> None:
        """Compare with base model and limits, before the engine is touched."""
        made_for = adapter.base_model_digest
        if self._base_model_digest and made_for and made_for != self._base_model_digest:
            raise RevisionFailed(
                FailureReason.BASE_MODEL_MISMATCH,
                f"the adapter was trained for base model {made_for}, this engine serves {self._base_model_digest}",
                permanent=True,
            )
        if limits is None:
            return
        if limits.lora_enabled is False:
            raise RevisionFailed(
                FailureReason.LOADING_DISABLED, "the engine was started without --enable-lora", permanent=True
            )
        if limits.max_lora_rank is not None and adapter.health.rank > limits.max_lora_rank:
            raise RevisionFailed(
                FailureReason.RANK_TOO_HIGH,
                f"the adapter has rank {adapter.health.rank}, the engine serves up to {limits.max_lora_rank}; "
                "start it with a higher --max-lora-rank",
                permanent=True,
            )

    async def _load(self, work: Work, adapter: Adapter, limits: Limits) -> None:
        name, folder = work.revision.name, str(adapter.folder)
        listed = await self._engine.models()
        there = next((model for model in listed if model.name == name), None)
        if there is not None and there.root == folder:
            return
        if there is not None:
            # Same name, another folder: whoever loaded it, these are not the bytes that were verified.
            log.warning("unloading a stranger", extra=keys(revision=name, root=there.root))
            work.proven, work.proven_on = False, None
            await self._engine.unload(name)
        slots = limits.max_cpu_loras
        others = {model.name for model in listed if model.parent is not None} - {name}
        if slots is not None and len(others) >= slots:
            raise RevisionFailed(
                FailureReason.DOES_NOT_FIT,
                f"the engine holds {len(others)} adapters of at most {slots}; retire one, or start it with "
                "a higher --max-cpu-loras",
                permanent=False,
            )
        await self._engine.load(name, folder)
        await self._read_back(name, folder)
        log.info("revision loaded", extra=keys(revision=name, folder=folder))

    async def _read_back(self, name: str, folder: str) -> None:
        """Believe the list, not the answer to the call."""
        roots: tuple[ServedModel, ...] = await self._engine.models()
        if not any(model.name == name and model.root == folder for model in roots):
            raise RevisionFailed(
                FailureReason.ENGINE_FAILED, f"the engine said it loaded {name}, but does not list it", permanent=False
            )

    async def _prove(self, work: Work, neighbours: set[str]) -> None:
        listed = await self._engine.models()
        base = next((model.name for model in listed if model.parent is None), None)
        if base is None:
            raise RevisionFailed(FailureReason.ENGINE_FAILED, "the engine lists no base model", permanent=False)
        others = sorted({model.name for model in listed} & neighbours - {work.revision.name})
        await prove(self._engine, work.revision.name, work.probe, base, others[0] if others else None)

    async def _timed(self, work: Work, step: str, doing: Awaitable[T]) -> T:
        start = self._clock()
        result = await doing
        work.seconds[step.lower()] = self._clock() - start
        STEP_SECONDS.labels(step).observe(work.seconds[step.lower()])
        return result
