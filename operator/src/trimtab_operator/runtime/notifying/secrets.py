"""What an endpoint's Secret holds: its address and the keys that sign, as files that the kubelet replaces meanwhile.

Nothing of it is ever in a message of an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from pathlib import Path

from ...domain.notifications import Endpoint, Format
from ...domain.notifications.endpoints import trouble_of

URL_FILE, KEY_FILE = "url", "key"
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)
"""As Standard Webhooks 1.0.0 has it."""
KEYS_MAXIMUM = 4
FILE_BYTES = 4096


class SecretUnusable(Exception):
    """An endpoint's Secret lacks what is needed, or holds what cannot be used; the message says which file."""


class Secrets:
    """The folder with a folder for each endpoint. Read for each request, so a new key needs no restart."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def url(self, endpoint: Endpoint) -> str:
        """Return where to send to.

        Raises:
            SecretUnusable: neither the configuration nor the Secret says so.
        """
        if endpoint.url:
            return endpoint.url
        url = self._read(endpoint, URL_FILE)
        if url is None:
            raise SecretUnusable(f"Secret {endpoint.secret_name} with the file {URL_FILE} is not there")
        if trouble := trouble_of(url):
            raise SecretUnusable(f"file {URL_FILE} of Secret {endpoint.secret_name}: {trouble}")
        return url

    def keys(self, endpoint: Endpoint) -> list[bytes]:
        """Return the keys that sign, a line each while one replaces another; none are needed for Slack's form.

        Raises:
            SecretUnusable: there is none where one is needed, or what is there is none.
        """
        text = self._read(endpoint, KEY_FILE) if endpoint.secret_name else None
        lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
        if not lines and endpoint.format != Format.SLACK:
            raise SecretUnusable(f"Secret {endpoint.secret_name} with the file {KEY_FILE} is not there")
        if len(lines) > KEYS_MAXIMUM:
            raise SecretUnusable(f"file {KEY_FILE} of Secret {endpoint.secret_name} has more than {KEYS_MAXIMUM} keys")
        return [self._key(endpoint, line) for line in lines]

    @staticmethod
    def _key(endpoint: Endpoint, line: str) -> bytes:
        try:
            key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) not in KEY_BYTES:
            raise SecretUnusable(
                f"file {KEY_FILE} of Secret {endpoint.secret_name} must be {PREFIX} and base64 of {KEY_BYTES.start} to "
                f"{KEY_BYTES.stop - 1} bytes"
            )
        return key

    def _read(self, endpoint: Endpoint, name: str) -> str | None:
        if self._folder is None:
            return None
        try:
            with (self._folder / endpoint.name / name).open("rb") as file:
                return file.read(FILE_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnusable(
                f"file {name} of Secret {endpoint.secret_name} is not readable: {type(error).__name__}"
            ) from None


def signature_headers(identity: str, seconds: int, body: bytes, keys: list[bytes]) -> dict[str, str]:
    """Return the headers of Standard Webhooks 1.0.0: a signature for each key, so receivers may know either of two."""
    content = b".".join((identity.encode(), str(seconds).encode(), body))
    signed = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
    headers = {"webhook-id": identity, "webhook-timestamp": str(seconds)}
    return headers | ({"webhook-signature": " ".join(f"v1,{each}" for each in signed)} if signed else {})
