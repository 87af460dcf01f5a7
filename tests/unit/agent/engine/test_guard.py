"""The guard as a plain ASGI application around a fake engine: no server, no network."""

from __future__ import annotations

import ast
import asyncio
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trimtab_agent import guard
from trimtab_agent.engine.table import SharedVolume
from trimtab_agent.guard import Guard
from trimtab_agent.guard.counting import BOUNDS, NAMES_KEPT
from trimtab_agent.guard.paths import ASKED_BY_MODEL

Message = MutableMapping[str, Any]
TOKEN = "t" * 43
OLD, NEW = "guide@aaaaaaaa", "guide@bbbbbbbb"


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def revision(self) -> str:
        return self.headers.get("x-trimtab-revision", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Inner:
    """The engine: it echoes what reached it."""

    listed: tuple[str, ...] = (OLD, NEW)
    healthy: bool = True
    status: int = 200
    raises: bool = False
    answer: bytes | None = None
    api_key: str | None = None
    requests: list[tuple[str, str, bytes, dict[bytes, bytes]]] = field(default_factory=list)
    waits_for_disconnect: bool = False
    seen_after_body: list[str] = field(default_factory=list)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            self.requests.append((scope["type"], "", b"", {}))
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        self.requests.append((scope["method"], scope["path"], body, headers))
        if self.waits_for_disconnect:
            self.seen_after_body.append((await receive())["type"])
            return
        if self.raises:
            raise RuntimeError("engine bug")
        key = b"Bearer " + (self.api_key or "").encode()
        if self.api_key and scope["path"].startswith("/v1") and headers.get(b"authorization") != key:
            await self._answer(send, 401, b"{}")
            return
        if scope["path"] == "/health":
            await self._answer(send, 200 if self.healthy else 503, b"")
        elif scope["path"] == "/v1/models":
            data = [{"id": "smol", "root": "/models/base", "parent": None}]
            data += [{"id": name, "root": f"/a/{name}", "parent": "smol"} for name in self.listed]
            await self._answer(send, 200, json.dumps({"object": "list", "data": data}).encode())
        elif b'"stream":true' in body.replace(b" ", b""):
            kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": kind})
            for part in (b"data: 1\n\n", b"data: 2\n\n"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._answer(send, self.status, body if self.answer is None else self.answer)

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Pod:
    folder: Path
    inner: Inner
    guard: Guard
    state: Any = None
    writes: int = 0

    def write(self, aliases: dict[str, Any], **more: Any) -> None:
        self.write_raw(json.dumps({"version": 1, "aliases": aliases, **more}).encode())

    def write_raw(self, data: bytes) -> None:
        self.writes += 1
        part = self.folder / "part"
        part.write_bytes(data)
        os.utime(part, ns=(self.writes, self.writes))
        part.replace(self.folder / "aliases.json")

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        *,
        headers: tuple[tuple[str, str], ...] = (),
        pieces: int = 1,
        receive: Callable[[], Awaitable[Message]] | None = None,
    ) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        answer = Answer()
        size = max(1, -(-len(data) // pieces))
        queue = [data[start : start + size] for start in range(0, len(data), size)] or [b""]

        async def read() -> Message:
            if not queue:
                return {"type": "http.disconnect"}
            part = queue.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(queue)}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {key.decode().lower(): value.decode() for key, value in message["headers"]}
            else:
                answer.parts.append(message["body"])

        scope: Message = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": "",
            "headers": [(key.lower().encode(), value.encode()) for key, value in headers],
        }
        if ("content-length", "") not in headers:
            scope["headers"].append((b"content-length", str(len(data)).encode()))
        if self.state is not None:
            scope["app"] = SimpleNamespace(state=self.state)
        await self.guard(scope, receive or read, send)
        return answer

    async def chat(self, model: str = "guide") -> Answer:
        return await self.call("POST", "/v1/chat/completions", {"model": model, "messages": []})


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    inner = Inner()
    (tmp_path / "token").write_text(TOKEN + "\n")
    pod = Pod(tmp_path, inner, Guard(inner, str(tmp_path), max_body_bytes=1000, dice=random.Random(1)))
    pod.write({"guide": {"to": {OLD: 1}}})
    return pod


@pytest.mark.parametrize("written", [rb'"Org/My_Model-v1.2"', rb'"Org\/My_Model-v1.2"', rb'"\u004frg/My_Model-v1.2"'])
async def test_a_name_with_a_slash_is_found_however_a_client_escapes_it(pod: Pod, written: bytes) -> None:
    revision = "Org/My_Model-v1.2@aaaaaaaa"
    pod.write({"Org/My_Model-v1.2": {"to": {revision: 1}}})
    answer = await pod.call("POST", "/v1/completions", b'{"prompt": "a", "model": ' + written + b"}")
    assert (answer.status, answer.json["model"]) == (200, "Org/My_Model-v1.2")
    assert answer.headers["x-trimtab-revision"] == revision
    pod.inner.listed = (revision,)
    listed = (await pod.call("GET", "/v1/models", b"")).json["data"]
    assert {"Org/My_Model-v1.2", revision} <= {each["id"] for each in listed}


def test_it_needs_the_standard_library_alone() -> None:
    trees = [ast.parse(path.read_text()) for path in Path(guard.__file__).parent.glob("*.py")]
    imported = {
        name.split(".")[0]
        for tree in trees
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)
    assert imported


def test_an_engine_imports_what_lies_on_the_volume_and_a_later_agent_replaces_it_as_a_whole(tmp_path: Path) -> None:
    volume = SharedVolume(tmp_path)

    def where() -> Path:
        """Import it as an engine does, without any package that is installed here; return what was read."""
        code = "import trimtab_guard; print(trimtab_guard.Guard and trimtab_guard.__file__)"
        command = [sys.executable, "-S", "-B", "-c", code]
        done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, check=True, capture_output=True, text=True)
        return Path(done.stdout.strip()).resolve()

    assert not volume.in_place()
    token = volume.prepare()
    assert volume.in_place()
    first = where()
    assert SharedVolume(tmp_path).prepare() == token
    second = where()
    assert first != second, "a file of one version is never beside one of another"
    assert {each for each in tmp_path.rglob("*.py") if not each.parent.is_symlink()} == set(second.parent.glob("*.py"))
    assert {each.stat().st_mode & 0o777 for each in second.parent.iterdir()} == {0o644}


def test_an_earlier_copy_that_cannot_be_removed_keeps_no_agent_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that may write to the volume puts `__pycache__` beside what it imports, as another user."""
    token = SharedVolume(tmp_path).prepare()
    (first,) = [each for each in tmp_path.glob(".trimtab_guard.*") if each.is_dir()]

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path / "__pycache__"))

    monkeypatch.setattr("trimtab_agent.engine.table.shutil.rmtree", refuse)
    volume = SharedVolume(tmp_path)
    assert volume.prepare() == token
    assert volume.in_place()
    assert (tmp_path / "trimtab_guard").resolve() != first
    assert "an earlier copy of the guard stays" in caplog.text


@pytest.mark.parametrize("path", sorted(ASKED_BY_MODEL))
async def test_an_alias_becomes_its_revision_on_every_inference_path(pod: Pod, path: str) -> None:
    answer = await pod.call("POST", path, {"model": "guide", "text": "ä\ud800", "n": 1.5}, pieces=3)
    assert answer.status == 200
    assert answer.json == {"model": "guide", "text": "ä\ud800", "n": 1.5}
    assert answer.revision == OLD
    assert int(answer.headers["content-length"]) == len(answer.body)
    _, _, body, headers = pod.inner.requests[-1]
    assert json.loads(body) == {"model": OLD, "text": "ä\ud800", "n": 1.5}
    assert int(headers[b"content-length"]) == len(body)


async def test_a_chunked_request_gets_a_length(pod: Pod) -> None:
    headers = (("transfer-encoding", "chunked"), ("content-length", ""))
    await pod.call("POST", "/v1/completions", {"model": "guide"}, headers=headers)
    _, _, body, seen = pod.inner.requests[-1]
    assert b"transfer-encoding" not in seen
    assert int(seen[b"content-length"]) == len(body)


@pytest.mark.parametrize(
    "body",
    [b"{not json", b"", b"[1,2]", b'"text"', b'{"model": 3}', b'{"model": "smol",  "x" : 1}', b"\xff\xfe", b"[" * 900],
)
async def test_what_names_no_alias_passes_byte_for_byte(pod: Pod, body: bytes) -> None:
    answer = await pod.call("POST", "/v1/completions", body)
    assert (answer.status, answer.body) == (200, body)


async def test_the_table_is_read_again_when_it_is_replaced(pod: Pod) -> None:
    assert (await pod.chat()).revision == OLD
    pod.write({"guide": {"to": {NEW: 1}}})
    assert (await pod.chat()).revision == NEW


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b'{"version": 1, "aliases": {"gui',
        b"[]",
        b'{"version": 2, "aliases": {}}',
        b'{"version": 1}',
        b'{"version": 1, "aliases": {"guide": {"to": {}}}}',
        b'{"version": 1, "aliases": {"guide": {"to": {"a": "x"}}}}',
        b'{"version": 1, "aliases": {"guide": {"to": {"a": 1}, "pending": "x"}}}',
    ],
)
async def test_the_last_good_table_stays_when_one_is_torn(pod: Pod, torn: bytes) -> None:
    assert (await pod.chat()).revision == OLD
    pod.write_raw(torn)
    assert (await pod.chat()).revision == OLD
    (pod.folder / "aliases.json").unlink()
    assert (await pod.chat()).revision == OLD
    pod.write({"guide": {"to": {NEW: 1}}})
    assert (await pod.chat()).revision == NEW


async def test_without_any_table_names_pass_and_the_pod_is_not_ready(pod: Pod) -> None:
    (pod.folder / "aliases.json").unlink()
    assert (await pod.chat()).json["model"] == "guide"
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 503


async def test_weights_share_the_requests(pod: Pod) -> None:
    pod.write({"guide": {"to": {OLD: 90, NEW: 10, "guide@cccccccc": 0}}})
    models = [(await pod.chat()).revision for _ in range(2000)]
    assert set(models) == {OLD, NEW}
    assert 150 < models.count(NEW) < 250  # 10 % of 2000, six standard deviations


async def test_an_alias_that_cannot_answer_says_why(pod: Pod) -> None:
    secret = "AccessDenied: s3://private-bucket/team: key AKIA may not: Read"
    pod.write(
        {
            "guide": {"pending": "being fetched"},
            "other": {"unavailable": "RankTooHigh"},
            "third": {"pending": f"third@aaaaaaaa: {secret}; third@bbbbbbbb: NotFinite: x"},
            "fourth": {"unavailable": "not loaded; given up after 300 s"},
        }
    )
    want = {"guide": "Pending", "other": "RankTooHigh", "third": "AccessDenied", "fourth": "Unavailable"}
    for alias, reason in want.items():
        answer = await pod.chat(alias)
        assert answer.status == 503
        assert answer.json["error"]["message"] == f"{alias} cannot answer now: {reason}"
        assert answer.headers["retry-after"]
    assert pod.inner.requests == []
    ready = await pod.call("GET", "/-/trimtab/ready")
    assert b"private-bucket" not in ready.body
    pod.write({"third": {"pending": f"third@aaaaaaaa: {secret}"}})
    assert (await pod.call("GET", "/-/trimtab/ready")).json["reason"] == "third: AccessDenied"
    trusted = await pod.call("GET", "/-/trimtab/ready", headers=(("X-Trimtab-Token", TOKEN),))
    assert secret in trusted.json["reason"]


@pytest.mark.parametrize(("announced", "pieces"), [(True, 1), (False, 5)])
async def test_a_body_beyond_the_bound_is_refused(pod: Pod, announced: bool, pieces: int) -> None:
    headers = () if announced else (("content-length", ""),)
    answer = await pod.call("POST", "/v1/completions", b"x" * 1001, headers=headers, pieces=pieces)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert pod.inner.requests == []
    assert (await pod.call("POST", "/v1/completions", b"x" * 1000)).status == 200


async def test_streams_pass_piece_by_piece(pod: Pod) -> None:
    answer = await pod.call("POST", "/v1/completions", {"model": "guide", "stream": True})
    assert answer.parts == [b"data: 1\n\n", b"data: 2\n\n", b""]


async def test_a_client_that_leaves_is_seen_by_the_engine(pod: Pod) -> None:
    pod.inner.waits_for_disconnect = True
    await pod.chat()
    assert pod.inner.seen_after_body == ["http.disconnect"]
    counts = await counts_of(pod)
    assert (counts[OLD]["disconnected"], counts[OLD]["errors"], counts[OLD]["running"]) == (1, 0, 0)


async def test_a_client_that_leaves_within_its_body_reaches_nobody(pod: Pod) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await pod.call("POST", "/v1/completions", b"x", receive=receive)
    assert pod.inner.requests == []


CLOSED = [
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/adapters"),
    ("DELETE", "/adapters/x"),
    ("POST", "/invocations"),
    ("POST", "/pause"),
    ("POST", "/sleep"),
    ("POST", "/collective_rpc"),
    ("POST", "/reset_prefix_cache"),
    ("GET", "/server_info"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "//v1/load_lora_adapter"),
    ("POST", "/v1/completions/"),
    ("POST", "/v1/completions/../load_lora_adapter"),
    ("POST", "/v1/responses/x/y"),
    ("POST", "/v1/responses/../load_lora_adapter"),
    ("PUT", "/v1/completions"),
    ("GET", "/v1/completions"),
    ("POST", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_everything_else_needs_the_token(pod: Pod, method: str, path: str) -> None:
    assert (await pod.call(method, path, b"{}")).status == 403
    wrong = (("X-Trimtab-Token", "u" * 43),)
    assert (await pod.call(method, path, b"{}", headers=wrong)).status == 403
    twice = (("X-Trimtab-Token", TOKEN), ("X-Trimtab-Token", "u"))
    assert (await pod.call(method, path, b"{}", headers=twice)).status == 403
    assert pod.inner.requests == []
    assert (await pod.call(method, path, b"{}", headers=(("X-Trimtab-Token", TOKEN),))).status == 200
    assert b"x-trimtab-token" not in pod.inner.requests[-1][3]


@pytest.mark.parametrize("content", [None, "", "short"])
async def test_without_a_good_token_file_nobody_gets_in(pod: Pod, content: str | None) -> None:
    if content is None:
        (pod.folder / "token").unlink()
    else:
        (pod.folder / "token").write_text(content)
    answer = await pod.call("POST", "/v1/load_lora_adapter", b"{}", headers=(("X-Trimtab-Token", content or ""),))
    assert answer.status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/version"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
    ],
)
async def test_what_clients_and_kubelets_ask_is_open(pod: Pod, method: str, path: str) -> None:
    assert (await pod.call(method, path)).status == 200


async def test_websockets_are_closed_and_lifespan_passes(pod: Pod) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    await pod.guard({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    await pod.guard({"type": "lifespan"}, receive, send)
    assert pod.inner.requests == [("lifespan", "", b"", {})]


@pytest.mark.parametrize("name", ["../loraB", "a/../../b", "..", "x\\..\\y", "/etc/adapters", "a\0b"])
async def test_a_model_that_is_a_path_reaches_no_resolver(pod: Pod, name: str) -> None:
    assert (await pod.chat(name)).status == 404
    assert pod.inner.requests == []


async def test_a_base_model_may_be_named_by_its_path(pod: Pod) -> None:
    pod.state = SimpleNamespace(args=SimpleNamespace(model="/models/smol", served_model_name=None))
    assert (await pod.chat("/models/smol")).status == 200
    assert (await pod.chat("HuggingFaceTB/SmolLM2")).status == 200
    assert (await pod.chat("/models/other")).status == 404


async def test_the_agent_is_not_rewritten_and_not_counted(pod: Pod) -> None:
    trusted = (("X-Trimtab-Token", TOKEN),)
    answer = await pod.call("POST", "/v1/completions", {"model": "guide"}, headers=trusted)
    assert answer.json == {"model": "guide"}
    models = await pod.call("GET", "/v1/models", headers=trusted)
    assert [item["id"] for item in models.json["data"]] == ["smol", OLD, NEW]
    assert await counts_of(pod) == {}


async def test_aliases_are_among_the_models(pod: Pod) -> None:
    pod.write({"guide": {"to": {OLD: 10, NEW: 90}}, "smol": {"to": {OLD: 1}}, "late": {"pending": "x"}})
    answer = await pod.call("GET", "/v1/models")
    models = {item["id"]: item for item in answer.json["data"]}
    assert sorted(models) == ["guide", OLD, NEW, "smol"]
    assert (models["guide"]["root"], models["guide"]["parent"]) == (NEW, "smol")
    assert models["smol"]["root"] == "/models/base"
    assert int(answer.headers["content-length"]) == len(answer.body)


async def counts_of(pod: Pod) -> dict[str, Any]:
    answer = await pod.call("GET", "/-/trimtab/counts", headers=(("X-Trimtab-Token", TOKEN),))
    assert answer.status == 200
    return dict(answer.json["revisions"])


async def test_requests_are_counted_by_revision_and_outcome(pod: Pod) -> None:
    await pod.chat()
    await pod.chat(OLD)
    for status in (400, 500):
        pod.inner.status = status
        await pod.chat()
    pod.inner.raises = True
    with pytest.raises(RuntimeError):
        await pod.chat()
    found = (await counts_of(pod))[OLD]
    assert (found["requests"], found["rejected"], found["errors"], found["running"]) == (5, 1, 2, 0)
    assert sum(found["total"]["buckets"]) == 2
    assert len(found["total"]["buckets"]) == len(BOUNDS) + 1


async def test_an_operator_of_the_version_before_finds_what_it_reads(pod: Pod) -> None:
    await pod.chat()
    found = (await counts_of(pod))[OLD]
    assert set(found) >= {"requests", "errors", "rejected", "disconnected", "running", "total", "first"}
    assert (sum(found["total"]["buckets"]), found["errors"], found["rejected"]) == (1, 0, 0)
    assert found["total"]["sum"] >= 0


async def test_only_requests_by_the_alias_are_a_sample_that_decides(pod: Pod) -> None:
    await pod.chat()
    pod.inner.status = 500
    for _ in range(20):
        await pod.chat(OLD)  # one client, which names the revision itself
    found = (await counts_of(pod))[OLD]
    assert (found["requests"], found["errors"]) == (21, 20)
    ended = ("requests", "answers", "errors", "rejected", "disconnected", "running")
    assert [found["byAlias"][name] for name in ended] == [1, 1, 0, 0, 0, 0]


MISSING = f"The model `{OLD}` does not exist."
NOT_FOUND = {
    "the engine lacks the model": ({"error": {"message": MISSING, "code": 404}}, "errors"),
    "the same in the words of an earlier engine": ({"object": "error", "message": MISSING}, "errors"),
    "a response that is not stored": ({"error": {"message": "Response with id 'resp_none' not found."}}, "rejected"),
    "one with the sentence in its id": ({"error": {"message": f"Response with id 'resp_{MISSING}'"}}, "rejected"),
    "another model is missing": ({"error": {"message": "The model `other` does not exist."}}, "rejected"),
    "a path that is not there": ({"detail": "Not Found"}, "rejected"),
    "no words": (None, "rejected"),
    "no object": (["The model"], "rejected"),
    "more than is read": ({"error": {"message": "x" * 5000}}, "rejected"),
}


@pytest.mark.parametrize(("answer", "outcome"), NOT_FOUND.values(), ids=NOT_FOUND)
async def test_a_404_is_the_engines_error_only_where_the_model_is_missing(pod: Pod, answer: Any, outcome: str) -> None:
    pod.inner.status, pod.inner.answer = 404, json.dumps(answer).encode()
    await pod.call("POST", "/v1/responses", {"model": "guide", "previous_response_id": "resp_none"})
    found = (await counts_of(pod))[OLD]
    assert {name: found[name] for name in ("errors", "rejected")} == {"errors": 0, "rejected": 0, outcome: 1}
    assert found["byAlias"][outcome] == 1


async def test_times_are_summed_by_what_they_tell(pod: Pod) -> None:
    ticks = iter([0.0, 2.0, 4.0, 4.0])  # begins, first byte, last event, ends
    pod.guard = Guard(pod.inner, str(pod.folder), clock=lambda: next(ticks))
    await pod.call("POST", "/v1/completions", {"model": "guide", "stream": True})
    ticks = iter([0.0, 8.0, 8.0])
    pod.inner.answer = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 16}, "x": "\\"completion_tokens\\": 4"}'
    await pod.call("POST", "/v1/completions", {"model": "guide"})
    ticks = iter([0.0, 4.0, 4.0])
    pod.inner.answer = b'{"data": []}'
    await pod.call("POST", "/v1/embeddings", {"model": "guide"})
    found = (await counts_of(pod))[OLD]["byAlias"]
    log2 = math.log(2)
    assert found["first"] == {"n": 2, "sum": pytest.approx(log2 + 2 * log2), "squares": pytest.approx(5 * log2**2)}
    assert found["chunk"] == {"n": 1, "sum": pytest.approx(log2), "squares": pytest.approx(log2**2)}
    assert found["token"] == {"n": 1, "sum": pytest.approx(-log2), "squares": pytest.approx(log2**2)}
    assert found["whole"] == {"n": 1, "sum": pytest.approx(3 * log2), "squares": pytest.approx(9 * log2**2)}


async def test_what_fails_or_names_the_revision_has_no_time_that_is_compared(pod: Pod) -> None:
    await pod.chat(OLD)
    pod.inner.status = 500
    await pod.chat()
    found = (await counts_of(pod))[OLD]["byAlias"]
    assert [found[name]["n"] for name in ("first", "chunk", "token", "whole")] == [0, 0, 0, 0]


async def test_clients_cannot_make_the_counts_grow(pod: Pod) -> None:
    for number in range(200):
        await pod.chat(f"invented-{number}")
    assert await counts_of(pod) == {}
    for number in range(200):
        pod.write({"guide": {"to": {f"guide@{number:08x}": 1}}})
        await pod.chat()
    assert len(await counts_of(pod)) == NAMES_KEPT


async def test_requests_that_run_are_seen_running(pod: Pod) -> None:
    pod.inner.waits_for_disconnect = True
    gate = asyncio.Event()
    parts = [{"type": "http.request", "body": b'{"model": "guide"}', "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await gate.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(pod.call("POST", "/v1/completions", b"", receive=receive))
    async with asyncio.timeout(60):
        while (await counts_of(pod)).get(OLD, {}).get("running") != 1:
            await asyncio.sleep(0)
    gate.set()
    await task
    assert (await counts_of(pod))[OLD]["running"] == 0


async def test_ready_follows_the_engines_list(pod: Pod) -> None:
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200
    pod.inner.listed = (NEW,)
    answer = await pod.call("GET", "/-/trimtab/ready")
    assert answer.status == 503
    assert OLD in answer.json["reason"]
    pod.write({"guide": {"to": {NEW: 1, OLD: 0}}})
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200
    pod.inner.healthy = False
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 503
    pod.inner.healthy, pod.inner.raises = True, True
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 503


async def test_a_pending_alias_holds_the_pod_back_and_an_unavailable_one_does_not(pod: Pod) -> None:
    pod.write({"guide": {"pending": "being fetched"}})
    answer = await pod.call("GET", "/-/trimtab/ready")
    assert (answer.status, answer.json["reason"]) == (503, "guide: Pending")
    pod.write({"guide": {"unavailable": "given up"}})
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200
    pod.write({})
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200


async def test_ready_asks_past_the_engines_own_key(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.inner.api_key = "sekret"
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 503
    pod.state = SimpleNamespace(args=SimpleNamespace(api_key=["sekret"]))
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200
    pod.state = None
    monkeypatch.setenv("VLLM_API_KEY", "sekret")
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 200


async def test_liveness_ends_for_the_harmed_start_only(pod: Pod) -> None:
    assert (await pod.call("GET", "/-/trimtab/live")).status == 200
    pod.write({}, harmed={"instance": pod.guard.instance, "reason": "poisoned"})
    answer = await pod.call("GET", "/-/trimtab/live")
    assert (answer.status, answer.json["reason"]) == (503, "EngineHarmed")
    answer = await pod.call("GET", "/-/trimtab/live", headers=(("X-Trimtab-Token", TOKEN),))
    assert (answer.status, answer.json["reason"]) == (503, "poisoned")
    assert (await pod.call("GET", "/-/trimtab/ready")).status == 503
    pod.guard = Guard(pod.inner, str(pod.folder))  # the next start
    assert (await pod.call("GET", "/-/trimtab/live")).status == 200


async def test_limits_come_from_the_engines_configuration(pod: Pod) -> None:
    trusted = (("X-Trimtab-Token", TOKEN),)
    assert (await pod.call("GET", "/-/trimtab/limits")).status == 403
    unknown = (await pod.call("GET", "/-/trimtab/limits", headers=trusted)).json
    assert (unknown["instance"], unknown["maxLoras"], unknown["loraEnabled"]) == (pod.guard.instance, None, None)
    args = SimpleNamespace(max_loras=2, max_lora_rank=32, max_cpu_loras=None, enable_lora=True)
    pod.state = SimpleNamespace(args=args)
    found = (await pod.call("GET", "/-/trimtab/limits", headers=trusted)).json
    assert (found["maxLoras"], found["maxLoraRank"], found["maxCpuLoras"], found["loraEnabled"]) == (2, 32, 2, True)
    pod.state.vllm_config = SimpleNamespace(lora_config=SimpleNamespace(max_loras=4, max_lora_rank=64, max_cpu_loras=8))
    found = (await pod.call("GET", "/-/trimtab/limits", headers=trusted)).json
    assert (found["maxLoras"], found["maxLoraRank"], found["maxCpuLoras"]) == (4, 64, 8)


async def test_own_paths_are_read_only_and_few(pod: Pod) -> None:
    assert (await pod.call("POST", "/-/trimtab/ready")).status == 405
    assert (await pod.call("GET", "/-/trimtab/other", headers=(("X-Trimtab-Token", TOKEN),))).status == 404
    assert pod.inner.requests == []
