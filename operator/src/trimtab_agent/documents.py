"""Signed documents: reading a share, and the token that proves who wrote it.

A token is a JWT signed with Ed25519. It binds the exact bytes of one document to one audience: a call's token (`use:
call`) also to a method and a path, and it expires within minutes; a mounted document's (`use: mount`) may live as long
as the ConfigMap it lies in, and is worth nothing over HTTP. Agents hold public keys only, several while one is changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import ValidationError

from .contract import DOCUMENT_BYTES, Documents, Probe, ProbeKind, Revision, Share

__all__ = [
    "MountedDocument",
    "Probe",
    "ProbeKind",
    "PublicKeys",
    "Refused",
    "Revision",
    "Share",
    "Verifier",
    "key_id",
    "namespace_audience",
    "pod_audience",
    "read_documents",
    "read_share",
    "sign_call",
    "sign_mounted",
]

ISSUER = "trimtab"
CALL_SECONDS = 120
"""How long a call's token is good, and the most an agent accepts."""
LEEWAY_SECONDS = 30
"""How far the clocks of the operator's and the agent's node may differ."""


class Refused(Exception):
    """A document or token that changes nothing: the HTTP status, a reason in one word, and what to do."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def read_share(body: bytes) -> Share:
    """Return the share in a document.

    Raises:
        Refused: 400, the document is not one.
    """
    if len(body) > DOCUMENT_BYTES:
        raise Refused(413, "TooLarge", f"a share has at most {DOCUMENT_BYTES} bytes")
    try:
        return Share.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def read_documents(body: bytes) -> tuple[bytes, ...]:
    """Return the documents of a request with several, each of which is still to be read.

    Raises:
        Refused: 400, it is no such request.
    """
    try:
        return tuple(text.encode() for text in Documents.model_validate_json(body).documents)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return Refused(400, "DocumentInvalid", f"{place}: {first['msg']}".lstrip(": "))


@dataclass(frozen=True)
class MountedDocument:
    """A document as the ConfigMap holds it: `{"document": <JSON text>, "token": <JWT>}`."""

    body: bytes
    token: str

    @staticmethod
    def read(data: bytes) -> MountedDocument:
        """Parse one file.

        Raises:
            Refused: 400, it is no such file.
        """
        try:
            content = json.loads(data)
            return MountedDocument(content["document"].encode(), str(content["token"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refused(400, "DocumentInvalid", "no mounted document: {document, token} was expected") from None

    def to_bytes(self) -> bytes:
        """Return what to put into the ConfigMap."""
        return json.dumps({"document": self.body.decode(), "token": self.token}).encode()


# Signing: the operator's side


def key_id(key: Ed25519PublicKey) -> str:
    """Return the id of a key: the first 16 digits of the sha256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def sign_call(key: Ed25519PrivateKey, audience: str, *, method: str, path: str, body: bytes, now: float) -> str:
    """Return the token for one call of an agent; `now` in seconds since 1970."""
    claims = {"use": "call", "iat": int(now), "exp": int(now) + CALL_SECONDS, "method": method, "path": path}
    return _sign(key, audience, body, claims)


def sign_mounted(key: Ed25519PrivateKey, audience: str, body: bytes, now: float) -> str:
    """Return the token for a document in the ConfigMap; it does not expire, a newer sequence replaces it."""
    return _sign(key, audience, body, {"use": "mount", "iat": int(now)})


def _sign(key: Ed25519PrivateKey, audience: str, body: bytes, claims: dict[str, object]) -> str:
    claims = {"iss": ISSUER, "aud": audience, "sha256": hashlib.sha256(body).hexdigest(), **claims}
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": key_id(key.public_key())})


def namespace_audience(namespace: str) -> str:
    """Return the audience that means every agent of a namespace."""
    return f"trimtab-agents:{namespace}"


def pod_audience(uid: str) -> str:
    """Return the audience that means one pod."""
    return f"trimtab-agent:{uid}"


# Verification: the agent's side


class PublicKeys:
    """The PEM files of a folder, read at every use: it is small, and the kubelet replaces them while this runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, Ed25519PublicKey]:
        """Return the keys by id; files that are no Ed25519 public key are left out."""
        found = {}
        for file in sorted(self._folder.glob("*")) if self._folder.is_dir() else []:
            try:
                key = _public_key(file.read_bytes())
            except OSError:
                continue
            if key is not None:
                found[key[0]] = key[1]
        return found


@lru_cache(maxsize=64)
def _public_key(pem: bytes) -> tuple[str, Ed25519PublicKey] | None:
    """Return the Ed25519 public key in a file, with its id, None where there is none: read often, seldom another."""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        return None
    return (key_id(key), key) if isinstance(key, Ed25519PublicKey) else None


class KeysById(Protocol):
    """Whoever knows public keys."""

    def read(self) -> dict[str, Ed25519PublicKey]:
        """Return the keys of now, by id."""


class Verifier:
    """Checks tokens against the keys of now."""

    def __init__(self, keys: KeysById, audiences: tuple[str, ...]) -> None:
        self.keys = keys
        self._audiences = list(audiences)

    def call(self, token: str, method: str, path: str, body: bytes) -> None:
        """Check the token of a call.

        Raises:
            Refused: 401 where the token is none of ours or is over; 403 where it is ours, but for something else.
        """
        claims = self._claims(token, body, ["exp", "iat"])
        if claims["exp"] - claims["iat"] > CALL_SECONDS:
            raise Refused(401, "TokenTooLong", f"a call's token lives at most {CALL_SECONDS} seconds")
        if (claims.get("use"), claims.get("method"), claims.get("path")) != ("call", method, path):
            raise Refused(403, "TokenElsewhere", f"the token is not for {method} {path}")

    def mounted(self, document: MountedDocument) -> None:
        """Check the token of a mounted document.

        Raises:
            Refused: as `call`.
        """
        if self._claims(document.token, document.body, ["iat"]).get("use") != "mount":
            raise Refused(403, "TokenElsewhere", "the token is not for a mounted document")

    def _claims(self, token: str, body: bytes, required: list[str]) -> dict[str, Any]:
        keys = self.keys.read()
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            if kid not in keys:
                known = ", ".join(keys) or "none"
                raise Refused(401, "KeyUnknown", f"the token is signed by key {str(kid)[:16]}; known here: {known}")
            claims: dict[str, Any] = jwt.decode(
                token,
                keys[kid],
                algorithms=["EdDSA"],
                audience=self._audiences,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "sha256", *required]},
            )
        except jwt.InvalidAudienceError:
            raise Refused(403, "AudienceWrong", f"the token is not for {' or '.join(self._audiences)}") from None
        except jwt.ExpiredSignatureError:
            raise Refused(401, "TokenExpired", "the token is over; compare the nodes' clocks if it is new") from None
        except jwt.PyJWTError as error:
            raise Refused(401, "TokenInvalid", f"the token is not valid: {error}") from None
        if claims["sha256"] != hashlib.sha256(body).hexdigest():
            raise Refused(403, "BodyChanged", "the token was signed for another body")
        return claims
