"""The guard: an ASGI class in the engine's own process. vLLM loads it with `--middleware trimtab_guard.Guard`.

The agent copies this one file to the volume that both containers share, so it uses the standard library alone. It

- turns the alias in a request's `model` into the name of a revision, by the table that the agent replaces atomically,
- answers inference paths only; whatever else the engine offers needs the token that the agent wrote to the volume,
- counts requests, errors and latency of each revision, for the analysis of a canary,
- adds the aliases to `GET /v1/models`, says the engine's real limits, and is the container's readiness and liveness.

Own paths: `/-/trimtab/ready` and `/-/trimtab/live` (open, for the kubelet), `/-/trimtab/counts` and
`/-/trimtab/limits` (token). A request that carries the token is the agent's: it is not rewritten, not counted, and sees
the engine as it is.

The table, `aliases.json`: `{"version": 1, "aliases": {alias: ENTRY}, "harmed": {"instance": id, "reason": text}}`.
ENTRY is `{"to": {revision: weight}}`, `{"pending": reason}` (503, and the pod is not ready) or `{"unavailable":
reason}` (503, and the pod is ready for the rest). `harmed` fails the liveness of the engine process with that id only.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import random
import re
import time
import uuid
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

FOLDER = "/run/trimtab"
TABLE, TOKEN = "aliases.json", "token"
TOKEN_HEADER = b"x-trimtab-token"
REVISION_HEADER = b"x-trimtab-revision"
MAX_BODY_BYTES = 32 * 1024 * 1024

ASKED_BY_MODEL = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/rerank",
        "/v1/responses",
        "/v1/score",
        "/v2/rerank",
        "/classify",
        "/detokenize",
        "/pooling",
        "/rerank",
        "/score",
        "/tokenize",
    }
)
"""POST with a JSON body that names a model: open, and rewritten."""

READ = frozenset({"/health", "/load", "/metrics", "/ping", "/v1/models", "/version"})
"""GET and HEAD without a token: what kubelets, scrapers and clients ask for."""

NAMES_KEPT = 64
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the latency histograms, seconds; one more bucket holds the rest."""
SHORTEST = 1e-6
"""Seconds; no answer is faster, and the logarithm of nothing is none."""
ERROR_BYTES = 4096
"""As much of an error as is looked at."""
TOKENS = re.compile(rb'"(?:completion|output)_tokens" ?: ?(\d{1,9})')
"""How many tokens an answer in one piece has. Within a string its quotes would be escaped, so no text looks like it."""


class Watched(Generic[T]):
    """A small file's parsed content, read again when another file took its place; the last good content stays."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._stamp: tuple[int, int, int] | None = None
        self._value: T | None = None

    def value(self) -> T | None:
        """Return the newest good content, or None if there has never been any."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                self._value = self._parse(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # missing or torn: the last good one stays, and it is looked at again with the next request
        return self._value


class Entry:
    """What an alias stands for: revisions by weight, or the reason why it answers 503."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.pending: str | None = _text(document.get("pending"))
        self.unavailable: str | None = _text(document.get("unavailable"))
        weights = document.get("to", {})
        self.names: tuple[str, ...] = tuple(str(name) for name, weight in weights.items() if weight > 0)
        self.weights: tuple[float, ...] = tuple(float(weights[name]) for name in self.names)
        if bool(self.names) + (self.pending is not None) + (self.unavailable is not None) != 1:
            raise ValueError("an alias has revisions, or is pending, or is unavailable")

    def choose(self, dice: random.Random) -> str:
        """Return one revision, drawn by weight."""
        return self.names[0] if len(self.names) == 1 else dice.choices(self.names, self.weights)[0]


class Table:
    """`aliases.json` as parsed.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not what the agent writes.
    """

    def __init__(self, data: bytes) -> None:
        document = json.loads(data)
        if document["version"] != 1:
            raise ValueError("a table of another version")
        self.aliases = {str(alias): Entry(entry) for alias, entry in document["aliases"].items()}
        harmed = document.get("harmed") or {}
        self.harmed_instance: str | None = harmed.get("instance")
        self.harmed_reason: str = str(harmed.get("reason", ""))

    def targets(self) -> set[str]:
        """Return every revision that an alias points at."""
        return {name for entry in self.aliases.values() for name in entry.names}


class Sums:
    """Durations as sums of natural logarithms of seconds: enough for a mean and a variance, however many there were."""

    def __init__(self) -> None:
        self.n, self.total, self.squares = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        logarithm = math.log(max(seconds, SHORTEST))
        self.n += 1
        self.total += logarithm
        self.squares += logarithm * logarithm

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, "sum": self.total, "squares": self.squares}


class Ended:
    """How requests ended: each that began is one of answers, errors, rejected and disconnected, or runs."""

    def __init__(self) -> None:
        self.requests = self.answers = self.errors = self.rejected = self.disconnected = self.running = 0

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Count:
    """Requests of one revision since the engine started; times in seconds.

    `every` counts all of them. `by_alias` are those that the guard itself sent to this revision: a fair sample of what
    clients ask, which alone can be compared with another revision's. Of them, the logarithms of: `first`, from the
    request to the first byte of a stream, or to an answer in one piece that has no tokens; `chunk`, from one event of a
    stream to the next; `token` and `whole`, answers in one piece, by the tokens written and to the end.
    """

    def __init__(self) -> None:
        self.every, self.by_alias = Ended(), Ended()
        self.first, self.chunk, self.token, self.whole = Sums(), Sums(), Sums(), Sums()
        self.total_sum = self.first_sum = 0.0
        self.total_buckets = [0] * (len(BOUNDS) + 1)
        self.first_buckets = [0] * (len(BOUNDS) + 1)

    def begins(self, by_alias: bool) -> None:
        for ended in self._of(by_alias):
            ended.requests += 1
            ended.running += 1

    def ends(self, outcome: str, by_alias: bool) -> None:
        for ended in self._of(by_alias):
            ended.running -= 1
            setattr(ended, outcome, getattr(ended, outcome) + 1)

    def _of(self, by_alias: bool) -> tuple[Ended, ...]:
        return (self.every, self.by_alias) if by_alias else (self.every,)

    def to_json(self) -> dict[str, Any]:
        """Return the counts. Beside `byAlias` all requests: `first` to the first byte, `total` to the end."""
        sums = {name: getattr(self, name).to_json() for name in ("first", "chunk", "token", "whole")}
        return {
            **self.every.to_json(),
            "total": {"sum": self.total_sum, "buckets": self.total_buckets},
            "first": {"sum": self.first_sum, "buckets": self.first_buckets},
            "byAlias": {**self.by_alias.to_json(), **sums},
        }


class Passing:
    """One request on its way through the engine: what became of it, and when the parts of its answer came."""

    def __init__(self, name: str, count: Count, by_alias: bool, clock: Callable[[], float]) -> None:
        self.name = name
        self._count, self._by_alias, self._clock = count, by_alias, clock
        self._start = self._first = self._last = clock()
        self._status = self._bytes = self._events = self._tokens = 0
        self._streams = self._complete = self._left = False
        self._error = b""
        count.begins(by_alias)

    def received(self, message: Message) -> None:
        """See what the client sends after its body."""
        self._left = self._left or message["type"] == "http.disconnect"

    def answered(self, message: Message) -> None:
        """See a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            kind = next((value for key, value in message.get("headers", []) if key.lower() == b"content-type"), b"")
            self._streams = kind.startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            if part := message.get("body", b""):
                self._part(part)
            self._complete = self._complete or not message.get("more_body", False)

    def _part(self, part: bytes) -> None:
        self._last = self._clock()
        if not self._bytes:
            self._first = self._last
            self._count.first_sum += self._first - self._start
            _observe(self._count.first_buckets, self._first - self._start)
        self._bytes += len(part)
        if self._streams:
            self._events += part.count(b"data:")
        elif self._status == 404:
            self._error = (self._error + part)[:ERROR_BYTES]
        elif found := TOKENS.search(part):
            self._tokens = int(found[1])

    def ends(self) -> None:
        """Count it."""
        outcome = self._outcome()
        self._count.ends(outcome, self._by_alias)
        if outcome != "answers":
            return
        took = self._clock() - self._start
        self._count.total_sum += took
        _observe(self._count.total_buckets, took)
        if not self._by_alias:
            return
        if self._tokens:
            self._count.token.add((self._last - self._start) / self._tokens)
            self._count.whole.add(self._last - self._start)
        elif self._bytes:
            self._count.first.add(self._first - self._start)
        if self._events > 1:
            self._count.chunk.add((self._last - self._first) / (self._events - 1))

    def _outcome(self) -> str:
        if self._status >= 500 or (not self._complete and not self._left):
            return "errors"
        if not self._complete or not self._status:
            return "disconnected"
        if self._status == 404 and _lacks_the_model(self._error, self.name):
            return "errors"  # the table and the engine disagree
        return "rejected" if self._status >= 400 else "answers"


class Guard:
    """Pure ASGI middleware around the engine's application."""

    def __init__(
        self,
        app: App,
        folder: str | None = None,
        max_body_bytes: int | None = None,
        dice: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        root = Path(folder or os.environ.get("TRIMTAB_SHARED", FOLDER))
        self.app = app
        self.instance = uuid.uuid4().hex
        self.started = time.time()
        self.max_body_bytes = max_body_bytes or int(os.environ.get("TRIMTAB_MAX_BODY_BYTES", MAX_BODY_BYTES))
        self._table: Watched[Table] = Watched(root / TABLE, Table)
        self._token: Watched[bytes] = Watched(root / TOKEN, _token)
        self._dice = dice or random.Random()
        self._clock = clock
        self._counts: dict[str, Count] = {}

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
            await self.app(_without_token(scope), receive, send)
        elif method == "POST" and path in ASKED_BY_MODEL:
            await self._infer(scope, receive, send)
        elif method == "GET" and path == "/v1/models":
            await self._models(scope, receive, send)
        elif _open(method, path):
            await self.app(scope, receive, send)
        else:
            await _refuse(send, 403, "Forbidden", f"{method} {path} is not open to clients of this server")

    def _trusted(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == TOKEN_HEADER]
        token = self._token.value()
        return token is not None and len(given) == 1 and hmac.compare_digest(given[0], token)

    # Inference

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, point its `model` at a revision, and pass everything else on as it came."""
        try:
            body = await self._body(scope, receive)
        except _TooLarge:
            limit = f"the body is larger than {self.max_body_bytes} bytes"
            await _refuse(send, 413, "RequestTooLarge", limit, close=True)
            return
        if body is None:
            return  # the client went away
        document, model = _model_of(body)
        table = self._table.value()
        name = model
        if model is not None:
            if _leaves_the_folder(model) and model not in _base_names(scope):
                # Engines with a resolver join this to a path: `../x` would load what lies elsewhere.
                await _refuse(send, 404, "NotFoundError", "The model does not exist: its name is a path.")
                return
            entry = table.aliases.get(model) if table else None
            if entry is not None and not entry.names:
                why = entry.pending or entry.unavailable
                await _refuse(send, 503, "ServiceUnavailable", f"{model} cannot answer now: {why}", retry_after=2)
                return
            if entry is not None:
                name = entry.choose(self._dice)
                document["model"] = name
                body = json.dumps(document, separators=(",", ":")).encode()
                scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        sent = False

        async def receive_again() -> Message:
            nonlocal sent
            if sent:
                return await receive()  # disconnects
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        counted = self._counted(name, model, table)
        if counted is None:
            await self.app(scope, receive_again, send)
        else:
            passing = Passing(name or "", counted, name != model, self._clock)
            await self._measure(passing, scope, receive_again, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self.max_body_bytes:
            raise _TooLarge
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > self.max_body_bytes:
                raise _TooLarge
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    # Counting

    def _counted(self, name: str | None, model: str | None, table: Table | None) -> Count | None:
        """Return where a request counts; only names that the table knows do, so clients cannot make more of them."""
        if name is None or table is None or (name == model and name not in table.targets()):
            return self._counts.get(name) if name in self._counts else None
        if name not in self._counts:
            if len(self._counts) >= NAMES_KEPT:
                idle = next((old for old, count in self._counts.items() if not count.every.running), None)
                if idle is not None:
                    del self._counts[idle]
            self._counts[name] = Count()
        return self._counts[name]

    async def _measure(self, passing: Passing, scope: Scope, receive: Receive, send: Send) -> None:
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
            await send(message)

        try:
            await self.app(scope, watched, measured)
        finally:
            passing.ends()

    # What it answers itself

    async def _own(self, path: str, method: str, trusted: bool, scope: Scope, send: Send) -> None:
        if method not in ("GET", "HEAD"):
            await _refuse(send, 405, "MethodNotAllowed", f"{method} is not for {path}")
        elif path == "/-/trimtab/live":
            reason = self._harm()
            await _answer(send, 200 if reason is None else 503, {"live": reason is None, "reason": reason})
        elif path == "/-/trimtab/ready":
            reason = await self._not_ready(scope)
            await _answer(send, 200 if reason is None else 503, {"ready": reason is None, "reason": reason})
        elif not trusted:
            await _refuse(send, 403, "Forbidden", f"{path} needs the header {TOKEN_HEADER.decode()}")
        elif path == "/-/trimtab/counts":
            counts = {name: count.to_json() for name, count in self._counts.items()}
            document = {"instance": self.instance, "started": self.started, "bounds": BOUNDS, "revisions": counts}
            await _answer(send, 200, document)
        elif path == "/-/trimtab/limits":
            await _answer(send, 200, {"instance": self.instance, "started": self.started, **_limits(scope)})
        else:
            await _refuse(send, 404, "NotFoundError", f"there is no {path}")

    def _harm(self) -> str | None:
        table = self._table.value()
        return table.harmed_reason if table is not None and table.harmed_instance == self.instance else None

    async def _not_ready(self, scope: Scope) -> str | None:
        """Return why this pod should get no requests, or None."""
        table = self._table.value()
        if table is None:
            return "the agent has written no table of aliases yet"
        harm = self._harm()
        if harm is not None:
            return harm
        for alias, entry in sorted(table.aliases.items()):
            if entry.pending is not None:
                return f"{alias}: {entry.pending}"
        if await self._ask("/health", scope) is None:
            return "the engine's /health does not answer 200"
        wanted = table.targets()
        if not wanted:
            return None
        data = await self._ask("/v1/models", scope)
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
            body = _with_aliases(body, table)
            start = {**start, "headers": _with_length(start.get("headers", []), len(body))}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def _ask(self, path: str, scope: Scope) -> bytes | None:
        """GET a path of the engine without leaving the process; None unless it answers 200."""
        headers: Headers = [(b"host", b"localhost")]
        if key := _api_key(scope):
            headers.append((b"authorization", b"Bearer " + key.encode()))
        inner = {
            "type": "http",
            "asgi": scope.get("asgi", {"version": "3.0"}),
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": scope.get("server"),
            "state": scope.get("state", {}),
        }
        if "app" in scope:
            inner["app"] = scope["app"]
        status, parts, asked = 0, [], False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            await self.app(inner, receive, send)
        except Exception:  # an engine that fails to answer is not ready, whatever it raised
            return None
        return b"".join(parts) if status == 200 else None


class _TooLarge(Exception):
    pass


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _token(data: bytes) -> bytes:
    token = data.strip()
    if len(token) < 32:
        raise ValueError("a token of 32 characters or more was expected")
    return token


def _open(method: str, path: str) -> bool:
    """Tell whether a path needs no token and no rewriting; compared as a whole, so `//v1/x` or `/v1/x/` is not it."""
    if method in ("GET", "HEAD") and path in READ:
        return True
    if method == "OPTIONS" and (path in ASKED_BY_MODEL or path in READ):
        return True
    parts = path.split("/")  # a stored response of the Responses API: it names no model
    if parts[:3] != ["", "v1", "responses"] or "" in parts[3:] or ".." in parts:
        return False
    return (method in ("GET", "DELETE") and len(parts) == 4) or (
        method == "POST" and len(parts) == 5 and parts[4] == "cancel"
    )


def _without_token(scope: Scope) -> Scope:
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != TOKEN_HEADER]}


def _model_of(body: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the parsed body and its model; (empty, None) where it is no JSON object that names one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}, None
    model = document.get("model") if isinstance(document, dict) else None
    return (document, model) if isinstance(model, str) else ({}, None)


def _lacks_the_model(error: bytes, name: str) -> bool:
    """Tell whether a 404 says that the engine has not this model; other 404 are about what the client asked for.

    The sentence begins so in every version of vLLM, and no client can make another error begin with it.
    """
    try:
        document = json.loads(error)
        told = document.get("error", document)["message"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    return isinstance(told, str) and told.startswith(f"The model `{name}` does not exist")


def _leaves_the_folder(name: str) -> bool:
    return name.startswith("/") or ".." in name.replace("\\", "/").split("/") or "\0" in name


def _with_length(headers: Iterable[tuple[bytes, bytes]], length: int) -> Headers:
    changed = [(key, value) for key, value in headers if key.lower() not in (b"content-length", b"transfer-encoding")]
    return [*changed, (b"content-length", str(length).encode())]


def _with_aliases(body: bytes, table: Table) -> bytes:
    try:
        document = json.loads(body)
        known = {item["id"]: item for item in document["data"]}
        for alias, entry in sorted(table.aliases.items()):
            if entry.names and alias not in known:
                heaviest = max(zip(entry.weights, entry.names, strict=True))[1]
                parent = known.get(heaviest, {}).get("parent")
                created = known.get(heaviest, {}).get("created", 0)
                document["data"].append(
                    {
                        "id": alias,
                        "object": "model",
                        "created": created,
                        "owned_by": "trimtab",
                        "root": heaviest,
                        "parent": parent,
                    }
                )
        return json.dumps(document).encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return body


def _state(scope: Scope) -> Any:
    return getattr(scope.get("app"), "state", None)


def _api_key(scope: Scope) -> str | None:
    """Return the engine's own key, for questions asked from inside: its argument comes before its variable."""
    keys = getattr(getattr(_state(scope), "args", None), "api_key", None)
    if isinstance(keys, str):
        return keys
    return next((str(key) for key in keys or [] if key), None) or os.environ.get("VLLM_API_KEY")


def _base_names(scope: Scope) -> set[str]:
    """Return the names the base model is served by: without --served-model-name it is the path it was read from."""
    args = getattr(_state(scope), "args", None)
    served = getattr(args, "served_model_name", None) or []
    return {str(name) for name in ([served] if isinstance(served, str) else served)} | {str(getattr(args, "model", ""))}


def _limits(scope: Scope) -> dict[str, Any]:
    """Return what the engine was really started with: its configuration, else its arguments; None where unknown."""
    state = _state(scope)
    configuration = getattr(getattr(state, "vllm_config", None), "lora_config", None)
    args = getattr(state, "args", None)
    found: dict[str, Any] = {}
    for name, key in (("max_loras", "maxLoras"), ("max_lora_rank", "maxLoraRank"), ("max_cpu_loras", "maxCpuLoras")):
        value = getattr(configuration, name, None)
        if value is None:
            value = getattr(args, name, None)
        found[key] = int(value) if value is not None else None
    if found["maxCpuLoras"] is None:
        found["maxCpuLoras"] = found["maxLoras"]
    enabled = getattr(args, "enable_lora", None)
    found["loraEnabled"] = configuration is not None or bool(enabled) if state is not None else None
    return found


def _observe(buckets: list[int], seconds: float) -> None:
    buckets[bisect_left(BOUNDS, seconds)] += 1


async def _refuse(
    send: Send, status: int, kind: str, message: str, *, retry_after: int | None = None, close: bool = False
) -> None:
    """Answer with an error in the shape of the engine's own."""
    extra: Headers = [(b"retry-after", str(retry_after).encode())] if retry_after is not None else []
    if close:  # the rest of the body is not read
        extra.append((b"connection", b"close"))
    error = {"message": message, "type": kind, "param": None, "code": status}
    await _answer(send, status, {"error": error}, extra)


async def _answer(send: Send, status: int, document: object, extra: Headers | None = None) -> None:
    body = json.dumps(document).encode()
    headers: Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *(extra or [])]})
    await send({"type": "http.response.body", "body": body})
