"""The agent: shares in, observed truth out. One round looks at the engine, starts what is due, and writes the table.

Rules it keeps, whatever fails: an alias points at revisions that were verified and probed in this pod, or stays where
it is; nothing is believed that the engine's list does not say; what an alias points at is never unloaded, and a folder
that the engine lists is never removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as version_of
from pathlib import Path

from pydantic import ValidationError

from .. import metrics
from ..contract import (
    ADAPTERS_TOLD,
    BASES_TOLD,
    DOCUMENTS_AT_ONCE,
    KEYS_TOLD,
    AdapterAnswer,
    AliasAnswer,
    EngineAnswer,
    EngineLimits,
    GuardAnswer,
    PodAnswer,
    PodIdentity,
    Share,
    ShareAnswer,
    Truth,
)
from ..documents import Refused
from ..engine.table import AliasEntry, AliasTable, SharedVolume
from ..engine.vllm import Engine, EngineUnreachable, Limits, ServedModel
from ..logs import keys
from ..weights.store import AdapterStore
from .aliases import Known, cannot_answer, decide
from .revisions import Bringer, Work
from .shares import Shares

log = logging.getLogger(__name__)

PROGRAM = version_of("trimtab-operator")
"""Read once: the metadata of a package is a file, and this is told in every answer."""
COUNTS_SECONDS = 1.0
"""How long an answer to the controller waits for the guard's counts: an engine that hangs must not hide the rest."""


@dataclass(frozen=True)
class Pace:
    """Seconds: between rounds, until an alias is given up, until an unwanted name is unloaded and a folder removed."""

    round: float = 1.0
    restore: float = 300.0
    unload: float = 2.0
    unload_busy: float = 60.0
    remove: float = 600.0


@dataclass(frozen=True)
class Seen:
    """The engine as it answered in this round."""

    limits: Limits
    models: tuple[ServedModel, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(model.name for model in self.models)

    @cached_property
    def bases(self) -> frozenset[str]:
        return frozenset(model.name for model in self.models if model.parent is None)

    @cached_property
    def places(self) -> frozenset[tuple[str, str | None]]:
        """Which name is loaded from which folder."""
        return frozenset((model.name, model.root) for model in self.models)


@dataclass(frozen=True)
class Told:
    """The answer about one share, and what it was made of: as long as that is the same, it is the answer."""

    parts: tuple[object, ...]
    answer: ShareAnswer


class Agent:
    """The state of one pod's serving; all methods run on one event loop."""

    def __init__(
        self,
        *,
        volume: SharedVolume,
        store: AdapterStore,
        engine: Engine,
        shares: Shares,
        base_model_digest: str | None = None,
        require_share: bool = False,
        pace: Pace = Pace(),
        counts_seconds: float = COUNTS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._volume = volume
        self._store = store
        self._engine = engine
        self._shares = shares
        self._require_share = require_share
        self._pace = pace
        self._counts_seconds = counts_seconds
        self._clock = clock
        self._bringer = Bringer(store, engine, base_model_digest, clock)
        self._works: dict[str, Work] = {}
        self._seen: Seen | None = None
        self._instance: str | None = None
        self._engine_error: str | None = "not asked yet"
        self._waiting_since: dict[str, float] = {}
        self._unneeded_since: dict[str, float] = {}
        self._unwanted_since: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._version = time.time_ns() // 1_000_000  # an earlier process has not told as many changes a second
        self._last_truth: object = None
        self._told: dict[str, Told] = {}
        self._adapters_told: tuple[tuple[object, ...], tuple[AdapterAnswer, ...]] = ((), ())
        self.last_round: float | None = None

    # Documents

    def accept(self, share: Share, *, mounted: bool = False) -> bool:
        """Take a share whose token was checked; False if it is held already.

        A call may move an alias that answers only to revisions that are proven here; a mounted document, which a new
        pod starts from, may name what is still to be brought in: its aliases answer 503 until then, and the pod is not
        ready. A call may name other revisions for such an alias, so that it need not be taken away meanwhile.

        Raises:
            Refused: and nothing has changed.
        """
        if not self._shares.check(share):
            return False
        held = self._shares.get(share.rollout)
        if self._seen is not None:
            if taken := sorted(self._seen.bases & set(share.aliases)):
                raise Refused(409, "NameIsBaseModel", f"{taken[0]} is the name of the base model")
            slots = self._seen.limits.max_cpu_loras
            wanted = self._shares.would_want(share)
            if slots is not None and len(wanted) > slots:
                raise Refused(
                    409, "DoesNotFit", f"{len(wanted)} revisions are wanted, the engine holds at most {slots}"
                )
        if not mounted:
            table = self._volume.table.aliases
            for alias, weights in share.aliases.items():
                if held is not None and held.aliases.get(alias) == weights:
                    continue
                if alias in table and table[alias].pending is not None:
                    continue
                unproven = [name for name, weight in weights.items() if weight > 0 and not self._proven(name)]
                if unproven:
                    raise Refused(409, "NotVerified", f"{alias} cannot move to {unproven[0]}: it is not proven here")
        self._shares.accept(share)
        log.info("share accepted", extra=keys(rollout=share.rollout, sequence=list(share.sequence), mounted=mounted))
        self._plan()
        self._write_table()
        self._wake.set()
        return True

    def _proven(self, name: str) -> bool:
        work, seen = self._works.get(name), self._seen
        return (
            work is not None
            and seen is not None
            and work.proven_here(seen.limits.instance)
            and self._serves(name, seen)
        )

    def _serves(self, name: str, seen: Seen) -> bool:
        """Tell whether the engine lists a revision with the folder that was verified."""
        work = self._works.get(name)
        folder = str(work.adapter.folder) if work is not None and work.adapter is not None else None
        return (name, folder) in seen.places

    def _listed(self) -> set[str] | None:
        """Return the names that answer as they should: a verified revision with another root is not one of them."""
        seen = self._seen
        if seen is None:
            return None
        verified = {name for name, work in self._works.items() if work.adapter is not None}
        return {name for name in seen.names if name not in verified or self._serves(name, seen)}

    def _usable(self) -> Limits | None:
        """Return the limits of the engine if revisions may be loaded into it now."""
        if self._seen is None or self._volume.table.harmed_instance == self._seen.limits.instance:
            return None  # nothing more is loaded into an engine that is about to end
        return self._seen.limits

    # Rounds

    async def run(self) -> None:
        """Look, bring in, write, clean up, for ever."""
        while True:
            self._wake.clear()
            try:
                await self.round()
            except Exception:  # counted and logged; the next round tries again
                metrics.ERRORS.inc()
                log.exception("round failed")
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.round):
                    await self._wake.wait()

    async def round(self) -> None:
        """Do one round; what takes long goes on behind it."""
        await self._look()
        self._plan()
        now = self._clock()
        limits = self._usable()
        for name, work in self._works.items():
            loaded = self._seen is not None and self._serves(name, self._seen)
            if work.due(now, limits.instance if limits is not None else None, loaded):
                self._start(work)
        self._write_table()
        if self._seen is not None:
            await self._clean(self._seen)
        self.last_round = self._clock()
        await self._tell()

    async def close(self) -> None:
        """Stop what is under way; aliases and adapters stay as they are."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        try:
            limits = await self._engine.limits()
            seen = Seen(limits, await self._engine.models())
        except EngineUnreachable as error:
            if self._engine_error is None:
                log.warning("engine does not answer", extra=keys(err=str(error)))
            self._seen, self._engine_error = None, str(error)
            metrics.ENGINE_UP.set(0)
            return
        if seen != self._seen:  # what is as it was stays the same object, and what was made of it with it
            self._seen = seen
        self._engine_error = None
        metrics.ENGINE_UP.set(1)
        if limits.instance != self._instance:
            metrics.ENGINE_STARTS.inc()
            log.info("engine started", extra=keys(instance=limits.instance, models=sorted(seen.names)))
            self._instance = limits.instance

    def _plan(self) -> None:
        """Bring the list of works in line with what shares want."""
        wanted = self._shares.revisions()
        for name, (revision, share) in wanted.items():
            if name not in self._works:
                self._works[name] = Work(revision, share.probe)
            self._works[name].renew(revision, share.probe, self._instance)
        for name in set(self._works) - set(wanted):
            work = self._works[name]
            if work.task is not None and work.busy:
                work.task.cancel()
            elif name not in self._volume.table.targets:
                del self._works[name]

    def _start(self, work: Work) -> None:
        def neighbours() -> set[str]:
            return {name for name, other in self._works.items() if other.proven and other is not work}

        async def bring() -> None:
            limits = self._usable()
            await self._bringer.bring(work, limits, neighbours)
            if work.failure is not None and work.failure.harmed and limits is not None:
                self._give_up_engine(limits.instance, work.failure.message)
            self._wake.set()

        work.task = asyncio.create_task(bring(), name=f"bring {work.revision.name}")
        work.task.add_done_callback(_say_bugs)

    def _give_up_engine(self, instance: str, reason: str) -> None:
        """Let the guard fail the liveness of this start of the engine: only a new process is sure to be sound."""
        metrics.ENGINE_HARMED.inc()
        log.error("engine harmed", extra=keys(instance=instance, err=reason))
        table = self._volume.table
        self._volume.write(AliasTable(table.aliases, instance, reason))

    def _write_table(self) -> None:
        """Write the table if it says something new."""
        now = self._clock()
        listed = self._listed()
        failures = {
            name: f"{work.failure.reason.value}: {work.failure.message}"
            for name, work in self._works.items()
            if work.failure is not None
        }
        known = Known({name for name, work in self._works.items() if work.proven}, listed, failures)
        table = self._volume.table
        bases = self._seen.bases if self._seen is not None else set()
        entries = decide(
            self._shares.active(),
            table.aliases,
            known,
            waiting_seconds={alias: now - since for alias, since in self._waiting_since.items()},
            restore_seconds=self._pace.restore,
        )
        entries = {alias: entry for alias, entry in entries.items() if alias not in bases}
        if self._require_share and not self._shares.active():
            entries = {"": AliasEntry(pending="no document for this pod has come yet")}
        self._note_waiting(entries, known, now)
        harmed = table.harmed_instance if table.harmed_instance == self._instance else None
        wanted = AliasTable(entries, harmed, table.harmed_reason if harmed else None)
        if wanted != table:
            self._volume.write(wanted)
            metrics.TABLES.inc()
            log.info("aliases written", extra=keys(aliases={alias: e.to_json() for alias, e in entries.items()}))
        states = Counter(state for entry in entries.values() for state in entry.to_json())
        for state in ("to", "pending", "unavailable"):
            metrics.ALIASES.labels(state).set(states[state])

    def _note_waiting(self, entries: Mapping[str, AliasEntry], known: Known, now: float) -> None:
        """Keep since when each alias cannot answer; while the engine itself is down, no alias is blamed."""
        if known.listed is None:
            self._waiting_since = {}
            return
        waiting = {
            alias
            for alias, entry in entries.items()
            if entry.unavailable is not None or cannot_answer(entry, known) is not None
        }
        self._waiting_since = {alias: self._waiting_since.get(alias, now) for alias in waiting}

    # Cleaning up

    async def _clean(self, seen: Seen) -> None:
        """Unload and remove what nobody wants, some time after nobody wanted it."""
        now = self._clock()
        needed = {name for name, work in self._works.items() if not _hopeless(work)} | self._volume.table.targets
        ours = str(self._volume.adapters)
        unneeded = {
            model.name
            for model in seen.models
            if model.parent is not None and model.name not in needed and _below(model.root, ours)
        }
        self._unneeded_since = {name: self._unneeded_since.get(name, now) for name in unneeded}
        unwanted = self._store.unwanted(
            {work.revision.digest for work in self._works.values()},
            [model.root for model in seen.models if model.root is not None],
        )
        self._unwanted_since = {digest: self._unwanted_since.get(digest, now) for digest in unwanted}
        if not unneeded and not unwanted:
            return
        running = await self._running()
        for name, since in list(self._unneeded_since.items()):
            # A request that was pointed here a moment ago may not have reached the engine's own table yet.
            pause = self._pace.unload if running is not None and not running.get(name) else self._pace.unload_busy
            if now - since >= pause:
                try:
                    await self._engine.unload(name)
                except EngineUnreachable as error:
                    log.warning("not unloaded", extra=keys(revision=name, err=str(error)))
                    continue
                log.info("revision unloaded", extra=keys(revision=name))
                self._wake.set()
        if running is None:
            return
        busy = {name.rpartition("@")[2] for name, number in running.items() if number}
        for digest, since in list(self._unwanted_since.items()):
            # The engine keeps weights after an unload and may read the folder again for a request that still runs.
            if now - since >= self._pace.remove and digest.removeprefix("sha256:")[:8] not in busy:
                await asyncio.to_thread(self._store.remove, digest)
                metrics.REMOVED.inc()
                log.info("adapter removed", extra=keys(digest=digest))

    async def _running(self) -> dict[str, int] | None:
        try:
            counts = await self._engine.counts()
            return {name: int(count["running"]) for name, count in counts["revisions"].items()}
        except (EngineUnreachable, KeyError, TypeError, ValueError):
            return None

    # Truth

    def truth(self) -> Truth:
        """Return what is true of this pod, as last read back from the engine."""
        seen, shares = self._seen, self._shares.active()
        rollouts = tuple(self.truth_of(share) for share in shares)
        self._told = {share.rollout: self._told[share.rollout] for share in shares}
        return Truth(
            engine=EngineAnswer(
                answers=seen is not None,
                error=self._engine_error,
                instance=self._instance,
                harmed=self._volume.table.harmed_reason,
                limits=EngineLimits(
                    max_loras=seen.limits.max_loras,
                    max_lora_rank=seen.limits.max_lora_rank,
                    max_cpu_loras=seen.limits.max_cpu_loras,
                )
                if seen is not None
                else None,
                base_models=tuple(sorted(seen.bases))[:BASES_TOLD] if seen is not None else (),
                adapters=self._adapters(seen) if seen is not None else (),
            ),
            sequence=self._shares.highest,
            rollouts=rollouts,
        )

    def _adapters(self, seen: Seen) -> tuple[AdapterAnswer, ...]:
        """Return the adapters in the engine's list, those that shares want before what others have loaded."""
        parts, told = (seen, *self._works), self._adapters_told
        if parts != told[0]:
            listed = [model for model in seen.models if model.parent is not None]
            listed.sort(key=lambda model: model.name not in self._works)
            found = tuple(AdapterAnswer(name=model.name, root=model.root) for model in listed[:ADAPTERS_TOLD])
            told = self._adapters_told = parts, found
        return told[1]

    def truth_of(self, share: Share) -> ShareAnswer:
        """Return what is true of one share."""
        table, seen = self._volume.table.aliases, self._seen
        instance = seen.limits.instance if seen is not None else None
        entries = {alias: table[alias] for alias in sorted(share.aliases) if alias in table}
        revisions = tuple(
            self._works[revision.name].answer(seen is not None and self._serves(revision.name, seen), instance)
            for revision in share.revisions
            if revision.name in self._works
        )
        parts, told = (share, *entries.items(), *revisions), self._told.get(share.rollout)
        if told is None or parts != told.parts:
            answer = ShareAnswer(
                namespace=share.namespace,
                rollout=share.rollout,
                uid=share.uid,
                sequence=share.sequence,
                aliases={alias: alias_answer(entry) for alias, entry in entries.items()},
                revisions=revisions,
            )
            told = self._told[share.rollout] = Told(parts, answer)
        return told.answer

    async def counts(self) -> GuardAnswer | None:
        """Return the guard's counts, or None while the engine does not answer, or not soon."""
        if self._seen is None:
            return None
        try:
            async with asyncio.timeout(self._counts_seconds):
                return GuardAnswer.model_validate(await self._engine.counts())
        except (EngineUnreachable, TimeoutError, ValidationError):
            return None

    async def answer(self, pod_uid: str, keys_known: Sequence[str]) -> PodAnswer:
        """Return all that the operator is told; the counts first, so that nothing in it is older than they are."""
        counts = await self.counts()
        truth = self.truth()
        return PodAnswer(
            version=self._version,
            documents=DOCUMENTS_AT_ONCE,
            agent=PROGRAM,
            pod=PodIdentity(uid=pod_uid),
            keys=tuple(keys_known[:KEYS_TOLD]),
            counts=counts,
            engine=truth.engine,
            sequence=truth.sequence,
            rollouts=truth.rollouts,
        )

    @property
    def version(self) -> int:
        """Grows with every change of the truth, also over a restart of the agent."""
        return self._version

    async def wait_for_change(self, after: int, seconds: float) -> None:
        """Return when the version is another than `after`, or after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._version != after)

    async def _tell(self) -> None:
        truth = self.truth()
        states = [work.state(self._seen is not None and name in self._seen.names) for name, work in self._works.items()]
        for state in ("coming", "serving", "failed"):
            metrics.REVISIONS.labels(state).set(states.count(state))
        if truth != self._last_truth:
            self._last_truth = truth
            async with self._changed:
                self._version += 1
                self._changed.notify_all()


def _hopeless(work: Work) -> bool:
    """Tell whether a revision need not stay in the engine: its failure is for good, and it never served."""
    return work.failure is not None and work.failure.permanent and not work.proven


def alias_answer(entry: AliasEntry) -> AliasAnswer:
    return AliasAnswer(to=entry.to, pending=entry.pending, unavailable=entry.unavailable)


def _below(root: str | None, folder: str) -> bool:
    return root is not None and Path(folder) in Path(root).parents


def _say_bugs(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        metrics.ERRORS.inc()
        log.error("bringing a revision in failed", exc_info=error)
