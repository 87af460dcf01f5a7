"""What is to be sent to one pod: a request at a time, with everything in it that waits when it begins.

A pod is served by many rollouts, and a request costs both sides more than what is in it. So while rounds about others
of its namespace are about to come, documents wait a moment for theirs. Nothing waits behind a request that hangs: such
documents were decided on when the pod still answered, so their rollouts are decided on again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from trimtab_agent.contract import DOCUMENTS_AT_ONCE, DOCUMENTS_BYTES, Share

from ...domain.adapterrollout.observed import Refusal, ShareTruth
from ...domain.plan import Document

SENDING_SECONDS = 1.0
"""How long the answer to a request is waited for: a pod that hangs must not hold up the next wave."""
LOOKS, LOOK_SECONDS = 20, 0.1
"""How often it is looked whether others are about to come, at most, and how long documents wait between."""
Result = ShareTruth | Refusal


class Outbox:
    """Of one pod.

    Args:
        send: send documents, at most as many as may be in a request; what came of each, in their order.
        answered: told of each document and what came of it.
        late: told of each document that is given up for now.
        held: whether others are about to come.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Document]], Awaitable[Sequence[Result]]],
        answered: Callable[[Document, Result], None],
        late: Callable[[Document], None],
        held: Callable[[], bool],
    ) -> None:
        self._send = send
        self._answered = answered
        self._late = late
        self._held = held
        self._waiting: dict[str, Document] = {}
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
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._run(), name=f"documents for {document.pod}")
        return self._ended.setdefault(name, asyncio.Event())

    def withdraw(self, rollout: str) -> None:
        """Send no document that is not wanted any more and still waits; one by which it is gone is wanted for good."""
        found = self._waiting.get(rollout)
        if found is not None and not found.share.retired:
            del self._waiting[rollout]
            self._end(rollout)

    def close(self) -> None:
        """Send nothing more: the pod is gone. What is under way is left to end by itself."""
        for rollout in list(self._waiting):
            del self._waiting[rollout]
            self._end(rollout)

    async def _run(self) -> None:
        while self._waiting:
            for _ in range(LOOKS):
                if not self._held() or len(self._waiting) >= DOCUMENTS_AT_ONCE:
                    break
                await asyncio.sleep(LOOK_SECONDS)
            if documents := self._next():
                await self._request(documents)

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
            del self._waiting[rollout]
        call = asyncio.ensure_future(self._send(documents))
        try:
            await asyncio.wait({call}, timeout=SENDING_SECONDS)
            if not call.done():
                self.hangs = True
                for document in (*documents, *self._waiting.values()):
                    self._late(document)
                    self._end(document.share.rollout)
                self._waiting.clear()
            results = await call
        finally:
            self.hangs, self._under_way = False, {}
            for document in documents:
                self._end(document.share.rollout)
        for document, result in zip(documents, results, strict=True):
            self._answered(document, result)

    def _end(self, rollout: str) -> None:
        if (ended := self._ended.pop(rollout, None)) is not None:
            ended.set()


def _now() -> asyncio.Event:
    ended = asyncio.Event()
    ended.set()
    return ended
