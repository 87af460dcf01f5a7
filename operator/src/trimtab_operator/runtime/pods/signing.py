"""The operator's private keys, as a mounted Secret brings them, and which of them signs for whom.

Several keys may be there while one is changed: the last by file name signs for every agent that says it knows it, an
earlier one for the others. So a new key is used only where its public half has arrived.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from trimtab_agent.documents import key_id

from ..logs import keys

log = logging.getLogger(__name__)

READ_AGAIN_SECONDS = 10.0


@dataclass(frozen=True)
class SigningKey:
    """A private key and the id that agents know it by."""

    id: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519PublicKey:
        return self.private.public_key()

    @property
    def public_pem(self) -> str:
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class SigningKeys:
    """The PEM files of a folder, read again every few seconds: the kubelet replaces them while this runs."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._read_at = float("-inf")
        self._keys: tuple[SigningKey, ...] = ()

    def all(self) -> tuple[SigningKey, ...]:
        """Return the keys, the newest last; none where the operator was given none."""
        now = self._clock()
        if self._folder is not None and now - self._read_at >= READ_AGAIN_SECONDS:
            self._keys, self._read_at = tuple(_read(self._folder)), now
        return self._keys

    def for_agents(self, *known: Collection[str]) -> SigningKey | None:
        """Return the newest key that all of some agents know; the oldest one where they have none in common."""
        candidates = self.all()
        for key in reversed(candidates):
            if all(key.id in ids for ids in known):
                return key
        return candidates[0] if candidates else None

    def public_pems(self) -> Mapping[str, str]:
        """Return the public halves by the name of their file."""
        return {f"{key.id}.pem": key.public_pem for key in self.all()}

    def read(self) -> dict[str, Ed25519PublicKey]:
        """Return the public halves by id, as a `Verifier` asks for them."""
        return {key.id: key.public for key in self.all()}


def _read(folder: Path) -> list[SigningKey]:
    found = []
    for file in sorted(folder.glob("*.pem")):
        try:
            key = load_pem_private_key(file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            log.error("signing key not readable", extra=keys(file=file.name, err=type(error).__name__))
            continue
        if isinstance(key, Ed25519PrivateKey):
            found.append(SigningKey(key_id(key.public_key()), key))
        else:
            log.error("signing key is not Ed25519", extra=keys(file=file.name))
    return found
