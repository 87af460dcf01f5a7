"""The agent's HTTP interface: shares in, truth out, probes and metrics.

    PUT    /v1/rollouts            some shares; 200 with what came of each: what is true of it now, or why it is refused
    PUT    /v1/rollouts/<name>     one share; 200 with what is true of it now; 4xx with reason and message
    DELETE /v1/rollouts/<name>     a share that is `retired`, so that a deletion too has its sequence
    GET    /v1/rollouts[/<name>]   what is true; with ?after=<version>&waitSeconds=<n> at the next change, or after n s
    GET    /healthz /readyz /metrics

The first four need `Authorization: Bearer <token>` (see `documents`). `readyz` is the sidecar's startup probe: true
once guard, token and table lie on the volume; it never depends on the engine, which starts only after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..contract import (
    DOCUMENT_BYTES,
    DOCUMENTS_BYTES,
    DocumentAnswer,
    DocumentsAnswer,
    RefusalAnswer,
    Share,
    ShareAnswer,
)
from ..documents import Refused, Verifier, read_documents, read_share
from ..engine.table import SharedVolume
from ..metrics import DOCUMENTS
from ..rounds.agent import Agent

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
STUCK_SECONDS = 120.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Routes of one agent."""

    def __init__(
        self,
        agent: Agent,
        verifier: Verifier,
        volume: SharedVolume,
        pod_uid: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent = agent
        self._verifier = verifier
        self._volume = volume
        self._pod_uid = pod_uid
        self._clock = clock
        self._stopping = asyncio.Event()

    def application(self) -> web.Application:
        """Return the application; the caller serves it."""
        application = web.Application(middlewares=[named_refusals], client_max_size=DOCUMENTS_BYTES)
        application.add_routes(
            [
                web.put("/v1/rollouts", self._put_all),
                web.put("/v1/rollouts/{name}", self._put),
                web.delete("/v1/rollouts/{name}", self._put),
                web.get("/v1/rollouts", self._truth),
                web.get("/v1/rollouts/{name}", self._truth_of),
                web.get("/healthz", self._live),
                web.get("/readyz", self._ready),
                web.get("/metrics", metrics_page),
            ]
        )
        return application

    def stop_waiting(self) -> None:
        """End the answers that wait for a change, so that a drain does not."""
        self._stopping.set()

    async def _put(self, request: web.Request) -> web.Response:
        body = await self._body_of(request)
        share = read_share(body)
        if share.rollout != request.match_info["name"]:
            raise Refused(400, "DocumentInvalid", f"the share is of rollout {share.rollout}")
        if share.retired != (request.method == "DELETE"):
            raise Refused(400, "DocumentInvalid", "DELETE takes a retired share, PUT any other")
        return self._of_share(self._take(share))

    async def _put_all(self, request: web.Request) -> web.Response:
        answers = []
        for document in read_documents(await self._body_of(request, DOCUMENTS_BYTES)):
            answers.append(self._answer_to(document))
            await asyncio.sleep(0)  # each is some writes to disk: probes, loads and other calls come between
        answer = DocumentsAnswer(answers=tuple(answers))
        return web.Response(text=answer.to_text(), content_type="application/json")

    def _answer_to(self, document: bytes) -> DocumentAnswer:
        try:
            return DocumentAnswer(share=self._take(read_share(document)))
        except Refused as error:
            refused = error
        except Exception as error:  # counted, logged and told: the others of the request are taken all the same
            log.exception("document not taken")
            refused = Refused(500, "Internal", f"the agent failed by it: {type(error).__name__}: {error}")
        DOCUMENTS.labels(refused.reason).inc()
        return DocumentAnswer(refused=RefusalAnswer(reason=refused.reason, message=refused.message))

    def _take(self, share: Share) -> ShareAnswer:
        taken = self._agent.accept(share)
        DOCUMENTS.labels("accepted" if taken else "known").inc()
        return self._agent.truth_of(share)

    async def _truth(self, request: web.Request) -> web.Response:
        await self._body_of(request)
        await self._wait(request)
        answer = await self._agent.answer(self._pod_uid, sorted(self._verifier.keys.read()))
        return web.Response(text=answer.to_text(), content_type="application/json")

    async def _truth_of(self, request: web.Request) -> web.Response:
        await self._body_of(request)
        await self._wait(request)
        name = request.match_info["name"]
        for truth in self._agent.truth().rollouts:
            if truth.rollout == name:
                return self._of_share(truth)
        raise Refused(404, "NotFound", f"this pod holds no share of rollout {name}")

    def _of_share(self, truth: ShareAnswer) -> web.Response:
        return web.json_response({"version": self._agent.version, **truth.to_json()})

    async def _body_of(self, request: web.Request, limit: int = DOCUMENT_BYTES) -> bytes:
        """Return the body of a call whose token was checked; the token is looked at before the body means anything.

        Without a token nothing of the body is read, and never more than `limit` bytes.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            if "Content-Encoding" in request.headers:
                request.protocol.force_close()  # otherwise what is left of the body is unpacked, or is a traceback
            raise Refused(401, "TokenMissing", "Authorization: Bearer <token> is missing")
        try:
            body = await request.clone(client_max_size=limit).read()
        except (ConnectionError, web.RequestPayloadError) as error:
            request.protocol.force_close()  # what is left of it cannot be read either
            raise Refused(400, "BodyIncomplete", f"the body did not come whole: {error}") from None
        self._verifier.call(token.strip(), request.method, request.path, body)
        return body

    async def _wait(self, request: web.Request) -> None:
        if "after" not in request.query:
            return
        try:
            after = int(request.query["after"])
            seconds = min(LONGEST_WAIT, max(0.0, float(request.query.get("waitSeconds", "0"))))
        except ValueError:
            raise Refused(400, "QueryInvalid", "after and waitSeconds are numbers") from None
        stop = asyncio.create_task(self._stopping.wait())
        change = asyncio.create_task(self._agent.wait_for_change(after, seconds))
        try:
            await asyncio.wait({stop, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, change):
                task.cancel()

    async def _live(self, _: web.Request) -> web.Response:
        last = self._agent.last_round
        alive = last is None or self._clock() - last < STUCK_SECONDS
        return web.Response(status=200 if alive else 503, text=f"[{'+' if alive else '-'}]rounds\n")

    async def _ready(self, _: web.Request) -> web.Response:
        ready = self._volume.in_place() and not self._stopping.is_set()
        return web.Response(status=200 if ready else 503, text=f"[{'+' if ready else '-'}]volume\n")


async def metrics_page(_: web.Request) -> web.Response:
    """Answer `/metrics`."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@web.middleware
async def named_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a refusal with its status, its reason in one word, and what to do."""
    try:
        return await handler(request)
    except Refused as error:
        DOCUMENTS.labels(error.reason).inc()
        return refusal(error.status, error.reason, error.message)
    except web.HTTPRequestEntityTooLarge:
        DOCUMENTS.labels("TooLarge").inc()
        return refusal(
            413, "TooLarge", f"a share has at most {DOCUMENT_BYTES} bytes, a request with several {DOCUMENTS_BYTES}"
        )


def refusal(status: int, reason: str, message: str) -> web.Response:
    """Return an answer that says why nothing was changed."""
    return web.json_response(RefusalAnswer(reason=reason, message=message).to_json(), status=status)
