"""Whom agents believe: documents of the operator, for them, of now; and a key can be changed under way."""

from __future__ import annotations

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, namespace_audience, read_share, sign_mounted

from tests.component.rollout.objects import artifact
from tests.component.rollout.scene import NAME, Scene, load_key, new_key
from tests.serving.fleet import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def held(scene: Scene, pod: Pod) -> Share:
    """Return the share that the operator has sent, as the ConfigMap holds it too."""
    return read_share(MountedDocument.read((await scene.mounted_files())[f"{NAME}.json"].encode()).body)


async def test_forged_replayed_and_expired_calls_change_nothing(scene: Scene) -> None:
    pod, other = await scene.pods(2)
    adapter, evil = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    await scene.answers(scene.mounted_revision, adapter.name(NAME))
    share = await held(scene, pod)
    bad = {"name": evil.name(NAME), "uri": evil.uri, "digest": evil.digest}
    forged = Share.model_validate({**share.to_json(), "sequence": [9, 9], "revisions": [bad], "aliases": {}})
    stranger = Ed25519PrivateKey.generate()
    minute = time.time() - 600
    answers = {
        "by a stranger": await scene.call(pod, "PUT", forged, key=stranger),
        "for another pod": await scene.call(pod, "PUT", forged, audience=f"trimtab-agent:{other.uid}"),
        "for another namespace": await scene.call(pod, "PUT", forged, audience=namespace_audience("else")),
        "for another path": await scene.call(pod, "PUT", forged, path="/v1/rollouts/else"),
        "for another body": await scene.call(pod, "PUT", forged, body=b"{}"),
        "of ten minutes ago": await scene.call(pod, "PUT", forged, now=minute),
        "no token at all": await scene.call(pod, "PUT", forged, token="x"),
        "what was mounted": await scene.call(pod, "PUT", share, token=await mounted_token(scene, share)),
        "an older document": await scene.call(pod, "PUT", share.model_copy(update={"sequence": (0, 1)})),
    }
    found = {what: (status, body["reason"]) for what, (status, body) in answers.items()}
    assert found == {
        "by a stranger": (401, "KeyUnknown"),
        "for another pod": (403, "AudienceWrong"),
        "for another namespace": (403, "AudienceWrong"),
        "for another path": (403, "TokenElsewhere"),
        "for another body": (403, "BodyChanged"),
        "of ten minutes ago": (401, "TokenExpired"),
        "no token at all": (401, "TokenInvalid"),
        "what was mounted": (401, "TokenInvalid"),
        "an older document": (409, "SequenceOld"),
    }
    await asyncio.sleep(0.5)
    assert set(pod.engine.loaded) == {adapter.name(NAME)}
    assert await pod.ask(NAME) == (200, adapter.name(NAME), adapter.marker)


async def mounted_token(scene: Scene, share: Share) -> str:
    """Return a token of the operator's own key that is no call's."""
    key = load_key(max(scene.keys.glob("*.pem")))
    return sign_mounted(key, namespace_audience(share.namespace), share.to_bytes(), time.time())


async def test_a_forged_document_in_the_config_map_is_not_believed_and_is_replaced(scene: Scene) -> None:
    (pod,) = await scene.pods(1)
    adapter, evil = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    await scene.answers(scene.mounted_revision, adapter.name(NAME))
    share = await held(scene, pod)
    bad = {"name": evil.name(NAME), "uri": evil.uri, "digest": evil.digest}
    aliases = {NAME: {evil.name(NAME): 100}}
    forged = Share.model_validate({**share.to_json(), "sequence": [9, 9], "revisions": [bad], "aliases": aliases})
    token = sign_mounted(Ed25519PrivateKey.generate(), namespace_audience(scene.namespace), forged.to_bytes(), 0)
    await scene.mount(f"{NAME}.json", MountedDocument(forged.to_bytes(), token).to_bytes().decode())
    await asyncio.sleep(2 * scene.fleet.mount_seconds)
    (new,) = await scene.pods(1)
    for each in (pod, new):
        assert evil.name(NAME) not in each.engine.loaded
        assert evil.name(NAME) not in each.ever_meant(NAME)
    await scene.served(adapter)


async def test_a_key_is_changed_while_everything_serves(scene: Scene) -> None:
    """The new key signs when every agent knows it; then the old one is taken away, and its documents with it."""
    (pod,) = await scene.pods(1)
    first, second, third = (scene.fleet.publish() for _ in range(3))
    await scene.apply(artifact(first))
    await scene.served(first)
    old = min(scene.keys.glob("*.pem"))
    new_key(scene.keys, f"key-{time.time_ns()}")
    await scene.operator.kill()  # a running one reads the folder again within ten seconds
    await scene.operator.start()
    await scene.edit(source=artifact(second))
    await scene.served(second)
    await scene.happens(
        lambda: len(list((scene.fleet.mounts(scene.namespace) / "keys").glob("*.pem"))) == 2, "two keys"
    )
    old.unlink()
    await scene.operator.kill()
    await scene.operator.start()
    await scene.edit(source=artifact(third))
    await scene.served(third)
    await scene.answers(scene.mounted_revision, third.name(NAME))
    await scene.happens(lambda: keys_mounted(scene) == 1, "the agents know the new one only")
    (started,) = await scene.pods(1)
    for each in (pod, started):
        assert await each.ask(NAME) == (200, third.name(NAME), third.marker)


def keys_mounted(scene: Scene) -> int:
    return len(list((scene.fleet.mounts(scene.namespace) / "keys").glob("*.pem")))
