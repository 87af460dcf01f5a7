"""Calls over HTTP, and mounted documents."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import REGISTRY
from trimtab_agent.contract import DOCUMENT_BYTES, DOCUMENTS_AT_ONCE, DOCUMENTS_BYTES, Documents, Share
from trimtab_agent.documents import MountedDocument, PublicKeys, Verifier, namespace_audience, sign_call, sign_mounted
from trimtab_agent.receiving.mounted import MountedDocuments, read_labels
from trimtab_agent.receiving.server import LONGEST_WAIT, Server

from tests.unit.agent.pod import Pod, running

AUDIENCE = namespace_audience("team")


@dataclass
class Caller:
    client: Any
    key: Ed25519PrivateKey
    pod: Pod
    verifier: Verifier
    server: Server | None = None

    async def call(self, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, Any]:
        token = sign_call(self.key, AUDIENCE, method=method, path=path, body=body, now=time.time())
        headers = {"Authorization": f"Bearer {token}"}
        async with self.client.request(method, path + query, data=body, headers=headers) as response:
            return response.status, await response.json()

    async def put(self, share: Share, method: str = "PUT") -> tuple[int, Any]:
        return await self.call(method, f"/v1/rollouts/{share.rollout}", share.to_bytes())


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "one.pem").write_bytes(public(key))
    verifier = Verifier(PublicKeys(tmp_path / "keys"), (AUDIENCE,))
    async with running(tmp_path) as pod:
        server = Server(pod.agent, verifier, pod.volume, "pod-1")
        async with TestClient(TestServer(server.application())) as client:
            yield Caller(client, key, pod, verifier, server)


async def test_a_share_comes_in_moves_and_goes(caller: Caller) -> None:
    pod = caller.pod
    adapter = pod.publish()
    status, truth = await caller.put(pod.share(adapter))
    assert (status, truth["rollout"]) == (200, "guide")
    await pod.until(lambda: pod.proven(adapter))
    status, truth = await caller.put(pod.share(adapter, alias=adapter))
    assert (status, truth["aliases"]) == (200, {"guide": {"to": {adapter.name("guide"): 100}}})
    status, truth = await caller.call("GET", "/v1/rollouts")
    assert (status, truth["pod"], len(truth["keys"]), len(truth["rollouts"])) == (200, {"uid": "pod-1"}, 1, 1)
    assert truth["counts"]["instance"] == truth["engine"]["instance"]
    status, truth = await caller.call("GET", "/v1/rollouts/guide")
    assert truth["revisions"][0]["probed"]
    assert (await caller.put(pod.share(retired=True), "DELETE"))[0] == 200
    assert (await caller.call("GET", "/v1/rollouts/guide"))[0] == 404


async def put_several(caller: Caller, *documents: bytes) -> tuple[int, Any]:
    body = Documents(documents=tuple(each.decode() for each in documents)).to_bytes()
    return await caller.call("PUT", "/v1/rollouts", body)


async def test_several_shares_come_in_one_request_and_each_is_taken_or_refused_by_itself(caller: Caller) -> None:
    pod = caller.pod
    old = pod.share(rollout="first")
    shares = [pod.share(rollout="first"), pod.share(rollout="second", adapterName="second"), old]
    status, told = await put_several(caller, *(share.to_bytes() for share in shares), b"{}", b"x" * 70_000)
    assert status == 200
    taken = [each["share"] and each["share"]["rollout"] for each in told["answers"]]
    refused = [each["refused"] and each["refused"]["reason"] for each in told["answers"]]
    assert taken == ["first", "second", None, None, None]
    assert refused == [None, None, "SequenceOld", "DocumentInvalid", "TooLarge"]
    assert [each["rollout"] for each in pod.agent.truth().to_json()["rollouts"]] == ["first", "second"]
    status, told = await put_several(caller, pod.share(rollout="first", retired=True).to_bytes())
    assert (status, told["answers"][0]["refused"]) == (200, None)
    assert [each["rollout"] for each in pod.agent.truth().to_json()["rollouts"]] == ["second"]
    assert (await caller.call("GET", "/v1/rollouts"))[1]["documents"] == DOCUMENTS_AT_ONCE


async def test_a_request_with_several_that_is_none_of_ours_changes_nothing(caller: Caller) -> None:
    share = caller.pod.share().to_bytes()
    body = Documents(documents=(share.decode(),)).to_bytes()
    stranger = Caller(caller.client, Ed25519PrivateKey.generate(), caller.pod, caller.verifier)
    assert (await put_several(stranger, share))[1]["reason"] == "KeyUnknown"
    assert (await caller.call("PUT", "/v1/rollouts", body.replace(b"shares/v1", b"shares/v2")))[0] == 400
    assert (await caller.call("PUT", "/v1/rollouts", share))[0] == 400
    many = json.dumps({"documents": ["{}"] * (DOCUMENTS_AT_ONCE + 1)}).encode()
    assert (await caller.call("PUT", "/v1/rollouts", many))[0] == 400
    assert (await caller.call("PUT", "/v1/rollouts", b"x" * (DOCUMENTS_BYTES + 1)))[0] == 413
    assert caller.pod.agent.truth().to_json()["rollouts"] == []


async def test_between_the_documents_of_a_request_the_agent_does_other_things(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may bring so many that a probe or a load would wait for seconds."""
    taken: list[str] = []
    between: list[int] = []
    accept = caller.pod.agent.accept

    def noted(share: Share) -> bool:
        asyncio.get_running_loop().call_soon(lambda: between.append(len(taken)))
        taken.append(share.rollout)
        return accept(share)

    monkeypatch.setattr(caller.pod.agent, "accept", noted)
    shares = [caller.pod.share(rollout=f"r{number}") for number in range(4)]
    assert (await put_several(caller, *(share.to_bytes() for share in shares)))[0] == 200
    assert between == [1, 2, 3, 4]


async def test_a_document_by_which_the_agent_fails_costs_the_others_nothing(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = caller.pod.agent.accept

    def fails_for_one(share: Share) -> bool:
        if share.rollout == "second":
            raise OSError("no space left on device")
        return accept(share)

    monkeypatch.setattr(caller.pod.agent, "accept", fails_for_one)
    shares = [caller.pod.share(rollout=name, adapterName=name) for name in ("first", "second", "third")]
    before = counted("Internal")
    status, told = await put_several(caller, *(share.to_bytes() for share in shares))
    assert status == 200
    assert [each["refused"] and each["refused"]["reason"] for each in told["answers"]] == [None, "Internal", None]
    assert "no space left" in told["answers"][1]["refused"]["message"]
    assert counted("Internal") == before + 1
    assert [each["rollout"] for each in caller.pod.agent.truth().to_json()["rollouts"]] == ["first", "third"]


async def test_a_body_is_read_only_as_far_as_its_path_may_have_one_and_only_with_a_token(caller: Caller) -> None:
    large, several = b"x" * (DOCUMENT_BYTES + 1), "/v1/rollouts"
    for path in (several, "/v1/rollouts/guide"):
        async with caller.client.put(path, data=b"x" * (DOCUMENTS_BYTES + 1)) as response:
            assert (response.status, (await response.json())["reason"]) == (401, "TokenMissing")
    reasons = {
        (method, path): (await caller.call(method, path, large))[1]["reason"]
        for method, path in (
            ("PUT", several),
            ("PUT", "/v1/rollouts/guide"),
            ("DELETE", "/v1/rollouts/guide"),
            ("GET", several),
        )
    }
    assert reasons.pop(("PUT", several)) == "DocumentInvalid"
    assert set(reasons.values()) == {"TooLarge"}
    stranger = Caller(caller.client, Ed25519PrivateKey.generate(), caller.pod, caller.verifier)
    assert (await stranger.call("PUT", "/v1/rollouts/guide", large))[0] == 413


async def test_calls_that_are_not_ours_change_nothing(caller: Caller) -> None:
    pod = caller.pod
    old, share = pod.share(), pod.share()
    path = "/v1/rollouts/guide"
    async with caller.client.put(path, data=share.to_bytes()) as response:
        assert (response.status, (await response.json())["reason"]) == (401, "TokenMissing")
    stranger = Caller(caller.client, Ed25519PrivateKey.generate(), pod, caller.verifier)
    assert (await stranger.put(share))[1]["reason"] == "KeyUnknown"
    assert (await caller.call("PUT", "/v1/rollouts/other", share.to_bytes()))[0] == 400
    assert (await caller.put(share, "DELETE"))[0] == 400
    assert (await caller.call("PUT", path, b"{}"))[0] == 400
    assert (await caller.call("PUT", path, b"x" * 70_000))[0] == 413
    assert pod.agent.truth().to_json()["rollouts"] == []
    assert (await caller.put(share))[0] == 200
    assert (await caller.put(share))[0] == 200
    status, refused = await caller.put(old)
    assert (status, refused["reason"]) == (409, "SequenceOld")


async def test_waiting_for_a_change_ends_with_it(caller: Caller) -> None:
    pod = caller.pod
    version = await pod.at_rest()
    query = f"?after={version}&waitSeconds={LONGEST_WAIT:g}"
    waiting = asyncio.create_task(caller.call("GET", "/v1/rollouts", query=query))
    await pod.looks(2)
    assert not waiting.done()
    assert pod.agent.version == version
    await caller.put(pod.share(pod.publish()))
    status, truth = await waiting
    assert status == 200
    assert truth["version"] > version
    assert (await caller.call("GET", "/v1/rollouts", query="?after=x"))[0] == 400


async def test_probes_and_metrics_need_no_token_and_no_engine(caller: Caller) -> None:
    await caller.pod.server.stop()
    for path in ("/readyz", "/healthz", "/metrics"):
        async with caller.client.get(path) as response:
            text = await response.text()
            assert (path, response.status) == (path, 200)
    assert "trimtab_agent_engine_up" in text
    (caller.pod.volume_folder / "token").unlink()
    async with caller.client.get("/readyz") as response:
        assert response.status == 503


async def test_mounted_documents_are_for_the_pods_they_name(caller: Caller, tmp_path: Path) -> None:
    pod = caller.pod
    labels = tmp_path / "labels"
    labels.write_text('app="vllm"\ntier="a\\"b"\n')
    assert read_labels(labels) == {"app": "vllm", "tier": 'a"b'}
    folder = tmp_path / "desired"
    folder.mkdir()
    mounted = MountedDocuments(folder, labels, caller.verifier, pod.agent)
    adapter = pod.publish()

    def mount(name: str, share: Share, key: Ed25519PrivateKey) -> None:
        body = share.to_bytes()
        token = sign_mounted(key, AUDIENCE, body, 0)
        (folder / name).write_bytes(MountedDocument(body, token).to_bytes())

    new_key = Ed25519PrivateKey.generate()
    mount("a.json", pod.share(adapter, alias=adapter, matchLabels={"app": "vllm"}), caller.key)
    mount("b.json", pod.share(rollout="other", matchLabels={"app": "else"}), caller.key)
    mount("c.json", pod.share(rollout="later"), new_key)
    (folder / "d.json").write_text("torn")
    mounted.read()
    assert [rollout["rollout"] for rollout in pod.agent.truth().to_json()["rollouts"]] == ["guide"]
    await pod.until_ready()
    assert await pod.ask() == (200, adapter.name("guide"))
    (tmp_path / "keys" / "two.pem").write_bytes(public(new_key))
    mounted.read()
    assert [rollout["rollout"] for rollout in pod.agent.truth().to_json()["rollouts"]] == ["guide", "later"]


async def test_what_cannot_be_read_of_mounted_documents_is_said_and_tried_again(
    caller: Caller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pod, folder, labels = caller.pod, tmp_path / "desired", tmp_path / "labels"
    (folder / "a.json").mkdir(parents=True)
    body = pod.share(matchLabels={"app": "vllm"}).to_bytes()
    document = MountedDocument(body, sign_mounted(caller.key, AUDIENCE, body, 0))
    (folder / "b.json").write_bytes(document.to_bytes())
    mounted = MountedDocuments(folder, labels, caller.verifier, pod.agent)
    mounted.read()
    assert [record.message for record in caplog.records] == ["labels not read, no mounted document is taken"]
    assert pod.agent.truth().to_json()["rollouts"] == []
    labels.write_text('app="vllm"\n')
    mounted.read()
    assert [record.message for record in caplog.records][1:] == ["mounted document not read"]
    assert [rollout["rollout"] for rollout in pod.agent.truth().to_json()["rollouts"]] == ["guide"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 100", b"half of it"),
        ("Content-Length: 100", b""),
        ("Transfer-Encoding: chunked", b"5\r\nhalf "),
        ("Content-Length: 9\r\nContent-Encoding: gzip", b"not gzip!"),
    ],
    ids=["left", "left-at-once", "left-in-a-chunk", "no-gzip"],
)
@pytest.mark.parametrize("token", ["Authorization: Bearer t\r\n", ""], ids=["token", "none"])
async def test_a_body_that_does_not_come_whole_is_refused_without_a_traceback(
    caller: Caller, headers: str, body: bytes, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "BodyIncomplete" if token else "TokenMissing"
    refused = counted(reason)
    assert caller.server is not None
    runner = web.AppRunner(caller.server.application(), access_log=None)  # a TestServer cancels what others do not
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(f"PUT /v1/rollouts/guide HTTP/1.1\r\nHost: agent\r\n{token}{headers}\r\n\r\n".encode() + body)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await caller.pod.until(lambda: counted(reason) > refused)
    finally:
        await runner.cleanup()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("trimtab_agent_documents_total", {"result": result}) or 0.0
