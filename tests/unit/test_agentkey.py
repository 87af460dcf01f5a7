"""The Secret with the signing key: made once, and never touched again."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kubernetes.aio.client import Configuration
from trimtab_operator import agentkey
from trimtab_operator.agentkey import FILE, SECRETS, ensure, run
from trimtab_operator.runtime.kube import ApiError, Kube, Unreachable
from trimtab_operator.runtime.pods.signing import SigningKeys

from tests.unit.runtime.fake_api import FakeApi

NAMESPACE, NAME = "trimtab-system", "trimtab-agent-key"
THEIRS = {"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": {"key-2.pem": "theirs"}}


def made(api: FakeApi) -> bytes:
    return base64.b64decode(api.objects["secrets", NAMESPACE, NAME]["data"][FILE])


async def test_the_key_is_one_that_the_operator_signs_with(tmp_path: Path) -> None:
    api = FakeApi()
    assert await ensure(api, NAMESPACE, NAME)
    assert made(api).startswith(b"-----BEGIN PRIVATE KEY-----"), "PKCS8"
    assert isinstance(load_pem_private_key(made(api), None), Ed25519PrivateKey)
    (tmp_path / FILE).write_bytes(made(api))
    assert len(SigningKeys(tmp_path).all()) == 1


async def test_every_installation_has_a_key_of_its_own() -> None:
    one, other = FakeApi(), FakeApi()
    await ensure(one, NAMESPACE, NAME)
    await ensure(other, NAMESPACE, NAME)
    assert made(one) != made(other)


async def test_a_second_run_writes_nothing() -> None:
    api = FakeApi()
    await ensure(api, NAMESPACE, NAME)
    key = made(api)
    assert not await ensure(api, NAMESPACE, NAME)
    assert made(api) == key
    assert len(api.writes()) == 1


async def test_a_secret_of_a_person_is_left_as_it_is() -> None:
    api = FakeApi()
    api.put(SECRETS, THEIRS)
    assert not await ensure(api, NAMESPACE, NAME)
    assert api.writes() == []


async def test_of_two_that_run_at_once_the_first_makes_the_key() -> None:
    api = FakeApi()

    def meanwhile(verb: str, plural: str, name: str) -> None:
        if verb == "create":
            api.before = lambda *_: None
            api.put(SECRETS, THEIRS)

    api.before = meanwhile
    assert not await ensure(api, NAMESPACE, NAME)
    assert api.objects["secrets", NAMESPACE, NAME]["data"] == THEIRS["data"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """What `run` talks to instead of a cluster."""
    api = FakeApi()

    async def nowhere() -> Configuration:
        return Configuration()

    monkeypatch.setattr(agentkey, "load_configuration", nowhere)
    monkeypatch.setattr(Kube, "get", lambda _, *arguments: api.get(*arguments))
    monkeypatch.setattr(Kube, "create", lambda _, *arguments: api.create(*arguments))
    return api


async def test_no_log_holds_the_key(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert await run(NAMESPACE, NAME) == 0
        assert await run(NAMESPACE, NAME) == 0
    said = " ".join(str(record.__dict__) for record in caplog.records)
    assert "signing key made" in said
    assert "signing key is there already" in said
    assert "PRIVATE" not in said
    assert base64.b64encode(made(api)).decode() not in said


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "no right"), Unreachable("no answer")])
async def test_what_went_wrong_is_the_last_line(
    api: FakeApi, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(verb: str, plural: str, name: str) -> None:
        raise error

    api.before = refuse
    assert await run(NAMESPACE, NAME) == 1
    assert str(error) in str(caplog.records[-1].__dict__)
