"""One repository of a registry: blobs and manifests are put, and looked for.

The protocol: https://github.com/opencontainers/distribution-spec. A registry that wants to know who asks says where a
token is given (https://distribution.github.io/distribution/spec/auth/token/), or takes user and password themselves.
They go to that registry and to who gives its tokens, to nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import urljoin, urlsplit

import requests

from ...certificates import why_not_taken
from ...contract import Reason
from ...contract.parsing import Unreadable, read_object
from ...errors import SettingsInvalid, StorageFailed
from ...quota import PATIENCE_SECONDS, retry_after
from .keys import DOCKER_HUB, Login

TIMEOUT = (10, 300)
"""Seconds to connect, and between two bytes of an answer: a registry stores a blob before it answers."""
ATTEMPTS, PAUSE_SECONDS = 4, 1.0
LEADS = (301, 302, 307, 308)
"""What says that something is elsewhere; of a blob that is asked for by HEAD nobody goes there."""
ANSWER_BYTES, CHUNK_BYTES = 4 << 20, 1 << 16
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WITHOUT_TLS = "WRONG_VERSION_NUMBER"
"""OpenSSL's word for an answer that is no TLS at all, such as plain HTTP."""
_REFERENCE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)
_CHALLENGE = re.compile(r'([A-Za-z]+)="([^"]*)"')


class _Odd(requests.RequestException):
    """An answer that is of no use; the message says why, and quotes nothing.

    Attributes:
        pause: how many seconds who gave it asks to be left alone, if it says so.
    """

    def __init__(self, message: str, pause: int | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class Answer:
    """What a registry said, within bounds."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    url: str

    @classmethod
    def read(cls, response: requests.Response) -> Self:
        """Read and close a response that is streamed."""
        content = bytearray()
        with response:
            for chunk in response.iter_content(CHUNK_BYTES):
                content += chunk
                if len(content) > ANSWER_BYTES:
                    raise _Odd(f"an answer of more than {ANSWER_BYTES} bytes")
        return cls(response.status_code, response.headers, bytes(content), response.url)


class Content(Protocol):
    """The bytes of a blob, as often as they are read."""

    @property
    def digest(self) -> str: ...

    def open(self) -> Any:
        """Return an object with `read`, and with `__len__`, by which HTTP knows how long it is."""


@dataclass(frozen=True)
class Reference:
    """Where an image goes: `oci://host[:port]/repository[:tag]`."""

    host: str
    repository: str
    tag: str = "latest"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Return the parts of a URI.

        Raises:
            SettingsInvalid: it is none.
        """
        found = _REFERENCE.fullmatch(uri)
        if found is None:
            raise SettingsInvalid(f"{uri} names no image in a registry: it is oci://host/repository:tag")
        return cls(found["host"], found["repository"], found["tag"] or "latest")

    @property
    def address(self) -> str:
        """The registry's address; one on this machine needs no certificate, as all tools have it."""
        name = "registry-1.docker.io" if self.host in DOCKER_HUB else self.host
        scheme = "http" if urlsplit(f"//{name}").hostname in LOOPBACK else "https"
        return f"{scheme}://{name}/v2/{self.repository}/"


class Registry:
    """A repository, asked with a login where there is one.

    Every method raises `SettingsInvalid` where retrying cannot help (access denied), else `StorageFailed`.
    """

    def __init__(self, reference: Reference, login: Login | None, certificates: str | None, source: str) -> None:
        self._reference, self._login, self._source = reference, login, source
        self._session = requests.Session()
        self._session.auth = lambda request: request  # else a .netrc of the image would have a say
        # Given with each request: a session's own is overruled by REQUESTS_CA_BUNDLE.
        self._verify: str | bool = certificates if certificates is not None else True
        self._authorization: str | None = None

    def has_blob(self, digest: str) -> bool:
        """Tell whether a blob is there; a registry that leads to where it lies has it, wherever that is."""
        return self._ask("HEAD", f"blobs/{digest}", good=(200, *LEADS, 404)).status_code != 404

    def put_blob(self, content: Content) -> None:
        """Put a blob, unless it is there."""
        if self.has_blob(content.digest):
            return

        def upload() -> Answer:
            begun = self._ask("POST", "blobs/uploads/", good=(202,))
            place = self._place(begun)
            place += f"{'&' if urlsplit(place).query else '?'}digest={content.digest}"
            headers = {"Content-Type": "application/octet-stream"}
            return self._taken(self._once("PUT", place, headers, content.open()), content.digest)

        self._lasting(upload, (201,), f"blob {content.digest[:19]}")

    @staticmethod
    def _taken(answer: Answer, digest: str) -> Answer:
        """Return the answer to what was put, unless it says that something else arrived."""
        found = answer.headers.get("Docker-Content-Digest", digest)
        if answer.status_code == 201 and found != digest:
            raise _Odd("it has other bytes than were sent")
        return answer

    def _place(self, begun: Answer) -> str:
        """Return where a registry wants a blob: over HTTPS, unless it is on this machine itself."""
        try:
            place = urlsplit(urljoin(begun.url, begun.headers.get("Location", "")))
            ours = urlsplit(self._reference.address)
            if place.scheme == "http" and ours.scheme == "https":
                if place.hostname != ours.hostname:
                    raise _Odd("it wants the upload elsewhere, without encryption")
                # It does not know of what decrypts in front of it.
                return place._replace(scheme="https", netloc=ours.netloc).geturl()
        except ValueError:
            raise _Odd("the place for the upload is no address") from None
        return place.geturl()

    def manifest(self, reference: str, accepted: str) -> bytes | None:
        """Return a manifest by its tag or digest, None if there is none, or not with the bytes of the digest."""
        answer = self._ask("GET", f"manifests/{reference}", good=(200, 404), headers={"Accept": accepted})
        other = reference.startswith("sha256:") and digest_of_bytes(answer.content) != reference
        return None if answer.status_code == 404 or other else answer.content

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Put a manifest, or an index of manifests, under a tag or its digest."""
        address, headers = self._address(f"manifests/{reference}"), {"Content-Type": media_type}

        def put() -> Answer:
            return self._taken(self._once("PUT", address, headers, data), digest_of_bytes(data))

        self._lasting(put, (201,), f"manifests/{reference}")

    def _ask(
        self,
        method: str,
        path: str,
        *,
        good: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        address = self._address(path)
        return self._lasting(lambda: self._once(method, address, dict(headers or {}), None), good, path)

    def _address(self, path: str) -> str:
        return urljoin(self._reference.address, path)

    def _lasting(self, ask: Callable[[], Answer], good: tuple[int, ...], what: str) -> Answer:
        """Ask until the answer is one of these, as often as trying again may help, and not before it is let."""
        trouble, asked_for = "", None
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(max(PAUSE_SECONDS * 2 ** (attempt - 1), asked_for or 0))
            try:
                answer = ask()
            except requests.RequestException as error:
                if why_not_taken(error) is not None:
                    raise SettingsInvalid(
                        f"the certificate of registry {self._reference.host} is not trusted; put its issuer's into key "
                        f"ca.crt of {self._source}"
                    ) from None
                if WITHOUT_TLS in str(error):
                    raise SettingsInvalid(
                        f"registry {self._reference.host} does not speak TLS, and exports go to no other; name "
                        "the port where it does"
                    ) from None
                trouble = str(error) if isinstance(error, _Odd) else type(error).__name__
                asked_for = error.pause if isinstance(error, _Odd) else None
                if (asked_for or 0) > PATIENCE_SECONDS:
                    break
                continue
            if answer.status_code in good:
                return answer
            if answer.status_code in (401, 403):
                raise self._denied()
            trouble, asked_for = f"HTTP {answer.status_code}", retry_after(answer.headers)
            passes = answer.status_code >= 500 or answer.status_code in (408, 429)
            if not passes or (asked_for or 0) > PATIENCE_SECONDS:
                break
        raise StorageFailed(
            f"registry {self._reference.host} did not take {what} of {self._reference.repository} ({trouble}"
            f"{f'; it asks to be left alone for {asked_for} s' if asked_for else ''})",
            retry_after=asked_for,
        )

    def _once(self, method: str, address: str, headers: dict[str, str], data: Any) -> Answer:
        answer = self._send(method, address, headers, data)
        if answer.status_code == 401 and self._is_ours(address):
            self._authorization = self._authorized(answer.headers.get("WWW-Authenticate", ""))
            if hasattr(data, "seek"):
                data.seek(0)
            answer = self._send(method, address, headers, data)
        return answer

    def _send(self, method: str, address: str, headers: dict[str, str], data: Any) -> Answer:
        known = {"Authorization": self._authorization} if self._authorization and self._is_ours(address) else {}
        answer = Answer.read(
            self._session.request(
                method,
                address,
                headers={**headers, **known},
                data=data,
                timeout=TIMEOUT,
                allow_redirects=method not in ("PUT", "HEAD"),
                verify=self._verify,
                stream=True,
            )
        )
        if address.startswith("https:") and not answer.url.startswith("https:"):
            raise _Odd("it leads elsewhere, without encryption")
        return answer

    def _is_ours(self, address: str) -> bool:
        asked, ours = urlsplit(address), urlsplit(self._reference.address)
        return (asked.scheme, asked.netloc) == (ours.scheme, ours.netloc)

    def _authorized(self, challenge: str) -> str:
        """Return the header that answers a registry which wants to know who asks."""
        scheme, _, words = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login is not None:
            both = f"{self._login.user}:{self._login.password}"
            return f"Basic {base64.b64encode(both.encode()).decode()}"
        told = dict(_CHALLENGE.findall(words))
        try:
            realm = urlsplit(told.get("realm", ""))
        except ValueError:
            raise self._denied() from None
        hidden = realm.scheme == "https" or (realm.scheme == "http" and realm.hostname in LOOPBACK)
        if scheme.lower() != "bearer" or not hidden:
            raise self._denied()
        query = {
            "service": told.get("service", ""),
            "scope": f"repository:{self._reference.repository}:pull,push",
        }
        login = (self._login.user, self._login.password) if self._login is not None else None
        answer = Answer.read(
            self._session.get(
                told["realm"], params=query, auth=login, timeout=TIMEOUT, verify=self._verify, stream=True
            )
        )
        if answer.status_code in (400, 401, 403):
            raise self._denied()
        if answer.status_code != 200:
            raise _Odd(f"HTTP {answer.status_code} of who gives tokens", retry_after(answer.headers))
        try:
            given = read_object(answer.content, ANSWER_BYTES)
        except Unreadable:
            raise self._denied() from None
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise self._denied()
        return f"Bearer {token}"

    def _denied(self) -> SettingsInvalid:
        who = "the login" if self._login is not None else "whoever has no login"
        return SettingsInvalid(
            f"registry {self._reference.host} does not let {who} push to {self._reference.repository}; correct "
            f"{self._source}, or the rights there",
            Reason.ACCESS_DENIED,
        )


def digest_of_bytes(data: bytes) -> str:
    """Return the digest by which a registry knows these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
