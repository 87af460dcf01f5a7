"""What the guard reads of requests and writes into answers: it sees what the engine's parser sees, and holds little."""

from __future__ import annotations

import asyncio
import json
import random
import time
import tracemalloc
from collections.abc import MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trimtab_agent.guard import Guard, bodies, finding
from trimtab_agent.guard.asgi import NotPassedOn
from trimtab_agent.guard.finding import find_model
from trimtab_agent.guard.renaming import Renaming

Message = MutableMapping[str, Any]
OLD = "guide@aaaaaaaa"


def model_of(body: bytes) -> str | None:
    """Return what the guard takes for the model of a body."""
    search = find_model(body)
    while True:
        try:
            next(search)
        except StopIteration as ended:
            return ended.value.name if ended.value is not None else None


BODIES: dict[str, tuple[bytes, str | None]] = {
    "first": (b'{"model":"guide","x":[1,{"model":"no"}]}', "guide"),
    "last, behind the messages": (
        b'{"messages":[{"role":"user","content":"a \\"model\\": x"}],"model" : "guide"}',
        "guide",
    ),
    "spaces and lines": (b' \n{\t"model"\r\n:\n"guide" }', "guide"),
    "escaped key": (b'{"\\u006dode\\u006C":"guide"}', "guide"),
    "escaped value": (b'{"model":"g\\u0075ide"}', "guide"),
    "deeper only": (b'{"metadata":{"model":"guide"},"list":[{"model":"x"}]}', None),
    "as a value only": (b'{"kind":"model","x":"guide"}', None),
    "text that looks like it": (b'{"prompt":"{\\"model\\":\\"guide\\"}"}', None),
    "a number": (b'{"model":3}', None),
    "nothing": (b"", None),
    "a list": (b'[{"model":"guide"}]', None),
    "a text": (b'"model"', None),
    "cut within a text": (b'{"model":"gui', None),
    "cut within an escape": (b'{"model":"gui\\', None),
    "closed before it": (b'{}{"model":"guide"}', None),
    "an empty name": (b'{"model":""}', ""),
    "long texts full of escapes": (b'{"a":"' + b'\\"\\n' * 5000 + b'","model":"guide"}', "guide"),
    "deep": (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b',"model":"guide"}', "guide"),
}


@pytest.mark.parametrize(("body", "want"), BODIES.values(), ids=BODIES)
def test_the_model_is_found_without_building_the_document(body: bytes, want: str | None) -> None:
    assert model_of(body) == want


HARD: dict[str, bytes] = {
    "numbers without end": b'{"a":[' + b"1" * 300_000,
    "texts without end": b'{"a":[' + b'"x",' * 50_000,
    "a text without end": b'{"a":["' + b"x" * 300_000,
    "escapes without end": b'{"a":["' + b"\\\n" * 100_000,
    "a lone escape at the end": b'{"a":["x' + b"\\" * 100_001,
    "quotes": b'{"a":[' + b'"' * 100_001,
    "escaped quotes": b'{"a":[' + b'"' * 100_000,
    "only opened": b'{"a":' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", HARD.values(), ids=HARD)
def test_what_never_ends_takes_no_longer_than_what_does(body: bytes) -> None:
    began = time.process_time()
    assert model_of(body) is None
    assert time.process_time() - began < 5, "linear in the length: a hundredth of this"


def drawn(dice: random.Random, depth: int = 0) -> Any:
    """Return a value that is full of what could be mistaken for a model."""
    texts = ["model", '"model":"x"', "\\", '\\"', "é", "\ud800", "{", "]", "", "a\nb", "\u2028", "guide"]
    kind = dice.randrange(8 if depth < 4 else 4)
    if kind < 2:
        return dice.choice(texts)
    if kind < 4:
        return dice.choice([None, True, 1.5, -3, 1e300])
    if kind < 6:
        return [drawn(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(texts) + str(at % 2 or ""): drawn(dice, depth + 1) for at in range(dice.randrange(5))}


def test_the_guard_sees_what_a_parser_sees() -> None:
    dice = random.Random(1)
    found = 0
    for _ in range(3000):
        document = drawn(dice)
        if not isinstance(document, dict):
            document = {"x": document}
        if dice.random() < 0.3:
            document = {**document, "model": dice.choice(["guide", "../x", 3, drawn(dice)]), "z": drawn(dice)}
        body = json.dumps(document, ensure_ascii=dice.random() < 0.5, indent=dice.choice([None, 1]))
        model = document.get("model")
        want = model if isinstance(model, str) else None
        assert model_of(body.encode("utf-8", "surrogatepass")) == want, body
        found += want is not None
    assert found > 100


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"guide","model":"../x"}',
        b'{"model":"guide","x":1,"\\u006dodel":"../x"}',
        b'{"model":3,"model":"../x"}',
        b'{"model":"guide","a":{"model":1},"model":"guide"}',
    ],
)
def test_a_body_that_names_two_models_is_refused(body: bytes) -> None:
    with pytest.raises(NotPassedOn) as caught:
        model_of(body)
    assert (caught.value.status, caught.value.reason) == (400, "ModelNamedTwice")


class Engine:
    """It reads every body as the real one does, and answers what it is told."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers: list[Message] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        if self.gate is not None:
            await self.gate.wait()
        for message in self.answers or reply(b"{}"):
            await send(message)


def reply(*parts: bytes, kind: bytes = b"application/json", length: bool = True, status: int = 200) -> list[Message]:
    headers = [(b"content-type", kind)]
    if length:
        headers.append((b"content-length", str(sum(map(len, parts))).encode()))
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    bodies = [
        {"type": "http.response.body", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, 1)
    ]
    return [start, *bodies]


class Pod:
    def __init__(self, folder: Path, **options: Any) -> None:
        (folder / "aliases.json").write_text('{"version": 1, "aliases": {"guide": {"to": {"guide@aaaaaaaa": 1}}}}')
        self.engine = Engine()
        self.guard = Guard(self.engine, str(folder), **options)
        self.state: Any = None

    async def call(
        self, *parts: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), path: str = "/v1/completions"
    ) -> tuple[int, dict[bytes, bytes], list[bytes]]:
        """Return status, headers and the parts of the answer that have bytes."""
        sent: list[Message] = []
        waiting = [
            {"type": "http.request", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, 1)
        ]

        async def receive() -> Message:
            if not waiting:
                await asyncio.sleep(3600)
            return waiting.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Message = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        if self.state is not None:
            scope["app"] = SimpleNamespace(state=self.state)
        await self.guard(scope, receive, send)
        assert [message["type"] for message in sent][:1] == ["http.response.start"]
        bodies = [message["body"] for message in sent[1:] if message["body"]]
        return sent[0]["status"], dict(sent[0]["headers"]), bodies


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
async def test_other_encodings_of_json_hide_no_model(pod: Pod, encoding: str) -> None:
    status, _, _ = await pod.call('{"model": "../x", "prompt": "ä"}'.encode(encoding))
    assert (status, pod.engine.bodies) == (404, [])
    status, headers, _ = await pod.call('{"model": "guide", "prompt": "ä"}'.encode(encoding))
    assert (status, headers[b"x-trimtab-revision"]) == (200, OLD.encode())
    assert json.loads(pod.engine.bodies[-1]) == {"model": OLD, "prompt": "ä"}


async def test_the_rest_of_a_body_stays_as_it_came(pod: Pod) -> None:
    body = b'{ "n" : 1.50,"model": "guide" , "text":"\xc3\xa4\\u00e4", "model2":1e3 }'
    await pod.call(body)
    assert pod.engine.bodies == [body.replace(b'"guide"', b'"guide@aaaaaaaa"')]


KEYS: dict[str, tuple[tuple[tuple[bytes, bytes], ...], bool]] = {
    "none": ((), False),
    "a wrong one": (((b"authorization", b"Bearer wrong"),), False),
    "another scheme": (((b"authorization", b"Basic sekret"),), False),
    "the key": (((b"authorization", b"Bearer sekret"),), True),
    "the scheme in other letters": (((b"authorization", b"bearer sekret"),), True),
    "the second of two keys": (((b"authorization", b"Bearer other"),), True),
    "the first header counts, as it does for the engine": (
        ((b"authorization", b"Bearer x"), (b"authorization", b"Bearer sekret")),
        False,
    ),
}


@pytest.mark.parametrize("path", ["/v1/completions", "/v2/rerank", "/tokenize"])
@pytest.mark.parametrize(("headers", "enters"), KEYS.values(), ids=KEYS)
async def test_without_the_engines_key_no_body_is_read(
    pod: Pod, headers: tuple[tuple[bytes, bytes], ...], enters: bool, path: str
) -> None:
    pod.state = SimpleNamespace(args=SimpleNamespace(api_key=["sekret", "other"]))
    parts = [b'{"model":"guide"}'] if enters else []  # reading a body that never comes would hang
    status, answered, body = await asyncio.wait_for(pod.call(*parts, headers=headers, path=path), 60)
    assert status == (200 if enters else 401)
    assert bool(pod.engine.bodies) is enters
    if not enters:
        assert body == [b'{"error": "Unauthorized"}']
        assert answered[b"connection"] == b"close"


async def test_the_key_of_the_environment_counts_where_no_argument_is(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sekret")
    assert (await asyncio.wait_for(pod.call(), 60))[0] == 401
    assert (await pod.call(b"{}", headers=((b"authorization", b"Bearer sekret"),)))[0] == 200


@pytest.mark.parametrize(("first", "status"), [(True, 200), (False, 400)])
async def test_a_large_body_of_small_things_blocks_nobody_and_costs_little(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, first: bool, status: int
) -> None:
    monkeypatch.setattr(finding, "STEPS_ALLOWED", 50_000)
    rest = b'"a":[' + b"{}," * 1_000_000 + b"{}]"
    body = b'{"model":"guide",' + rest + b"}" if first else b"{" + rest + b',"model":"guide"}'
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    tracemalloc.start()
    assert (await pod.call(body))[0] == status
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    task.cancel()
    assert peak < 4 * len(body), "it is not built: a million objects would take twenty times as much"
    if not first:
        assert turns >= 50_000 // finding.STEPS_AT_ONCE, "others have their turns meanwhile"


async def test_large_bodies_are_held_within_a_bound_and_small_ones_pass_beside_them(tmp_path: Path) -> None:
    pod = Pod(tmp_path, max_held_bytes=1_000_000)
    pod.engine.gate = asyncio.Event()
    large = b'{"model":"guide","prompt":"' + b"x" * 600_000 + b'"}'
    first = asyncio.create_task(pod.call(large))
    await asyncio.sleep(0)
    status, headers, body = await pod.call(large)
    assert status == 503
    assert (headers[b"retry-after"], json.loads(body[0])["error"]["type"]) == (b"1", "ServiceUnavailable")
    small = asyncio.create_task(pod.call(b'{"model":"guide"}'))
    await asyncio.sleep(0)
    pod.engine.gate.set()
    assert (await small)[0] == (await first)[0] == 200
    assert (await pod.call(large))[0] == 200, "what ended is held no longer"


async def test_a_body_that_never_ends_is_given_up(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.01)
    sent: list[Message] = []
    parts = [{"type": "http.request", "body": b'{"model"', "more_body": True}]

    async def receive() -> Message:
        if not parts:
            await asyncio.sleep(3600)
        return parts.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await asyncio.wait_for(pod.guard(scope, receive, send), 60)
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"connection"]) == (408, b"close")
    assert pod.engine.bodies == []


@pytest.mark.parametrize("length", ["9" * 5000, "33554433", "999999999999999999"])
async def test_a_length_beyond_the_bound_is_refused_unread(pod: Pod, length: str) -> None:
    headers = ((b"content-length", length.encode()),)
    assert (await asyncio.wait_for(pod.call(headers=headers), 60))[0] == 413


EVENT = b'data: {"id":"1","model":"guide@aaaaaaaa","choices":[{"text":"\\"model\\":\\"guide@aaaaaaaa\\""}]}\n\n'
SPACED = b'data: {"type": "message_start", "message": {"model": "guide@aaaaaaaa"}}\n\n'
OTHER = b'data: {"model":"guide@aaaaaaa","x":"model","y":{"models":"guide@aaaaaaaa"}}\n\n'
STREAM = EVENT + SPACED + OTHER + b"data: [DONE]\n\n"
RENAMED = STREAM.replace(b'"model":"guide@aaaaaaaa"', b'"model":"guide"').replace(
    b'"model": "guide@aaaaaaaa"', b'"model": "guide"'
)


@pytest.mark.parametrize("size", range(1, 40))
def test_parts_of_a_stream_may_end_anywhere(size: int) -> None:
    renaming = Renaming(OLD, "guide")
    parts = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    (start,) = renaming.passes(reply(kind=b"text/event-stream", length=False)[0])
    assert start["type"] == "http.response.start"
    out, given = b"", 0
    for at, part in enumerate(parts, 1):
        given += len(part)
        (message,) = renaming.passes({"type": "http.response.body", "body": part, "more_body": at < len(parts)})
        out += message["body"]
        assert given - len(STREAM) + len(RENAMED) - len(out) < 40, "nothing waits but a beginning of what is renamed"
    assert out == RENAMED


async def test_events_pass_one_by_one_and_at_once(pod: Pod) -> None:
    pod.engine.answers = reply(EVENT, SPACED, OTHER, b"data: [DONE]\n\n", kind=b"text/event-stream", length=False)
    _, headers, parts = await pod.call(b'{"model":"guide","stream":true}')
    assert b"".join(parts) == RENAMED
    assert [part[-2:] for part in parts] == [b"\n\n"] * 4
    assert headers[b"x-trimtab-revision"] == OLD.encode()


ANSWER = b'{"object":"chat.completion","model":"guide@aaaaaaaa","choices":[]}'


@pytest.mark.parametrize("cut", [None, 5, 40])
async def test_an_answer_names_the_alias_and_has_the_length_of_what_is_sent(pod: Pod, cut: int | None) -> None:
    pod.engine.answers = reply(ANSWER) if cut is None else reply(ANSWER[:cut], ANSWER[cut:])
    _, headers, parts = await pod.call(b'{"model":"guide"}')
    want = ANSWER.replace(b"@aaaaaaaa", b"")
    assert b"".join(parts) == want
    assert headers.get(b"content-length") == (str(len(want)).encode() if cut is None else None)


async def test_who_asks_for_a_revision_is_told_the_revision(pod: Pod) -> None:
    pod.engine.answers = reply(ANSWER)
    _, headers, parts = await pod.call(b'{"model":"guide@aaaaaaaa"}')
    assert parts == [ANSWER]
    assert headers[b"content-length"] == str(len(ANSWER)).encode()


async def test_a_setting_lets_answers_name_the_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ANSWER_MODEL", "revision")
    pod = Pod(tmp_path)
    pod.engine.answers = reply(ANSWER)
    assert (await pod.call(b'{"model":"guide"}'))[2] == [ANSWER]


@pytest.mark.parametrize(
    "headers",
    [[(b"content-type", b"audio/wav")], [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]],
)
async def test_what_is_no_plain_json_passes_as_it_is(pod: Pod, headers: list[tuple[bytes, bytes]]) -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    pod.engine.answers = [start, {"type": "http.response.body", "body": ANSWER}]
    assert (await pod.call(b'{"model":"guide"}'))[2] == [ANSWER]
