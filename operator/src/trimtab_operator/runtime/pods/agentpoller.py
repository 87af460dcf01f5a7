"""What every serving pod's agent last said: one question a pod is always open, answered when something changes.

A pod is asked once for all its rollouts. At rest that is one request in `REST_SECONDS`; a change is known as soon as
the agent tells of it. What was said counts for a few seconds of silence and then no more: it is no truth any longer.

Tenants run these pods, so what one says must cost the others nothing: one that tells of news all the time is asked less
often, one that hangs is not waited for twice, and rollouts that it tells of and that do not exist are looked at a few
at a time, each again only after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from ...domain.adapterrollout import AgentTruth, ServingPod
from ...domain.adapterrollout.delivery.sequence import Sequence as SequenceNumber
from ...domain.adapterrollout.observed import Refusal, ShareTruth
from ...domain.cluster import Key
from ...domain.plan import Document
from ...domain.views import ServingPodView
from ..cluster.cache import Cache, Stored
from ..logs import keys
from .agents import ANSWER_SECONDS, Address, Agents, AgentUnreachable, Answer
from .outbox import SENDING_SECONDS, Came, Outbox

log = logging.getLogger(__name__)
T = TypeVar("T")

NAMESPACE = "ServingNamespace"
"""Kind of the key of a namespace that has serving pods: its agents need the public keys, rollout or not."""
DEFAULT_PORT = 8081
REST_SECONDS = 25.0
SILENCE_SECONDS = 5.0
"""A restart of an agent takes less."""
SHORTEST_SECONDS, RESTLESS_SECONDS = 0.05, 1.0
"""Between two questions to one pod, however fast it answers; the second where all of its answers are news."""
RESTLESS_ANSWERS = 20
"""So many in a row that are news are those of a pod that loads; more come from one that says anything."""
GHOSTS_AT_ONCE, GHOSTS_SECONDS = 16, 1.0
"""Rollouts that a pod tells of and that do not exist: how many are looked at, and how often."""
RETIRE_PAUSE, LONGEST_RETIRE = 1.0, 600.0
"""Until a pod that still tells of a rollout hears again that it is gone; twice as long each time."""
CONFIRM_SECONDS = 2.0
"""How long an agent has to say what is true before requests move; who takes longer moves none of them."""
CONFIRMED_SECONDS = 1.0
"""So old an answer to such a question may be while rounds of the namespace wait: those about one pod share it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
REFUSED_PAUSE, LONGEST_REFUSED = 1.0, 60.0


@dataclass(frozen=True)
class Told:
    """That a rollout is gone: how often a pod was told, and when it may be told again."""

    times: int
    again: datetime

    @property
    def pause(self) -> timedelta:
        return timedelta(seconds=min(LONGEST_RETIRE, RETIRE_PAUSE * 2.0 ** min(self.times - 1, 20)))

    @classmethod
    def once_more(cls, before: Told | None, now: datetime) -> Told:
        told = cls(before.times + 1 if before is not None else 1, now)
        return replace(told, again=now + told.pause)

    def forgotten(self, now: datetime) -> bool:
        """Tell whether it is long ago: who tells of the rollout now begins anew."""
        return now > self.again + self.pause + timedelta(seconds=REST_SECONDS)


@dataclass
class Known:
    """One pod: its newest answer, and what it refused. `sent`: the newest sequences that it took from us."""

    view: ServingPodView
    truth: AgentTruth | None = None
    version: int | None = None
    keys: frozenset[str] | None = None
    silent_since: datetime | None = None
    silence: str = ""
    failures: int = 0
    refusals: dict[str, Refusal] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    sent: dict[str, SequenceNumber] = field(default_factory=dict)
    takes_several: bool = False
    """Documents in one request: an earlier agent does not."""
    confirmed_at: float = float("-inf")
    """Loop time at which the newest question was asked that was answered at once: no clock that is set."""
    outbox: Outbox | None = None
    retired: dict[str, Told] = field(default_factory=dict)
    """By rollout that is gone."""
    holds: frozenset[str] = frozenset()
    """The rollouts that it tells of."""
    news: int = 0
    """Answers in a row that were none of the same."""
    ghosts_at: datetime | None = None
    port: int = DEFAULT_PORT
    nudge: asyncio.Event = field(default_factory=asyncio.Event)


class AgentPoller:
    """Follows every serving pod of the cache, which sets `pods_changed`; `changed` is told of the rollouts that a
    change of what is true concerns.
    """

    def __init__(
        self,
        agents: Agents,
        cache: Cache,
        pods_changed: asyncio.Event,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        *,
        busy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Make one; `busy` tells whether rounds about objects of a namespace wait."""
        self._agents = agents
        self._cache = cache
        self._changed = changed
        self._now = now
        self._known: dict[str, Known] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._namespaces: set[str] = set()
        self._holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        """Uids of the pods that tell of a rollout, by namespace and name."""
        self._pods_changed = pods_changed
        self._busy = busy
        self._sent_to: dict[Key, list[Outbox]] = {}
        """Where the newest documents of a rollout went."""

    async def run(self) -> None:
        """Follow the pods, for ever."""
        try:
            while True:
                self._pods_changed.clear()
                self._sync()
                await self._pods_changed.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()

    def serves(self, namespace: str) -> bool:
        """Tell whether a namespace has serving pods."""
        return namespace in self._namespaces

    def _sync(self) -> None:
        views = {entry.uid: entry.view for entry in self._cache.serving if entry.view is not None}
        namespaces = {view.namespace for view in views.values()}
        new, self._namespaces = namespaces - self._namespaces, namespaces
        for namespace in new:
            self._changed(Key(NAMESPACE, namespace, ""))
        there = {uid: view for uid, view in views.items() if view.ip and not view.deleting}
        for uid in set(self._tasks) - set(there):
            self._tasks.pop(uid).cancel()
            if (gone := self._known.pop(uid, None)) is not None:
                self._note_holds(gone, frozenset())
                if gone.outbox is not None:
                    gone.outbox.close()
        for uid, view in there.items():
            known = self._known.get(uid)
            if known is None:
                self._known[uid] = Known(view)
                self._tasks[uid] = asyncio.create_task(self._follow(self._known[uid]), name=f"agent of {view.name}")
                continue
            if (known.view.ip, known.view.port) != (view.ip, view.port):
                known.nudge.set()
            known.view = view

    def pod(self, view: ServingPodView, rollout: str) -> ServingPod:
        """Return what a decision about one rollout sees of a pod."""
        known = self._known.get(view.uid)
        if known is None:
            return ServingPod(view.name, view.uid, view.ip, view.ready, view.deleting, port=view.port)
        return ServingPod(
            name=view.name,
            uid=view.uid,
            address=view.ip,
            ready=view.ready,
            deleting=view.deleting,
            truth=known.truth,
            unreachable_since=known.silent_since,
            unreachable_why=known.silence,
            refusal=known.refusals.get(rollout),
            pending=known.outbox.pending(rollout) if known.outbox is not None else None,
            port=known.port,
        )

    def holders(self, namespace: str, rollout: str) -> list[ServingPodView]:
        """Return the pods that tell of a rollout, whatever their labels are now."""
        return [self._known[uid].view for uid in self._holders.get((namespace, rollout), ())]

    def may_hear(self, view: ServingPodView, rollout: str) -> float:
        """Return in how many seconds a pod may be told that a rollout is gone; 0 for now."""
        known = self._known.get(view.uid)
        outbox = known.outbox if known is not None else None
        if known is None or (outbox is not None and (outbox.hangs or outbox.pending(rollout) is not None)):
            return RETIRE_PAUSE
        told = known.retired.get(rollout)
        return max(0.0, (told.again - self._now()).total_seconds()) if told is not None else 0.0

    def keys_known(self, namespace: str) -> list[frozenset[str]]:
        """Return the ids of keys that each agent of a namespace said it knows."""
        mine = (known for known in self._known.values() if known.view.namespace == namespace)
        return [known.keys for known in mine if known.keys is not None]

    def unreachable(self) -> int:
        """Return how many pods do not answer."""
        return sum(known.truth is None for known in self._known.values())

    async def refresh(self, pods: Iterable[str]) -> None:
        """Ask pods, by uid, all at once. Who does not answer soon has no truth; who has none already is not asked."""

        async def ask(known: Known) -> None:
            asked = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(CONFIRM_SECONDS):
                    self._take(known, await self._agents.ask(self._address(known), known.keys))
                known.confirmed_at = asked
            except AgentUnreachable as error:
                self._failed(known, error, at_once=True)
            except TimeoutError:
                self._failed(known, AgentUnreachable(f"no answer within {CONFIRM_SECONDS:g} s"), at_once=True)

        found = (self._known.get(uid) for uid in pods)
        await asyncio.gather(*(ask(known) for known in found if known is not None and known.truth is not None))

    async def confirm(self, pods: Iterable[str]) -> None:
        """Ask pods, by uid, before requests move; in a busy namespace one that was asked a moment ago is not again."""

        def is_known(uid: str) -> bool:
            known = self._known.get(uid)
            if known is None or known.truth is None:
                return False
            lately = asyncio.get_running_loop().time() - known.confirmed_at < CONFIRMED_SECONDS
            return lately and self._busy(known.view.namespace)

        await self.refresh(uid for uid in pods if not is_known(uid))

    async def send(self, key: Key, documents: Iterable[Document]) -> None:
        """Send the documents of a rollout to their pods, and nothing that still waits of those before.

        What comes of each is kept, and its rollout is told. It is waited for a moment, unless other rounds of the
        namespace wait: the documents of these go into the same requests.
        """
        rollout, ended, outboxes = key.name, list[asyncio.Event](), list[Outbox]()
        for document in documents:
            if (known := self._known.get(document.uid)) is not None:  # else it is gone meanwhile
                outbox = known.outbox = known.outbox or self._outbox(known)
                if outbox.hangs:
                    self._late(known, document)
                    outbox.miss(document)
                elif outbox.pending(rollout) != document.share:
                    ended.append(outbox.put(document))
                outboxes.append(outbox)
        for outbox in self._sent_to.pop(key, ()):
            if outbox not in outboxes:
                outbox.withdraw(rollout)
        if outboxes:
            self._sent_to[key] = outboxes
        if ended and not self._busy(key.namespace):
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * SENDING_SECONDS):  # behind a request, and its own
                    for each in ended:
                        await each.wait()

    def _outbox(self, known: Known) -> Outbox:
        return Outbox(
            partial(self._send, known),
            partial(self._answered, known),
            partial(self._overdue, known),
            self._tell_sender,
            lambda: self._busy(known.view.namespace),
        )

    def _late(self, known: Known, document: Document) -> None:
        again = self._now() + timedelta(seconds=ANSWER_SECONDS)
        refusal = Refusal("Unreachable", "no answer to a document yet", document.share, again)
        known.refusals[document.share.rollout] = refusal

    def _overdue(self, known: Known, document: Document) -> None:
        self._late(known, document)
        self._tell_sender(document)

    async def _send(self, known: Known, documents: Sequence[Document], came: Came) -> None:
        now, wanted = self._now(), list[Document]()
        for document in documents:
            share = document.share
            if not share.retired and self._cache.stored(_rollout_of(document)) is None:
                came(document, None)  # it was deleted while its document waited; that it is gone is told next
                continue
            wanted.append(document)
            if share.retired:
                # Whatever it answers: one that goes on to tell of it hears so again, but ever more seldom.
                known.retired = {each: told for each, told in known.retired.items() if not told.forgotten(now)}
                known.retired[share.rollout] = Told.once_more(known.retired.get(share.rollout), now)
        address, ids = self._address(known), known.keys or frozenset()

        async def alone(document: Document) -> None:
            came(document, await _or_refusal(self._agents.send_alone(address, ids, document.share)))

        if not known.takes_several:
            await asyncio.gather(*map(alone, wanted))
        elif wanted:
            answer = await _or_refusal(self._agents.send(address, ids, [document.share for document in wanted]))
            answers = [answer] * len(wanted) if isinstance(answer, Refusal) else answer
            for document, each in zip(wanted, answers, strict=True):
                came(document, each)

    def _answered(self, known: Known, document: Document, result: ShareTruth | Refusal) -> None:
        share, name = document.share, document.share.rollout
        if isinstance(result, ShareTruth):
            known.refusals.pop(name, None)
            known.refused.pop(name, None)
            known.sent[name] = share.sequence
            held = next((each for each in known.truth.shares if each.rollout == name), None) if known.truth else None
            # What it told by itself after it took the document, or a later one, is newer than its answer to it.
            if share.retired or held is None or held.sequence < share.sequence:
                self._replace(known, name, None if share.retired else result)
            return
        count = known.refused[name] = known.refused.get(name, 0) + 1
        pause = min(LONGEST_REFUSED, REFUSED_PAUSE * 2.0 ** min(count - 1, 10))
        known.refusals[name] = replace(result, share=share, again=self._now() + timedelta(seconds=pause))
        known.version = None
        known.nudge.set()
        about = {"namespace": share.namespace, "rollout": name, "pod": document.pod}
        log.warning("document refused", extra=keys(**about, reason=result.reason, err=result.message))
        self._tell_sender(document)

    def _tell_sender(self, document: Document) -> None:
        """Have the rollout of a document looked at, that is there or is still to be retired."""
        self._changed(_rollout_of(document))

    def _replace(self, known: Known, name: str, share: ShareTruth | None) -> None:
        if known.truth is None:
            return
        shares = {each.rollout: each for each in known.truth.shares if each.rollout != name}
        if share is not None:
            shares[name] = share
        before, known.truth = known.truth, replace(known.truth, shares=tuple(shares.values()))
        self._note_holds(known, frozenset(shares))
        if before != known.truth:
            self._tell_of(known, before, known.truth)

    async def _follow(self, known: Known) -> None:
        while True:
            known.nudge.clear()
            try:
                wait = 0.0 if known.version is None else GHOSTS_SECONDS if self._ghosts(known) else REST_SECONDS
                question = self._agents.ask(self._address(known), known.keys, after=known.version, wait=wait)
                answer = await _unless(known.nudge, question)
                if answer is not None:
                    self._take(known, answer)
                    pause = SHORTEST_SECONDS * 2.0 ** min(10, max(0, known.news - RESTLESS_ANSWERS))
                    if self._busy(known.view.namespace):
                        pause = RESTLESS_SECONDS  # rounds that wait will see all news at once
                    await asyncio.sleep(min(pause, RESTLESS_SECONDS))
            except AgentUnreachable as error:
                self._failed(known, error)
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(known.failures - 1, 10))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await known.nudge.wait()
            except Exception:  # logged; one agent does not end the questions to the others
                log.exception("an agent's answer could not be taken in", extra=keys(pod=known.view.name))
                await asyncio.sleep(LONGEST_PAUSE)

    def _address(self, known: Known) -> Address:
        known.port = self._port(known)
        return Address(known.view.uid, known.view.ip, known.port, known.view.namespace)

    def _port(self, known: Known) -> int:
        """Return the port of a pod's agent: the pod's own word, else what its rollouts say.

        Where they differ, a newcomer moves nobody: the port that was asked before stays while any rollout names it.
        """
        if known.view.port is not None:
            return known.view.port
        others = []
        for stored in self._cache.served_by(known.view):
            if agents_port(stored) == known.port:
                return known.port
            others.append(stored)
        ports = {agents_port(stored) for stored in others}
        if len(ports) > 1:
            return agents_port(min(others, key=created))
        return ports.pop() if ports else known.port

    def _take(self, known: Known, answer: Answer) -> None:
        before, shares = known.truth, list(answer.truth.shares)
        held = {share.rollout: share for share in before.shares} if before is not None else {}
        known.version = answer.version
        for number, share in enumerate(shares):
            newer = held.get(share.rollout)
            if newer is not None and share.sequence < known.sent.get(share.rollout, (0, 0)) <= newer.sequence:
                shares[number] = newer  # it was asked before it took our document, and answered after
                known.version = None
        known.truth, known.keys = replace(answer.truth, shares=tuple(shares)), answer.keys
        known.takes_several = answer.takes_several
        known.failures, known.silent_since, known.silence = 0, None, ""
        self._note_holds(known, frozenset(share.rollout for share in shares))
        if before is None or replace(before, counts={}) != replace(known.truth, counts={}):
            known.news += 1
            self._tell_of(known, before, known.truth)
        else:
            known.news = 0
        self._tell_ghosts(known)

    def _note_holds(self, known: Known, holds: frozenset[str]) -> None:
        """Keep which rollouts a pod tells of, and forget what was kept of others."""
        namespace = known.view.namespace
        if self._known.get(known.view.uid) is not known:
            holds = frozenset()  # the pod is gone, and this is the answer to a call that was under way
        for name in known.holds - holds:
            holders = self._holders[namespace, name]
            holders.discard(known.view.uid)
            if not holders:
                del self._holders[namespace, name]
        for name in holds - known.holds:
            self._holders[namespace, name].add(known.view.uid)
        if known.holds - holds:
            kept = holds | {stored.key.name for stored in self._cache.served_by(known.view)}
            for of_rollouts in (known.refusals, known.refused, known.sent):
                for name in set(of_rollouts) - kept:
                    del of_rollouts[name]
        known.holds = holds

    def _ghosts(self, known: Known) -> list[str]:
        """Return the rollouts that a pod tells of, that do not exist, and that it may be told so of now."""
        if known.truth is None:
            return []
        namespace = known.view.namespace
        told = (share.rollout for share in known.truth.shares if share.ours)
        gone = [name for name in told if self._cache.owners["AdapterRollout"].named(namespace, name) is None]
        return [name for name in gone if not self.may_hear(known.view, name)]

    def _tell_ghosts(self, known: Known) -> None:
        now = self._now()
        if known.ghosts_at is not None and (now - known.ghosts_at).total_seconds() < GHOSTS_SECONDS:
            return
        for name in self._ghosts(known)[:GHOSTS_AT_ONCE]:
            known.ghosts_at = now
            self._changed(Key("AdapterRollout", known.view.namespace, name))

    def _failed(self, known: Known, error: AgentUnreachable, *, at_once: bool = False) -> None:
        now = self._now()
        known.failures += 1
        known.version = None  # what changed in the silence is not known: the next answer is wanted at once
        known.silence = str(error)
        if known.silent_since is None:
            known.silent_since = now
        if at_once:
            known.nudge.set()  # the question that is open may be as lost as this one
        silent = at_once or (now - known.silent_since).total_seconds() >= SILENCE_SECONDS
        if silent and known.truth is not None:
            known.truth = None
            self._note_holds(known, frozenset())
            about = {"namespace": known.view.namespace, "pod": known.view.name}
            log.warning("agent does not answer", extra=keys(**about, err=str(error)))
            self._tell(known)

    def _tell_of(self, known: Known, before: AgentTruth | None, after: AgentTruth) -> None:
        """Tell those whom a change of the truth concerns.

        Where revisions only come, or get on, that is the rollouts they are of. Where something goes there is room for
        others, and what is said of the engine is said of all.
        """
        if before is None or _of_engine(before) != _of_engine(after) or _revisions(before) - _revisions(after):
            self._tell(known)
            return
        held, came = {share.rollout: share for share in before.shares}, set(after.adapters) - set(before.adapters)
        for share in after.shares:
            news = share != held.get(share.rollout) or any(each.name in came for each in share.revisions)
            key = Key("AdapterRollout", known.view.namespace, share.rollout)
            if news and self._cache.stored(key) is not None:
                self._changed(key)

    def _tell(self, known: Known) -> None:
        concerned = {stored.key for stored in self._cache.served_by(known.view)}
        namespace = known.view.namespace
        held = (self._cache.owners["AdapterRollout"].view(namespace, name) for name in known.holds)
        for key in concerned | {stored.key for stored in held if stored is not None}:
            self._changed(key)


async def _or_refusal(sending: Awaitable[T]) -> T | Refusal:
    """Return what came of a request, a refusal where nothing is known to."""
    try:
        return await sending
    except AgentUnreachable as error:
        return Refusal("Unreachable", str(error))
    except Exception as error:  # logged; what is wrong with one document keeps no pod from the next
        log.exception("documents could not be sent")
        return Refusal("Unreachable", f"{type(error).__name__}: {error}")


def _rollout_of(document: Document) -> Key:
    return Key("AdapterRollout", document.share.namespace, document.share.rollout)


def agents_port(stored: Stored) -> int:
    """Return the port that a rollout names for the agents of its pods."""
    return stored.serving.port if stored.serving.port is not None else DEFAULT_PORT


def _of_engine(truth: AgentTruth) -> AgentTruth:
    """Return what an agent says of its engine alone."""
    return replace(truth, shares=(), adapters=(), counts={}, sequence=(0, 0))


def _revisions(truth: AgentTruth) -> set[tuple[str, str]]:
    """Return what a pod holds: of rollouts, and in the engine whoever loaded it."""
    held = {(share.rollout, each.name) for share in truth.shares for each in share.revisions}
    gone_with = {(share.rollout, "") for share in truth.shares}
    return held | gone_with | {("", name) for name in truth.adapters}


def created(stored: Stored) -> tuple[str, str]:
    """Return what orders objects by age."""
    metadata = stored.body["metadata"]
    return str(metadata.get("creationTimestamp") or ""), str(metadata.get("uid") or "")


async def _unless(event: asyncio.Event, doing: Coroutine[Any, Any, T]) -> T | None:
    """Return the result, or None if the event came first."""
    work, told = asyncio.ensure_future(doing), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, told):
            task.cancel()
        await asyncio.gather(work, told, return_exceptions=True)
