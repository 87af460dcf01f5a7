"""The two ConfigMaps of a namespace that serves: keys, and documents that new pods start from."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, Verifier, namespace_audience
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.kube import CONFIGMAPS, ApiError, Body, NotFound
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
    busy, api.before = True, failing("patch", "configmaps", ApiError(500, "InternalError", "down"))
    await desired.put(share("d"), key, now=1_700_000_000)
    busy = False
    async with asyncio.timeout(10):
        while told != [Key("AdapterRollout", NAMESPACE, "d")]:
            await asyncio.sleep(0.01)
    assert await desired.held(NAMESPACE, "d") is None
