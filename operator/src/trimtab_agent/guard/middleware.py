"""The ASGI class itself: each request's way through the guard."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from .application import ask, base_names, has_the_key, limits, with_aliases
from .asgi import App, Message, NotPassedOn, Receive, Scope, Send, answer, refuse, with_length
from .bodies import MAX_BODY_BYTES, MAX_HELD_BYTES, Held, Room, read_body
from .counting import BOUNDS, Counts, Passing
from .files import FOLDER, TABLE, TOKEN, Table, Watched, parse_token
from .finding import as_utf8, find_model
from .paths import ASKED_BY_MODEL, TOKEN_HEADER, is_open, leaves_the_folder, without_token
from .renaming import Renaming

REVISION_HEADER = b"x-trimtab-revision"


class Guard:
    """Pure ASGI middleware around the engine's application."""

    def __init__(
        self,
        app: App,
        folder: str | None = None,
        max_body_bytes: int | None = None,
        *,
        max_held_bytes: int | None = None,
        dice: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        root = Path(folder or os.environ.get("TRIMTAB_SHARED", FOLDER))
        self.app = app
        self.instance = uuid.uuid4().hex
        self.started = time.time()
        self.max_body_bytes = max_body_bytes or int(os.environ.get("TRIMTAB_MAX_BODY_BYTES", MAX_BODY_BYTES))
        self._room = Room(max_held_bytes or int(os.environ.get("TRIMTAB_MAX_HELD_BYTES", MAX_HELD_BYTES)))
        self._tells_alias = os.environ.get("TRIMTAB_ANSWER_MODEL", "alias") != "revision"
        self._table: Watched[Table] = Watched(root / TABLE, Table)
        self._token: Watched[bytes] = Watched(root / TOKEN, parse_token)
        self._dice = dice or random.Random()
        self._clock = clock
        self._counts = Counts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":  # lifespan
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        method = scope["method"]
        trusted = self._trusted(scope)
        if path.startswith("/-/trimtab/"):
            await self._own(path, method, trusted, scope, send)
        elif trusted:
            await self.app(without_token(scope), receive, send)
        elif method == "POST" and path in ASKED_BY_MODEL:
            await self._infer(scope, receive, send)
        elif method == "GET" and path == "/v1/models":
            await self._models(scope, receive, send)
        elif is_open(method, path):
            await self.app(scope, receive, send)
        else:
            await refuse(send, 403, "Forbidden", f"{method} {path} is not open to clients of this server")

    def _trusted(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == TOKEN_HEADER]
        token = self._token.value()
        return token is not None and len(given) == 1 and hmac.compare_digest(given[0], token)

    # Inference

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, point its `model` at a revision, and pass everything else on as it came."""
        held = Held(self._room)
        try:
            if not has_the_key(scope):  # by the header alone, as the engine does: nothing was read yet
                await answer(send, 401, {"error": "Unauthorized"}, [(b"connection", b"close")])
                return
            body = await read_body(scope, receive, held, most=self.max_body_bytes, clock=self._clock)
            if body is not None:
                await self._forward(body, scope, receive, send)
        except NotPassedOn as refused:
            await refuse(
                send,
                refused.status,
                refused.reason,
                refused.message,
                retry_after=refused.retry_after,
                close=held.reading,
            )
        finally:
            held.release()

    async def _forward(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        read = as_utf8(body)
        search, model = find_model(read), None
        while True:
            try:
                next(search)
            except StopIteration as ended:
                model = ended.value
                break
            await asyncio.sleep(0)
        table, name = self._table.value(), None
        if model is not None:
            body, name = read, self._revision(model.name, table, scope)
            if name != model.name:
                body = b"".join((read[: model.start], json.dumps(name).encode(), read[model.end :]))
            scope = {**scope, "headers": with_length(scope["headers"], len(body))}
        del read
        parts = [body]
        del body

        async def receive_again() -> Message:
            if not parts:
                return await receive()  # disconnects
            return {"type": "http.request", "body": parts.pop(), "more_body": False}

        if name is None or model is None:
            await self.app(scope, receive_again, send)
            return
        counted = self._counts.of(name, known=table is not None and (name != model.name or name in table.targets()))
        if counted is None:
            await self.app(scope, receive_again, send)
            return
        passing = Passing(name, counted, name != model.name, self._clock)
        renaming = Renaming(name, model.name) if name != model.name and self._tells_alias else None
        await self._measure(passing, renaming, scope, receive_again, send)

    def _revision(self, model: str, table: Table | None, scope: Scope) -> str:
        """Return the revision that answers for a model; a name that is no alias is its own.

        Raises:
            NotPassedOn: it may not be asked for, or cannot answer now.
        """
        if leaves_the_folder(model) and model not in base_names(scope):
            # Engines with a resolver join this to a path: `../x` would load what lies elsewhere.
            raise NotPassedOn(404, "NotFoundError", "The model does not exist: its name is a path.")
        entry = table.aliases.get(model) if table else None
        if entry is None:
            return model
        if not entry.names:
            raise NotPassedOn(503, "ServiceUnavailable", f"{model} cannot answer now: {entry.word}", retry_after=2)
        return entry.choose(self._dice)

    async def _measure(
        self, passing: Passing, renaming: Renaming | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async def watched() -> Message:
            message = await receive()
            passing.received(message)
            return message

        async def measured(message: Message) -> None:
            passing.answered(message)
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [*message.get("headers", []), (REVISION_HEADER, passing.name.encode())],
                }
            for each in renaming.passes(message) if renaming is not None else (message,):
                await send(each)

        try:
            await self.app(scope, watched, measured)
        finally:
            passing.ends()

    # What it answers itself

    async def _own(self, path: str, method: str, trusted: bool, scope: Scope, send: Send) -> None:
        if method not in ("GET", "HEAD"):
            await refuse(send, 405, "MethodNotAllowed", f"{method} is not for {path}")
        elif path == "/-/trimtab/live":
            reason = self._harm(trusted)
            await answer(send, 200 if reason is None else 503, {"live": reason is None, "reason": reason})
        elif path == "/-/trimtab/ready":
            reason = await self._not_ready(scope, trusted)
            await answer(send, 200 if reason is None else 503, {"ready": reason is None, "reason": reason})
        elif not trusted:
            await refuse(send, 403, "Forbidden", f"{path} needs the header {TOKEN_HEADER.decode()}")
        elif path == "/-/trimtab/counts":
            counts = self._counts.to_json()
            document = {"instance": self.instance, "started": self.started, "bounds": BOUNDS, "revisions": counts}
            await answer(send, 200, document)
        elif path == "/-/trimtab/limits":
            await answer(send, 200, {"instance": self.instance, "started": self.started, **limits(scope)})
        else:
            await refuse(send, 404, "NotFoundError", f"there is no {path}")

    def _harm(self, trusted: bool) -> str | None:
        table = self._table.value()
        if table is None or table.harmed_instance != self.instance:
            return None
        return table.harmed_reason if trusted else "EngineHarmed"

    async def _not_ready(self, scope: Scope, trusted: bool) -> str | None:
        """Return why this pod should get no requests, or None; to a stranger without the agent's own words."""
        table = self._table.value()
        if table is None:
            return "the agent has written no table of aliases yet"
        harm = self._harm(trusted)
        if harm is not None:
            return harm
        for alias, entry in sorted(table.aliases.items()):
            if entry.pending is not None:
                return f"{alias}: {entry.pending if trusted else entry.word}"
        if await ask(self.app, "/health", scope) is None:
            return "the engine's /health does not answer 200"
        wanted = table.targets()
        if not wanted:
            return None
        data = await ask(self.app, "/v1/models", scope)
        try:
            listed = {item["id"] for item in json.loads(data or b"{}")["data"]}
        except (ValueError, TypeError, KeyError):
            return "the engine does not say which models it serves"
        missing = sorted(wanted - listed)
        return f"the engine has not loaded {', '.join(missing)}" if missing else None

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /v1/models` with the aliases that answer now, each with its revision as `root`."""
        start: Message | None = None
        parts: list[bytes] = []

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self.app(scope, receive, collect)
        if start is None:
            raise RuntimeError("the engine ended its answer before it began")
        body = b"".join(parts)
        table = self._table.value()
        if start["status"] == 200 and table is not None:
            body = with_aliases(body, table)
            start = {**start, "headers": with_length(start.get("headers", []), len(body))}
        await send(start)
        await send({"type": "http.response.body", "body": body})
