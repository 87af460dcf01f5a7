"""User and password of a registry, from a Secret of type kubernetes.io/dockerconfigjson; never part of a message."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from ...contract import Credentials, Reason
from ...contract.parsing import Unreadable, read_object
from ...errors import SettingsInvalid
from ...keyfiles import source_of

CONFIG, CERTIFICATES = ".dockerconfigjson", "ca.crt"
CONFIG_BYTES = 1 << 20
DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""One registry, under names of its own."""


@dataclass(frozen=True, repr=False)
class Login:
    """A user and a password."""

    user: str
    password: str


def read_login(credentials: Credentials | None, host: str, repository: str = "") -> Login | None:
    """Return the login for a repository of a registry, None where the Secret has none, or there is no Secret.

    One registry may have several, each for what is below a path, as Kubernetes reads them: the longest path counts.

    Raises:
        SettingsInvalid: CREDENTIALS_MISSING, the Secret is of another type or cannot be read.
    """
    if credentials is None:
        return None
    source = login_source(credentials)
    try:
        config = read_object((Path(credentials.directory) / CONFIG).read_bytes(), CONFIG_BYTES)
    except (OSError, Unreadable):
        raise SettingsInvalid(
            f"{source} has no key {CONFIG} that can be read; make it with kubectl create secret docker-registry",
            Reason.CREDENTIALS_MISSING,
        ) from None
    entries = config.get("auths")
    found: list[tuple[int, dict[str, object]]] = []
    for name, entry in (entries if isinstance(entries, dict) else {}).items():
        there, path = _place(str(name))
        of_it = not path or f"{repository}/".startswith(f"{path}/")
        if of_it and isinstance(entry, dict) and (there == host or (there in DOCKER_HUB and host in DOCKER_HUB)):
            found.append((len(path), entry))
    return _login(max(found, key=lambda each: each[0])[1], source) if found else None


def login_source(credentials: Credentials | None) -> str:
    """Return the words for where a login comes from."""
    return source_of(credentials) if credentials is not None else "destination.secretName, which is not set"


def read_certificates(credentials: Credentials | None) -> str | None:
    """Return the path of the certificates that a Secret has for its registry."""
    file = Path(credentials.directory) / CERTIFICATES if credentials is not None else None
    return str(file) if file is not None and file.exists() else None


def _place(name: str) -> tuple[str, str]:
    """Return the host and the path of an entry; v1 and v2 are versions of the protocol."""
    host, _, path = name.removeprefix("https://").removeprefix("http://").partition("/")
    return host, "" if path.strip("/") in ("v1", "v2") else path.strip("/")


def _login(entry: dict[str, object], source: str) -> Login:
    user, password = entry.get("username"), entry.get("password")
    if isinstance(entry.get("auth"), str) and not user:
        try:
            user, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = None
    if not isinstance(user, str) or not isinstance(password, str) or not user:
        raise SettingsInvalid(
            f"{source} names the registry, but neither a user with a password nor what both are encoded in (auth)",
            Reason.CREDENTIALS_MISSING,
        ) from None
    return Login(user, password)
