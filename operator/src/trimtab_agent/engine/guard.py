"""The guard: an ASGI class in the engine's own process. vLLM loads it with `--middleware trimtab_guard.Guard`.

The agent copies this one file to the volume that both containers share, so it uses the standard library alone. It

- turns the alias in a request's `model` into the name of a revision, by the table that the agent replaces atomically,
  and back again in the answer; the header `x-trimtab-revision` says who answered,
- answers inference paths only; whatever else the engine offers needs the token that the agent wrote to the volume,
- asks for the engine's own key before it reads a body, and bounds what of bodies is held,
- counts requests, errors and latency of each revision, for the analysis of a canary,
- adds the aliases to `GET /v1/models`, says the engine's real limits, and is the container's readiness and liveness.

Own paths: `/-/trimtab/ready` and `/-/trimtab/live` (open, for the kubelet), `/-/trimtab/counts` and
`/-/trimtab/limits` (token). A request that carries the token is the agent's: it is not rewritten, not counted, and sees
the engine as it is. Whoever has no token is told reasons in one word: what the agent knows of them names buckets.

The table, `aliases.json`: `{"version": 1, "aliases": {alias: ENTRY}, "harmed": {"instance": id, "reason": text}}`.
ENTRY is `{"to": {revision: weight}}`, `{"pending": reason}` (503, and the pod is not ready) or `{"unavailable":
reason}` (503, and the pod is ready for the rest). `harmed` fails the liveness of the engine process with that id only.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import os
import random
import re
import time
import uuid
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

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
MAX_HELD_BYTES = 256 * 1024 * 1024
"""Of the bodies of all requests that run; small ones are let in beside them: large ones do not close the door."""
SMALL_BODY_BYTES = 64 * 1024
BODY_SECONDS = 60.0
"""Within which a body must have come, from its first part on."""

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
OBJECT, COLON = re.compile(rb"[ \t\n\r]*\{"), re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
STRUCTURE = re.compile(rb'[^"\[\]{}]*(["\[\]{}])')
INNER = re.compile(rb'[^"\[\]{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,99}"[^"\[\]{}]*){0,99}(["\[\]{}])', re.DOTALL)
"""Within an inner list or object strings need no look of their own, unless they are many or long. No byte can belong to
two of its parts, so it fails as fast as it matches."""
TEXT = re.compile(rb'(?:[^"\\]+|\\.){1,1000}', re.DOTALL)
STEPS_AT_ONCE, STEPS_ALLOWED = 2_000, 1_000_000
"""Brackets and strings that are passed in search of a body's model: one takes half a microsecond."""
WORD = re.compile(r"(?:^|: )([A-Z][A-Za-z]{2,40})(?=$|[:;])")
"""The reason of a failure, as the agent writes it: `revision: Reason: message`."""
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
        found = WORD.search(self.pending or self.unavailable or "")
        self.word = found[1] if found is not None else "Unavailable" if self.pending is None else "Pending"
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


class NotPassedOn(Exception):
    """A request that reaches no engine: the HTTP status, a reason in one word, and a sentence for its sender."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class Named(NamedTuple):
    """The model that a body names, and where: `body[start:end]` is the JSON string."""

    start: int
    end: int
    name: str


def find_model(body: bytes) -> Generator[None, None, Named | None]:
    """Find the top-level member `model` of a JSON object without building the object; None where there is no such text.

    It yields after every few thousand steps, so that others have their turn. What is no JSON is found out by the
    engine; of what is, this finds what a parser finds. The rest of the body is not gone through if nothing in it can
    name a model again.

    Raises:
        NotPassedOn: there are two of them, and parsers differ in which they take, or too much is around it.
    """
    if OBJECT.match(body) is None:
        return None
    at = depth = steps = 0
    found: Named | None = None
    named = 0
    while (mark := INNER.match(body, at) if depth > 1 else STRUCTURE.match(body, at)) is not None:
        steps += 1
        if steps % STEPS_AT_ONCE == 0:
            yield
        if steps > STEPS_ALLOWED:
            raise NotPassedOn(400, "BodyTooComplex", "too many lists, objects and strings to find its model among them")
        start, at = mark.span(1)
        if mark[1] in b"{[":
            depth += 1
        elif mark[1] in b"}]":
            depth -= 1
            if depth <= 0:
                break
        else:
            at = yield from _after_text(body, at)
            colon = COLON.match(body, at) if depth == 1 else None
            if colon is None or not _says_model(body[start:at]):
                continue
            named += 1
            if named > 1:
                raise NotPassedOn(400, "ModelNamedTwice", "the body names its model twice")
            if body[colon.end() : colon.end() + 1] == b'"':
                at = yield from _after_text(body, colon.end() + 1)
                found = _named(body, colon.end(), at)
            if body.find(b'"model"', at) < 0 and body.find(b"\\u006", at) < 0:  # every escaped letter of it begins so
                break
    return found


def _after_text(body: bytes, at: int) -> Generator[None, None, int]:
    """Return where a string ends that has begun before `at`, its closing quote included."""
    while True:
        part = TEXT.match(body, at)
        if part is not None:
            at = part.end()
        if part is None or body[at : at + 1] == b'"':
            return min(at + 1, len(body))
        yield


def _says_model(key: bytes) -> bool:
    if b"\\" not in key:
        return key == b'"model"'
    try:
        return len(key) < 64 and json.loads(key) == "model"
    except ValueError:
        return False


def _named(body: bytes, start: int, end: int) -> Named | None:
    try:
        name = json.loads(body[start:end])
    except ValueError:
        return None
    return Named(start, end, name) if isinstance(name, str) else None


def _as_utf8(body: bytes) -> bytes:
    """Return a body as UTF-8: engines read the other encodings of JSON too, and must not see more than the guard."""
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeError:
        return body


class Renaming:
    """An answer on its way back in which `model` says what the client asked for, not the revision that it became.

    Within a JSON string quotes are escaped, so the bytes `"model":"name"` are a member and no text, in an object as in
    the events of a stream. A part of an answer may end anywhere: what may be the beginning of such bytes waits for the
    next part; nothing else does.
    """

    def __init__(self, revision: str, alias: str) -> None:
        old, new = json.dumps(revision).encode(), json.dumps(alias).encode()
        self._pairs = [(key + old, key + new) for key in (b'"model":', b'"model": ')]
        self._start: Message | None = None
        self._applies = False
        self._kept = b""

    def passes(self, message: Message) -> Iterable[Message]:
        """Return what to send instead of a message of the engine."""
        if message["type"] == "http.response.start":
            headers = {key.lower(): value for key, value in message.get("headers", [])}
            kind = headers.get(b"content-type", b"")
            renamed = kind.startswith((b"application/json", b"text/event-stream"))
            self._applies = renamed and b"content-encoding" not in headers
            if self._applies and b"content-length" in headers:
                self._start = message  # its length is known with the body
            else:
                yield message
            return
        if message["type"] == "http.response.body" and self._applies:
            last = not message.get("more_body", False)
            message = {**message, "body": self._part(message.get("body", b""), last)}
            if self._start is not None:
                length = len(message["body"]) if last else None
                self._start = {**self._start, "headers": _with_length(self._start["headers"], length)}
        if self._start is not None:
            yield self._start
            self._start = None
        yield message

    def _part(self, data: bytes, last: bool) -> bytes:
        data = self._kept + data
        for old, new in self._pairs:
            data = data.replace(old, new)
        keep = 0 if last else max(_overlap(data, old) for old, _ in self._pairs)
        self._kept = data[len(data) - keep :]
        return data[: len(data) - keep]


def _overlap(data: bytes, text: bytes) -> int:
    """Return how long the end of the data is that is a beginning of the text, but not all of it."""
    at = data.find(text[:1], max(0, len(data) - len(text) + 1))
    while at >= 0:
        if text.startswith(data[at:]):
            return len(data) - at
        at = data.find(text[:1], at + 1)
    return 0


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

    def begins(self) -> None:
        self.requests += 1
        self.running += 1

    def ends(self, outcome: str) -> None:
        self.running -= 1
        setattr(self, outcome, getattr(self, outcome) + 1)

    def to_json(self) -> dict[str, Any]:
        names = ("requests", "answers", "errors", "rejected", "disconnected", "running")
        return {name: getattr(self, name) for name in names}


class Count(Ended):
    """All requests of one revision since the engine started; times in seconds.

    `by_alias` are those that the guard itself sent to this revision: a fair sample of what clients ask, which alone can
    be compared with another revision's. Of them, the logarithms of: `first`, from the request to the first byte of a
    stream, or to an answer in one piece that has no tokens; `chunk`, from one event of a stream to the next; `token`
    and `whole`, answers in one piece, by the tokens written and to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_alias = Ended()
        self.first, self.chunk, self.token, self.whole = Sums(), Sums(), Sums(), Sums()
        self.total_sum = self.first_sum = 0.0
        self.total_buckets = [0] * (len(BOUNDS) + 1)
        self.first_buckets = [0] * (len(BOUNDS) + 1)

    def to_json(self) -> dict[str, Any]:
        """Return the counts. Beside `byAlias` all requests: `first` to the first byte, `total` to the end."""
        sums = {name: getattr(self, name).to_json() for name in ("first", "chunk", "token", "whole")}
        return {
            **super().to_json(),
            "total": {"sum": self.total_sum, "buckets": self.total_buckets},
            "first": {"sum": self.first_sum, "buckets": self.first_buckets},
            "byAlias": {**self.by_alias.to_json(), **sums},
        }


class Passing:
    """One request on its way through the engine: what became of it, and when the parts of its answer came."""

    def __init__(self, name: str, count: Count, by_alias: bool, clock: Callable[[], float]) -> None:
        self.name = name
        self._count, self._by_alias, self._clock = count, by_alias, clock
        self._counted: tuple[Ended, ...] = (count, count.by_alias) if by_alias else (count,)
        self._start = self._first = self._last = clock()
        self._status = self._bytes = self._events = self._tokens = 0
        self._streams = self._complete = self._left = False
        self._error = b""
        for ended in self._counted:
            ended.begins()

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
        for ended in self._counted:
            ended.ends(outcome)
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


class Room:
    """What of requests' bodies may be held at a time, in bytes."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


class Held:
    """What one request holds of it. The engine keeps the body for as long as the request runs, so it counts as long."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.size = 0
        self.reading = True

    def take(self, size: int) -> bool:
        """Take so much more; False if there is no room for it now."""
        if self.size + size > SMALL_BODY_BYTES and self._room.used + size > self._room.most:
            return False
        self.size += size
        self._room.used += size
        return True

    def release(self) -> None:
        self._room.used -= self.size
        self.size = 0


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
        held = Held(self._room)
        try:
            if not _has_the_key(scope):  # by the header alone, as the engine does: nothing was read yet
                await _answer(send, 401, {"error": "Unauthorized"}, [(b"connection", b"close")])
                return
            body = await self._body(scope, receive, held)
            if body is not None:
                await self._forward(body, scope, receive, send)
        except NotPassedOn as refused:
            await _refuse(
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
        read = _as_utf8(body)
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
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        del read
        parts = [body]
        del body

        async def receive_again() -> Message:
            if not parts:
                return await receive()  # disconnects
            return {"type": "http.request", "body": parts.pop(), "more_body": False}

        counted = self._counted(name, model.name if model is not None else None, table)
        if counted is None or name is None or model is None:
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
        if _leaves_the_folder(model) and model not in _base_names(scope):
            # Engines with a resolver join this to a path: `../x` would load what lies elsewhere.
            raise NotPassedOn(404, "NotFoundError", "The model does not exist: its name is a path.")
        entry = table.aliases.get(model) if table else None
        if entry is None:
            return model
        if not entry.names:
            raise NotPassedOn(503, "ServiceUnavailable", f"{model} cannot answer now: {entry.word}", retry_after=2)
        return entry.choose(self._dice)

    async def _body(self, scope: Scope, receive: Receive, held: Held) -> bytes | None:
        """Return the whole body; None if the client left within it.

        Raises:
            NotPassedOn: it is too large, there is no room for it now, or it does not come.
        """
        too_large = NotPassedOn(413, "RequestTooLarge", f"the body is larger than {self.max_body_bytes} bytes")
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self.max_body_bytes):
            raise too_large
        parts: list[bytes] = []
        until: float | None = None
        while True:
            try:
                message = await (receive() if until is None else asyncio.wait_for(receive(), until - self._clock()))
            except TimeoutError:
                raise NotPassedOn(408, "RequestTimeout", f"the body did not come within {BODY_SECONDS:g} s") from None
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            if held.size + len(part) > self.max_body_bytes:
                raise too_large
            if not held.take(len(part)):
                raise NotPassedOn(503, "ServiceUnavailable", "too many large requests at once", retry_after=1)
            parts.append(part)
            if not message.get("more_body", False):
                held.reading = False
                return parts[0] if len(parts) == 1 else b"".join(parts)
            until = until or self._clock() + BODY_SECONDS

    # Counting

    def _counted(self, name: str | None, model: str | None, table: Table | None) -> Count | None:
        """Return where a request counts; only names that the table knows do, so clients cannot make more of them."""
        if name is None or table is None or (name == model and name not in table.targets()):
            return self._counts.get(name) if name in self._counts else None
        if name not in self._counts:
            if len(self._counts) >= NAMES_KEPT:
                idle = next((old for old, count in self._counts.items() if not count.running), None)
                if idle is not None:
                    del self._counts[idle]
            self._counts[name] = Count()
        return self._counts[name]

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
            await _refuse(send, 405, "MethodNotAllowed", f"{method} is not for {path}")
        elif path == "/-/trimtab/live":
            reason = self._harm(trusted)
            await _answer(send, 200 if reason is None else 503, {"live": reason is None, "reason": reason})
        elif path == "/-/trimtab/ready":
            reason = await self._not_ready(scope, trusted)
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
        if keys := _api_keys(scope):
            headers.append((b"authorization", b"Bearer " + keys[0].encode()))
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


def _with_length(headers: Iterable[tuple[bytes, bytes]], length: int | None) -> Headers:
    """Return headers with the length of a body; without one where it is not known beforehand."""
    changed = [(key, value) for key, value in headers if key.lower() not in (b"content-length", b"transfer-encoding")]
    return changed if length is None else [*changed, (b"content-length", str(length).encode())]


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


def _api_keys(scope: Scope) -> list[str]:
    """Return the engine's own keys: its argument comes before its variable."""
    keys = getattr(getattr(_state(scope), "args", None), "api_key", None) or [os.environ.get("VLLM_API_KEY")]
    return [str(key) for key in ([keys] if isinstance(keys, str) else keys) if key]


def _has_the_key(scope: Scope) -> bool:
    """Tell whether a request may be let in: by one of the engine's keys, if it has any, and as the engine compares."""
    keys = _api_keys(scope)
    if not keys:
        return True
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, key = given.partition(b" ")
    same = [hmac.compare_digest(key, each.encode()) for each in keys]
    return scheme.lower() == b"bearer" and any(same)


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
