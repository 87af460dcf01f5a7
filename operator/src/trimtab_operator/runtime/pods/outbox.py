"""What is to be sent to one pod: a request at a time, with everything in it that waits when it begins.

A pod is served by many rollouts, and a request costs both sides more than what is in it. So while rounds about others
of its namespace are about to come, documents wait a moment for theirs, except those by which requests leave what
answers them: these were decided on by what the pod just said. Nothing waits behind a request that hangs: such documents
were decided on when the pod still answered, so their rollouts are decided on again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from trimtab_agent.contract import DOCUMENTS_AT_ONCE, DOCUMENTS_BYTES, Share

from ...domain.adapterrollout.observed import Refusal, ShareTruth
from ...domain.plan import Document
from ..logs import keys

log = logging.getLogger(__name__)

SENDING_SECONDS = 1.0
"""How long the answer to a request is waited for: a pod that hangs must not hold up the next wave."""
HELD_SECONDS, LOOK_SECONDS = 2.0, 0.1
"""How long a document waits for others at most, and how long until it is looked again if they are about to come."""
Result = ShareTruth | Refusal
Came = Callable[[Document, Result | None], None]
"""Takes what came of a document; None: it was not sent, because nobody wants it any more."""


class Outbox:
    """Of one pod.

    Args:
        send: send documents, at most as many as may be in a request, and tell what came of each as soon as it is known.
        answered: told of each document and what came of it.
        late: told of each document that is given up for now.
        again: told when a request that hung has ended of each document that is wanted for good and was not sent.
        held: whether others are about to come.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Document], Came], Awaitable[None]],
        answered: Callable[[Document, Result], None],
        late: Callable[[Document], None],
        again: Callable[[Document], None],
        held: Callable[[], bool],
    ) -> None:
        self._send = send
        self._answered = answered
        self._late = late
        self._again = again
        self._held = held
        self._waiting: dict[str, Document] = {}
        self._since: dict[str, float] = {}
        """Loop time at which a rollout's document began to wait, whatever came in its place since."""
        self._missed: dict[str, Document] = {}
        self._under_way: dict[str, Document] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self.hangs = False
        """Whether a request has had no answer for long: what is put then only waits for it."""
        self._work: asyncio.Task[None] | None = None

    def pending(self, rollout: str) -> Share | None:
        """Return the document of a rollout that is on its way, the newest."""
        found = self._waiting.get(rollout) or self._under_way.get(rollout)
        return found.share if found is not None else None

    def put(self, document: Document) -> asyncio.Event:
        """Have a document sent in place of one that waits, and return what is set when it has come to something.

        Of a rollout of which one is under way no other is sent: a later document must not be overtaken by an earlier.
        """
        name = document.share.rollout
        if name in self._under_way:
            return _now()
        self._waiting[name] = document
        self._since.setdefault(name, asyncio.get_running_loop().time())
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run(), name=f"documents for {document.pod}")
        return self._ended.setdefault(name, asyncio.Event())

    def withdraw(self, rollout: str) -> None:
        """Send no document that is not wanted any more and still waits; one by which it is gone is wanted for good."""
        found = self._waiting.get(rollout)
        if found is not None and not found.share.retired:
            self._take(rollout)
            self._end(rollout)

    def miss(self, document: Document) -> None:
        """Note a document that is not put because a request hangs."""
        if document.share.retired:  # the refusal of any other has its rollout looked at by itself
            self._missed[document.share.rollout] = document

    def close(self) -> None:
        """Send nothing more: the pod is gone. What is under way is left to end by itself."""
        self._missed.clear()
        for rollout in list(self._waiting):
            self._take(rollout)
            self._end(rollout)

    async def _run(self) -> None:
        while self._waiting:
            try:
                await self._hold()
            except Exception:  # logged; what waits goes out all the same
                log.exception("documents wait for no others")
            if documents := self._next():
                await self._request(documents)

    async def _hold(self) -> None:
        """Wait while others are about to come and there is room, until the oldest has waited for long enough."""
        now = asyncio.get_running_loop().time
        while self._held() and 0 < len(self._waiting) < DOCUMENTS_AT_ONCE:
            left = min(self._since.values()) + HELD_SECONDS - now()
            if left <= 0 or any(document.leaves for document in self._waiting.values()):
                break
            await asyncio.sleep(min(left, LOOK_SECONDS))

    def _next(self) -> list[Document]:
        """Return what goes into the next request; escaped, its bytes are twice as many at most."""
        found, size = list[Document](), 0
        for document in self._waiting.values():
            size += len(document.share.to_bytes())
            if found and (len(found) == DOCUMENTS_AT_ONCE or size > DOCUMENTS_BYTES // 2):
                break
            found.append(document)
        return found

    async def _request(self, documents: list[Document]) -> None:
        self._under_way = {document.share.rollout: document for document in documents}
        for rollout in self._under_way:
            self._take(rollout)
        call = asyncio.ensure_future(self._send(documents, self._came))
        why = "the request told nothing of it"
        try:
            await asyncio.wait({call}, timeout=SENDING_SECONDS)
            if not call.done():
                self._give_up()
            await call
        except Exception as error:  # logged; the next request goes out all the same
            log.exception("documents could not be sent", extra=keys(pod=documents[0].pod))
            why = f"{type(error).__name__}: {error}"
        finally:
            self.hangs = False
        for document in documents:
            self._came(document, Refusal("Unreachable", why))
        missed, self._missed = self._missed, {}
        for document in missed.values():
            self._tell(document, self._again)

    def _give_up(self) -> None:
        """Have everything that is not answered decided on anew."""
        self.hangs = True
        for document in self._waiting.values():
            self.miss(document)
        late = [*self._under_way.values(), *self._waiting.values()]
        self._waiting.clear()
        self._since.clear()
        for document in late:
            self._tell(document, self._late)
            self._end(document.share.rollout)

    def _came(self, document: Document, result: Result | None) -> None:
        """Take what came of a document that is under way; only the first word counts."""
        rollout = document.share.rollout
        if self._under_way.get(rollout) is not document:
            return
        del self._under_way[rollout]
        self._end(rollout)
        if result is not None:
            self._tell(document, lambda each: self._answered(each, result))

    def _tell(self, document: Document, told: Callable[[Document], None]) -> None:
        try:
            told(document)
        except Exception:  # logged; what is wrong about one document keeps no other from its pod
            log.exception("what came of a document was not taken in", extra=keys(pod=document.pod))

    def _take(self, rollout: str) -> None:
        del self._waiting[rollout], self._since[rollout]

    def _end(self, rollout: str) -> None:
        if (ended := self._ended.pop(rollout, None)) is not None:
            ended.set()


def _now() -> asyncio.Event:
    ended = asyncio.Event()
    ended.set()
    return ended
