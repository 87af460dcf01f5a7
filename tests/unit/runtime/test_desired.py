"""The two ConfigMaps of a namespace that serves: keys, and documents that new pods start from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, Verifier, namespace_audience
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.kube import CONFIGMAPS, ApiError, Body, Invalid, NotFound, Resource
from trimtab_operator.runtime.pods import desired as desired_module
from trimtab_operator.runtime.pods.desired import AGENT_KEYS, DESIRED, Desired
from trimtab_operator.runtime.pods.signing import SigningKeys

from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.serving import LETTERS, new_key


@pytest.fixture
def signing(tmp_path: Path) -> SigningKeys:
    new_key(tmp_path / "keys", "key-1.pem")
    return SigningKeys(tmp_path / "keys")


def share(name: str = "guide") -> Share:
    revision = {"name": f"{name}@aaaaaaaa", "uri": "s3://adapters/x", "digest": LETTERS["a"]}
    return Share.model_validate(
        {
            "namespace": NAMESPACE,
            "rollout": name,
            "uid": "u",
            "sequence": [1, 2],
            "adapterName": name,
            "revisions": [revision],
        }
    )


def data(api: FakeApi, name: str) -> Body:
    found: Body = api.objects["configmaps", NAMESPACE, name]["data"]
    return found


async def test_exactly_the_public_halves_are_published_once(signing: SigningKeys) -> None:
    api = FakeApi()
    api.put(CONFIGMAPS, {"metadata": {"namespace": NAMESPACE, "name": AGENT_KEYS}, "data": {"old.pem": "of before"}})
    desired = Desired(api, signing)
    await desired.publish_keys(NAMESPACE)
    assert data(api, AGENT_KEYS) == signing.public_pems()
    assert "PRIVATE" not in json.dumps(data(api, AGENT_KEYS))
    writes = len(api.writes())
    await desired.publish_keys(NAMESPACE)
    assert len(api.writes()) == writes


LEAVING = 'configmaps "x" is forbidden: unable to create new content in namespace x because it is being terminated'


@pytest.mark.parametrize(
    "error", [NotFound(404, "NotFound", 'namespaces "x" not found'), ApiError(403, "Forbidden", LEAVING)]
)
async def test_a_namespace_that_leaves_gets_no_keys_and_is_not_tried_as_a_failure(
    signing: SigningKeys, error: ApiError
) -> None:
    api = FakeApi()
    free, api.before = api.before, failing("create", "configmaps", error)
    desired = Desired(api, signing)
    assert await desired.publish_keys(NAMESPACE) > 60
    api.before = free
    desired.forget(NAMESPACE)  # no pod is left there; then the namespace is made anew
    await desired.publish_keys(NAMESPACE)
    assert data(api, AGENT_KEYS) == signing.public_pems()


async def test_keys_that_are_refused_otherwise_are_a_failure(signing: SigningKeys) -> None:
    api = FakeApi()
    api.before = failing("create", "configmaps", ApiError(403, "Forbidden", "no right"))
    with pytest.raises(ApiError, match="no right"):
        await Desired(api, signing).publish_keys(NAMESPACE)


async def test_a_document_is_what_an_agent_of_the_namespace_takes(signing: SigningKeys) -> None:
    api, key = FakeApi(), signing.for_agents()
    assert key is not None
    desired = Desired(api, signing)
    assert await desired.held(NAMESPACE, "guide") is None
    await desired.put(share(), key, now=1_700_000_000)
    await desired.put(share("other"), key, now=1_700_000_000)
    document = MountedDocument.read(data(api, DESIRED)["guide.json"].encode())
    Verifier(signing, (namespace_audience(NAMESPACE),)).mounted(document)
    assert await desired.held(NAMESPACE, "guide") == share()
    assert await desired.rollouts(NAMESPACE) == {"guide", "other"}
    await desired.remove(NAMESPACE, "guide")
    assert set(data(api, DESIRED)) == {"other.json"}


async def test_what_is_gone_with_its_namespace_is_not_made_again_to_remove_a_document(signing: SigningKeys) -> None:
    api, key = FakeApi(), signing.for_agents()
    assert key is not None
    desired = Desired(api, signing)
    await desired.put(share(), key, now=1_700_000_000)
    del api.objects["configmaps", NAMESPACE, DESIRED]
    await desired.remove(NAMESPACE, "guide")
    assert await desired.rollouts(NAMESPACE) == set()
    assert ("configmaps", NAMESPACE, DESIRED) not in api.objects


async def test_a_document_that_was_tampered_with_counts_as_none(signing: SigningKeys) -> None:
    api, key = FakeApi(), signing.for_agents()
    assert key is not None
    await Desired(api, signing).put(share(), key, now=1_700_000_000)
    content = json.loads(data(api, DESIRED)["guide.json"])
    content["document"] = content["document"].replace("s3://adapters/x", "s3://adapters/y")
    data(api, DESIRED)["guide.json"] = json.dumps(content)
    assert await Desired(api, signing).held(NAMESPACE, "guide") is None


async def test_a_document_of_a_key_that_is_gone_counts_as_none(signing: SigningKeys, tmp_path: Path) -> None:
    api, key = FakeApi(), signing.for_agents()
    assert key is not None
    await Desired(api, signing).put(share(), key, now=1_700_000_000)
    (tmp_path / "keys" / "key-1.pem").unlink()
    new_key(tmp_path / "keys", "key-2.pem")
    assert await Desired(api, SigningKeys(tmp_path / "keys")).held(NAMESPACE, "guide") is None


async def test_what_somebody_else_wrote_beside_the_documents_names_no_rollout(signing: SigningKeys) -> None:
    api = FakeApi()
    odd = dict.fromkeys(("...json", "Guide.json", "notes.txt", ".json", "-a.json", "guide.json"), "x")
    api.put(CONFIGMAPS, {"metadata": {"namespace": NAMESPACE, "name": DESIRED}, "data": odd})
    assert await Desired(api, signing).rollouts(NAMESPACE) == {"guide"}


async def test_documents_of_rounds_that_wait_are_written_at_once_and_what_was_not_is_told(signing: SigningKeys) -> None:
    api, busy, told = FakeApi(), True, list[Key]()
    desired = Desired(api, signing, busy=lambda _: busy, changed=told.append)
    (key,) = signing.all()
    for name in ("a", "b", "c"):
        await desired.put(share(name), key, now=1_700_000_000)
    assert api.writes() == []
    held = await desired.held(NAMESPACE, "b")
    assert held == share("b"), "it counts as there, or each round would put it again"
    await desired.remove(NAMESPACE, "c")
    busy = False
    async with asyncio.timeout(10):
        while set(api.objects.get(("configmaps", NAMESPACE, DESIRED), {"data": {}})["data"]) != {"a.json", "b.json"}:
            await asyncio.sleep(0.01)
    assert told == []
    busy, api.before = True, failing("patch", "configmaps", Invalid(422, "Invalid", "no"))
    await desired.put(share("d"), key, now=1_700_000_000)
    busy = False
    async with asyncio.timeout(10):
        while told != [Key("AdapterRollout", NAMESPACE, "d")]:
            await asyncio.sleep(0.01)
    assert await desired.held(NAMESPACE, "d") is None


class Picky(FakeApi):
    """An API server that hangs until `free`, is `down` for a while, and refuses documents of `bad`."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.down = False
        self.put(CONFIGMAPS, {"metadata": {"namespace": NAMESPACE, "name": DESIRED}, "data": {}})

    async def patch(
        self, resource: Resource, namespace: str, name: str, content_type: str, patch: Any, **rest: Any
    ) -> Body:
        await self.free.wait()
        if self.down:
            raise ApiError(500, "InternalError", "down")
        if patch["data"].get("bad.json") is not None:
            raise Invalid(422, "Invalid", "bad")
        return await super().patch(resource, namespace, name, content_type, patch, **rest)

    def files(self) -> set[str]:
        return set(data(self, DESIRED))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired_module, "FIRST_PAUSE", 0.02, raising=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_round_whose_write_fails_loses_no_documents_of_others(signing: SigningKeys, soon: None) -> None:
    api, busy, told = Picky(), True, list[Key]()
    desired = Desired(api, signing, busy=lambda _: busy, changed=told.append)
    (key,) = signing.all()
    await desired.put(share("others"), key, now=1_700_000_000)
    busy, api.down = False, True
    with pytest.raises(ApiError, match="down"):
        await desired.put(share("mine"), key, now=1_700_000_000)
    assert await desired.held(NAMESPACE, "mine") is None, "its round does it again"
    assert await desired.held(NAMESPACE, "others") == share("others"), "it waits on"
    await asyncio.sleep(0.1)
    api.down = False
    await until(lambda: api.files() == {"others.json"})
    assert told == []


async def test_a_document_that_is_refused_spoils_no_other(signing: SigningKeys, soon: None) -> None:
    api, busy, told = Picky(), True, list[Key]()
    desired = Desired(api, signing, busy=lambda _: busy, changed=told.append)
    (key,) = signing.all()
    for name in ("a", "bad", "b"):
        await desired.put(share(name), key, now=1_700_000_000)
    busy = False
    await desired.put(share("c"), key, now=1_700_000_000)
    assert api.files() == {"a.json", "b.json", "c.json"}
    assert told == [Key("AdapterRollout", NAMESPACE, "bad")]
    with pytest.raises(Invalid):
        await desired.put(share("bad"), key, now=1_700_000_000)


async def test_what_is_put_while_others_are_written_is_written_too(signing: SigningKeys) -> None:
    api, busy = Picky(), True
    desired = Desired(api, signing, busy=lambda _: busy)
    (key,) = signing.all()
    api.free.clear()
    await desired.put(share("a"), key, now=1_700_000_000)
    busy = False
    await asyncio.sleep(0.3)
    busy = True
    await desired.put(share("b"), key, now=1_700_000_000)
    api.free.set()
    await asyncio.sleep(0.1)
    busy = False
    await until(lambda: api.files() == {"a.json", "b.json"})


async def test_what_was_removed_while_it_was_written_does_not_come_back(signing: SigningKeys, soon: None) -> None:
    api = Picky()
    desired = Desired(api, signing)
    (key,) = signing.all()
    await desired.put(share("a"), key, now=1_700_000_000)
    api.free.clear()
    api.down = True
    put = asyncio.create_task(desired.put(share("a"), key, now=1_700_000_001))
    await asyncio.sleep(0.05)
    remove = asyncio.create_task(desired.remove(NAMESPACE, "a"))
    await asyncio.sleep(0.05)
    api.free.set()
    for task in (put, remove):
        with pytest.raises(ApiError):
            await task
    api.down = False
    await desired.remove(NAMESPACE, "a")
    await asyncio.sleep(0.1)
    assert api.files() == set()


async def test_what_waits_in_a_namespace_that_is_forgotten_is_told_and_not_written(signing: SigningKeys) -> None:
    api, busy, told = Picky(), True, list[Key]()
    desired = Desired(api, signing, busy=lambda _: busy, changed=told.append)
    (key,) = signing.all()
    await desired.put(share("a"), key, now=1_700_000_000)
    desired.forget(NAMESPACE)
    busy = False
    await asyncio.sleep(0.3)
    assert api.files() == set()
    assert told == [Key("AdapterRollout", NAMESPACE, "a")]
