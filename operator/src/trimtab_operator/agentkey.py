"""`python -m trimtab_operator.agentkey`: make the key that signs documents for agents, once.

The chart's hook Job runs it before an installation and before an upgrade. A Secret that is there is left as it is,
whatever it holds: it may be a person's, or have a second key because one is being changed. Exit codes: 0 the Secret is
there; 1 it is not, and the last line says why.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import sys
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .runtime import logs
from .runtime.kube import AlreadyExists, ApiError, Body, Kube, NotFound, Resource, Unreachable, load_configuration

log = logging.getLogger("trimtab_operator.agentkey")

SECRETS = Resource("", "v1", "secrets", "Secret")
FILE = "key-1.pem"
LABELS = {"app.kubernetes.io/part-of": "trimtab", "app.kubernetes.io/component": "agent-key"}


class Api(Protocol):
    """The two verbs that this needs, and that the hook's Role grants."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body: ...

    async def create(self, resource: Resource, namespace: str, body: Body) -> Body: ...


def new_key() -> bytes:
    """Return a fresh Ed25519 private key, as PKCS8 in PEM."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def secret(namespace: str, name: str, pem: bytes) -> Body:
    """Return the Secret with its first key. It belongs to no release, so nothing but a person removes it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "type": "Opaque",
        "data": {FILE: base64.b64encode(pem).decode()},
    }


async def ensure(api: Api, namespace: str, name: str) -> bool:
    """Have the Secret there; return whether it was made now.

    A creation is refused where something of the name exists, so two that run at once cannot replace each other's key.
    """
    try:
        await api.get(SECRETS, namespace, name)
    except NotFound:
        pass  # it is made below
    else:
        return False
    try:
        await api.create(SECRETS, namespace, secret(namespace, name, new_key()))
    except AlreadyExists:
        return False
    return True


async def run(namespace: str, name: str) -> int:
    """Return the exit code."""
    kube = Kube(await load_configuration())
    about = logs.keys(namespace=namespace, secret=name)
    try:
        made = await ensure(kube, namespace, name)
    except (ApiError, Unreachable) as error:
        log.error("no signing key", extra={**about, **logs.keys(err=str(error))})
        return 1
    finally:
        await kube.close()
    log.info("signing key made" if made else "signing key is there already", extra=about)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m trimtab_operator.agentkey", description=__doc__)
    parser.add_argument("--namespace", required=True, help="namespace of the operator")
    parser.add_argument("--secret", required=True, help="name of the Secret")
    options = parser.parse_args(arguments)
    logs.configure("INFO")
    return asyncio.run(run(options.namespace, options.secret))


if __name__ == "__main__":
    sys.exit(main())
