"""Who may tell a pod what: signed calls, mounted documents, and shares that make sense."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from trimtab_agent import documents
from trimtab_agent.documents import (
    MountedDocument,
    PublicKeys,
    Verifier,
    key_id,
    namespace_audience,
    pod_audience,
    read_share,
    sign_call,
    sign_mounted,
)

from tests.unit.agent.written import DIGEST, NAME, refused, share

AUDIENCE = namespace_audience("team")


def put_key(folder: Path, name: str, key: Ed25519PrivateKey) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def verifier(tmp_path: Path, key: Ed25519PrivateKey) -> Verifier:
    put_key(tmp_path / "keys", "one.pem", key)
    return Verifier(PublicKeys(tmp_path / "keys"), (AUDIENCE, pod_audience("pod-1")))


PATH = "/v1/rollouts/guide"


def token(key: Ed25519PrivateKey, from_now: float = 0, **changes: Any) -> str:
    given: dict[str, Any] = {"method": "PUT", "path": PATH, "body": b"body", "now": time.time() + from_now, **changes}
    audience = given.pop("audience", AUDIENCE)
    return sign_call(key, audience, **given)


@pytest.mark.parametrize("audience", [AUDIENCE, pod_audience("pod-1")])
def test_a_signed_call_is_accepted_by_the_namespace_or_the_pod(
    verifier: Verifier, key: Ed25519PrivateKey, audience: str
) -> None:
    verifier.call(token(key, audience=audience), "PUT", PATH, b"body")
    document = MountedDocument(b"body", sign_mounted(key, audience, b"body", 0))
    verifier.mounted(MountedDocument.read(document.to_bytes()))


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "another audience": ({"audience": namespace_audience("other")}, (403, "AudienceWrong")),
    "another body": ({"body": b"changed"}, (403, "BodyChanged")),
    "another method": ({"method": "DELETE"}, (403, "TokenElsewhere")),
    "another path": ({"path": "/v1/rollouts/other"}, (403, "TokenElsewhere")),
    "it is over": ({"from_now": -1000}, (401, "TokenExpired")),
    "it is not yet": ({"from_now": 1000}, (401, "TokenInvalid")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_token_for_something_else_is_refused(verifier: Verifier, key: Ed25519PrivateKey, case: str) -> None:
    changes, want = REFUSED[case]
    assert refused(lambda: verifier.call(token(key, **changes), "PUT", PATH, b"body")) == want


def test_forged_tokens_are_refused(verifier: Verifier, key: Ed25519PrivateKey) -> None:
    stranger = Ed25519PrivateKey.generate()
    assert refused(lambda: verifier.call(token(stranger), "PUT", PATH, b"body")) == (401, "KeyUnknown")
    kid = {"kid": key_id(key.public_key())}
    claims = jwt.decode(token(key), options={"verify_signature": False})
    forgeries = [
        jwt.encode(claims, stranger, algorithm="EdDSA", headers=kid),
        jwt.encode(claims, "", algorithm="none", headers=kid),
        jwt.encode(claims, "x" * 64, algorithm="HS256", headers=kid),
        jwt.encode(claims, generate_private_key(SECP256R1()), algorithm="ES256", headers=kid),
        jwt.encode({**claims, "iss": "other"}, key, algorithm="EdDSA", headers=kid),
        "no.token.atall",
        "",
    ]
    for forged in forgeries:
        assert refused(partial(verifier.call, forged, "PUT", PATH, b"body")) == (401, "TokenInvalid")
    long = jwt.encode({**claims, "exp": claims["iat"] + 90000}, key, algorithm="EdDSA", headers=kid)
    assert refused(lambda: verifier.call(long, "PUT", PATH, b"body")) == (401, "TokenTooLong")


def test_mounted_documents_and_calls_cannot_stand_for_each_other(verifier: Verifier, key: Ed25519PrivateKey) -> None:
    mounted = sign_mounted(key, AUDIENCE, b"body", time.time())
    assert refused(lambda: verifier.call(mounted, "PUT", PATH, b"body")) == (401, "TokenInvalid")  # it has no expiry
    call = MountedDocument(b"body", token(key))
    assert refused(lambda: verifier.mounted(call)) == (403, "TokenElsewhere")


def test_a_key_is_replaced_while_it_runs(tmp_path: Path, verifier: Verifier, key: Ed25519PrivateKey) -> None:
    new = Ed25519PrivateKey.generate()
    assert refused(lambda: verifier.call(token(new), "PUT", PATH, b"body")) == (401, "KeyUnknown")
    put_key(tmp_path / "keys", "two.pem", new)
    (tmp_path / "keys" / "no-key.pem").write_text("text")
    verifier.call(token(new), "PUT", PATH, b"body")
    verifier.call(token(key), "PUT", PATH, b"body")
    assert set(verifier.keys.read()) == {key_id(key.public_key()), key_id(new.public_key())}
    (tmp_path / "keys" / "one.pem").unlink()
    assert refused(lambda: verifier.call(token(key), "PUT", PATH, b"body")) == (401, "KeyUnknown")


INVALID: dict[str, dict[str, Any]] = {
    "another version": {"version": "trimtab.dev/share/v2"},
    "a sequence that no number holds": {"sequence": [1, 2**70]},
    "alias to a stranger": {"aliases": {"guide": {"guide@bbbbbbbb": 1}}},
    "alias without weight": {"aliases": {"guide": {NAME: 0}}},
    "name of another adapter": {"adapterName": "other"},
    "name of another digest": {"revisions": [{"name": "guide@cccccccc", "uri": "s3://a/x", "digest": DIGEST}]},
    "a path as alias": {"aliases": {"../x": {NAME: 1}}},
    "an http uri": {"revisions": [{"name": NAME, "uri": "http://x/y", "digest": DIGEST}]},
    "twice": {"revisions": [{"name": NAME, "uri": "s3://a/x", "digest": DIGEST}] * 2},
    "retired and wanting": {"retired": True},
}


@pytest.mark.parametrize("case", INVALID)
def test_a_share_that_makes_no_sense_is_refused(case: str) -> None:
    assert refused(lambda: share(**INVALID[case])) == (400, "DocumentInvalid")


def test_a_share_of_a_later_operator_is_understood_as_far_as_it_can_be() -> None:
    later = {"more": 1, "probe": {"kind": "Embedding", "dimensions": 64}, "revisions": []}
    assert share(**later, aliases={}).probe.kind == "Embedding"


def test_too_large_and_torn_documents_are_refused() -> None:
    assert refused(lambda: read_share(b" " * 70_000)) == (413, "TooLarge")
    assert refused(lambda: read_share(b"{")) == (400, "DocumentInvalid")
    assert refused(lambda: MountedDocument.read(b"[]")) == (400, "DocumentInvalid")
    assert refused(lambda: MountedDocument.read(b"[" * 60_000)) == (400, "DocumentInvalid")


def test_a_key_is_parsed_once_and_another_in_its_place_is_seen_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call reads the folder, twice; of a fleet that was a twentieth of the work."""
    parsed = list[bytes]()

    def load(pem: bytes) -> Any:
        parsed.append(pem)
        return load_pem_public_key(pem)

    monkeypatch.setattr(documents, "load_pem_public_key", load)
    old, new = (Ed25519PrivateKey.generate().public_key() for _ in range(2))
    file = tmp_path / "key.pem"
    keys = PublicKeys(tmp_path)
    for key in (old, old, new, new, old):
        file.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert list(keys.read()) == [key_id(key)]
    assert len(parsed) == 2
    file.write_bytes(b"no key")
    assert keys.read() == {}
    file.unlink()
    assert keys.read() == {}
