"""One thin client of the API server: JSON in, JSON out, a timeout on every call.

Configuration, authentication and TLS are those of the `kubernetes` package; its models, which take longer to import
than a list takes to read, are not used. Whatever goes wrong is a `Problem` with a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject

from .errors import Conflict, Expired, Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable

Body = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
CONNECT_SECONDS, READ_SECONDS = 10, 30
PAGE = 500
ERROR_BYTES = 65_536
"""Of an answer that is no success: read no further."""
UNTYPED = "failed to create typed patch object"
"""How the API server begins, with a 500, where an apply has fields that the schema does not have."""
UNTYPED_CAUSE = re.compile(r"\s(\.\w[^:\s]*): ([^\n]*)")


@dataclass(frozen=True)
class Resource:
    """A kind of object, as addresses name it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


PODS = Resource("", "v1", "pods")


class Server:
    """An API server, as the user of a configuration."""

    def __init__(self, configuration: Configuration) -> None:
        configuration.retries = False  # urllib3's: an address that does not answer is asked once, no redirect followed
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)

    @property
    def address(self) -> str:
        return str(self._configuration.host)

    def close(self) -> None:
        self._rest.close()

    def get(self, path: str) -> Body:
        return self._answer("GET", path)

    def probe(self, path: str) -> None:
        """Ask for one object of a list: what would be the matter with the whole list is raised."""
        self._answer("GET", path, query={"limit": "1"})

    def items(self, path: str, **query: str) -> list[Body]:
        """Return the objects of a list."""
        return self.listed(path, **query)[0]

    def listed(self, path: str, **query: str) -> tuple[list[Body], str]:
        """Return the objects of a list, read page by page, and the resourceVersion from which a watch goes on."""
        found: list[Body] = []
        wanted = {**query, "limit": str(PAGE)}
        while True:
            page = self._answer("GET", path, query=wanted)
            found += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return found, str(metadata.get("resourceVersion", ""))
            wanted["continue"] = metadata["continue"]

    def merge(self, path: str, patch: Body, *, dry_run: bool = False) -> Body:
        """Merge changes into an object."""
        query = {"fieldManager": "kubectl-trimtab", **({"dryRun": "All"} if dry_run else {})}
        return self._answer("PATCH", path, query=query, body=patch, content_type=MERGE_PATCH)

    def apply_dry(self, path: str, body: Body) -> Body:
        """Return the object as the API server would store it, after schema, rules and admission; nothing is stored."""
        query = {"fieldManager": "kubectl-trimtab", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
        return self._answer("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    def create(self, path: str, body: Body, *, dry_run: bool = False) -> Body:
        """Make an object of a list; of a dry run nothing is stored. One of the name is a `Conflict`."""
        query = {"fieldManager": "kubectl-trimtab", "fieldValidation": "Strict"}
        return self._answer("POST", path, query=query | ({"dryRun": "All"} if dry_run else {}), body=body)

    def watch(
        self, path: str, since: str, seconds: int = 240, opened: Callable[[Callable[[], None]], None] | None = None
    ) -> Iterator[Body]:
        """Yield events since a resourceVersion until the API server ends the watch.

        Args:
            opened: is given what ends the watch at once, from whatever thread.

        Raises:
            Expired: that is too long ago.
        """
        query = {
            "watch": "1", "resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)
        }  # fmt: skip
        for line in self._streamed(path, seconds + READ_SECONDS, query, opened):
            try:
                event: Body = json.loads(line)
            except ValueError as error:
                raise Unreachable(f"{self.address} broke off a watch", "is the cluster up?") from error
            if event.get("type") == "ERROR":
                told = event.get("object") or {}
                raise _refusal(int(told.get("code") or 0), told, "watch", path)
            yield event

    def lines(self, path: str, seconds: float = READ_SECONDS, **query: str) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; `seconds` is how long nothing may come."""
        yield from self._streamed(path, seconds, query)

    def _streamed(
        self,
        path: str,
        seconds: float,
        query: Mapping[str, str],
        opened: Callable[[Callable[[], None]], None] | None = None,
    ) -> Iterator[bytes]:
        with self._asked("GET", path, query=query, seconds=seconds) as response:
            if opened is not None:
                opened(response.shutdown)
            begun = b""
            for chunk in response.stream(2**16):
                *whole, begun = (begun + chunk).split(b"\n")
                yield from whole
            if begun:
                yield begun

    def _answer(self, method: str, path: str, **request: Any) -> Body:
        with self._asked(method, path, **request) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.address} is no Kubernetes API server", "look at the kubeconfig's server")
        return answer

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
        seconds: float = READ_SECONDS,
    ) -> Iterator[urllib3.HTTPResponse]:
        """Send a request and yield the answer, which is read within the context."""
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": "kubectl-trimtab"}
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        url = self.address + path + (f"?{urlencode(query)}" if query else "")
        try:
            answered = self._rest.request(
                method, url, headers=headers, body=body, _request_timeout=(CONNECT_SECONDS, seconds)
            )
            response: urllib3.HTTPResponse = answered.response
            try:
                if response.status >= 300:
                    raise _refusal(response.status, _read(response), method, path)
                yield response
            finally:
                response.close()
        except urllib3.exceptions.SSLError as error:
            raise Unreachable(
                f"{self.address} cannot be trusted ({error})", "look at the kubeconfig's certificate-authority"
            ) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unreachable(
                f"the API server {self.address} does not answer ({_short(error)})",
                "is the cluster up? See kubectl cluster-info",
            ) from error


def _short(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip("()'\" ")[:200] or type(error).__name__


def _read(response: urllib3.HTTPResponse) -> Body:
    """Return what a refusal says; a proxy's page is no JSON."""
    raw = response.read(ERROR_BYTES)
    try:
        told = json.loads(raw)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"message": raw[:200].decode(errors="replace").strip()}


def _refusal(code: int, told: Body, method: str, path: str) -> Problem:
    """Return what the API server said no with, as a sentence."""
    message = str(told.get("message") or told.get("reason") or f"status {code}")
    match code:
        case 401:
            return NotAllowed("the API server does not know you", "log in again, or look at the kubeconfig's user")
        case 403:
            return NotAllowed(message, "ask for the right, and see kubectl auth can-i --list")
        case 404 if isinstance(details := told.get("details"), dict) and details.get("name"):
            return NotFound(message)
        case 404:
            step = "is it the right context? If it is, install Trimtab with its chart: see README"
            return NotInstalled(f"the cluster does not serve {path.partition('?')[0]}", step)
        case 409:
            return Conflict(message, "try it again")
        case 410:
            return Expired(message)
        case 400 | 422:
            details = told.get("details") or {}
            causes = details.get("causes") if isinstance(details, dict) else None
            found = [each for each in causes or [] if isinstance(each, dict)]
            pairs = tuple((str(each.get("field") or ""), str(each.get("message") or "")) for each in found)
            return Invalid(message, causes=pairs)
        case 500 if UNTYPED in message:
            return Invalid(message, causes=tuple(UNTYPED_CAUSE.findall(message)))
        case _:
            return Problem(f"the API server answered {code} to {method} {path} ({message})", "try it again")
