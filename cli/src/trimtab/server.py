"""One thin client of the API server: JSON in, JSON out, a timeout on every call.

Whom it asks and as whom is a `Connection`. Whatever goes wrong is a `Problem` with a sentence.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from .connection import Connection
from .errors import Conflict, Expired, Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable

Body = dict[str, Any]
Refused = Callable[[int, Body, str, str], Problem]
"""Makes a problem of a status code, what was said, the method and the path."""

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
        """Return an address.

        Raises:
            Invalid: a part is one of the two that every client and server takes out of an address.
        """
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        if odd := [part for part in parts if part in (".", "..")]:
            raise Invalid(f"nothing in Kubernetes has the name {odd[0]!r}", "write the name as kubectl get shows it")
        return "/" + "/".join(quote(part, safe=":") for part in parts)


PODS = Resource("", "v1", "pods")
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews")


class Server:
    """An API server, as the user of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        return self._connection.address

    def close(self) -> None:
        self._connection.pool.clear()

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
        pages = list(self.pages(path, PAGE, query))
        return [body for bodies, _ in pages for body in bodies], pages[-1][1]

    def pages(self, path: str, first: int, query: Mapping[str, str] | None = None) -> Iterator[tuple[list[Body], str]]:
        """Yield the objects of a list page by page, each with the resourceVersion from which a watch goes on.

        Args:
            first: objects of the first page, which comes the sooner the fewer they are.
        """
        wanted = {**(query or {}), "limit": str(first)}
        while True:
            page = self._answer("GET", path, query=wanted)
            metadata = page.get("metadata") or {}
            yield page.get("items") or [], str(metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            wanted |= {"continue": metadata["continue"], "limit": str(PAGE)}

    def merge(self, path: str, patch: Body, *, dry_run: bool = False) -> Body:
        """Merge changes into an object."""
        query = {"fieldManager": "kubectl-trimtab", **({"dryRun": "All"} if dry_run else {})}
        return self._answer("PATCH", path, query=query, body=patch, content_type=MERGE_PATCH)

    def apply_dry(self, path: str, body: Body) -> Body:
        """Return the object as the API server would store it, after schema, rules and admission; nothing is stored."""
        query = {"fieldManager": "kubectl-trimtab", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
        return self._answer("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    def apply(self, path: str, body: Body, *, dry_run: bool = False) -> Body:
        """Store what a body says of an object, and make it where it is missing; what others own stays theirs.

        Raises:
            Conflict: somebody else owns a field that the body says otherwise.
        """
        query = {
            "fieldManager": "kubectl-trimtab",
            "fieldValidation": "Strict",
            **({"dryRun": "All"} if dry_run else {}),
        }
        return self._answer("PATCH", path, query=query, body=body, content_type=APPLY_PATCH)

    def create(self, path: str, body: Body, *, dry_run: bool = False) -> Body:
        """Make an object of a list; of a dry run nothing is stored. One of the name is a `Conflict`."""
        query = {"fieldManager": "kubectl-trimtab", "fieldValidation": "Strict"}
        return self._answer("POST", path, query=query | ({"dryRun": "All"} if dry_run else {}), body=body)

    def watch(
        self, path: str, since: str, seconds: int = 240, begun: Callable[[Callable[[], None]], None] | None = None
    ) -> Iterator[Body]:
        """Yield events since a resourceVersion until the API server ends the watch.

        Args:
            begun: is given what ends the watch at once, from whatever thread.

        Raises:
            Expired: that is too long ago.
        """
        query = {
            "watch": "1", "resourceVersion": since, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)
        }  # fmt: skip
        with self.opened("GET", path, query=query, seconds=seconds + READ_SECONDS) as response:
            if begun is not None:
                begun(response.shutdown)
            for line in self.lines_of(response):
                try:
                    event: Body = json.loads(line)
                except ValueError as error:
                    raise Unreachable(f"{self.address} broke off a watch", "is the cluster up?") from error
                if event.get("type") == "ERROR":
                    told = event.get("object") or {}
                    raise refusal(int(told.get("code") or 0), told, "watch", path)
                yield event

    def lines(self, path: str, seconds: float = READ_SECONDS, **query: str) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; `seconds` is how long nothing may come."""
        with self.opened("GET", path, query=query, seconds=seconds) as response:
            yield from self.lines_of(response)

    @staticmethod
    def lines_of(response: urllib3.BaseHTTPResponse, most: int | None = None) -> Iterator[bytes]:
        """Yield the lines of an answer that was opened, as they come.

        Raises:
            Problem: one has more than `most` bytes.
        """
        begun: list[bytes] = []  # joined once: a line may come in thousands of parts
        length = 0
        for chunk in response.stream(2**16):
            first, *others = chunk.split(b"\n")
            begun.append(first)
            length += len(first)
            for each in others:
                yield b"".join(begun)
                begun, length = [each], len(each)
            if most is not None and length > most:
                raise Problem(f"what answers sends a line of more than {most:,} bytes", "see its log")
        if length:
            yield b"".join(begun)

    def _answer(self, method: str, path: str, **request: Any) -> Body:
        with self.opened(method, path, **request) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.address} is no Kubernetes API server", "look at the kubeconfig's server")
        return answer

    @contextmanager
    def opened(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = JSON,
        seconds: float = READ_SECONDS,
        within: float | None = None,
        refused: Refused | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request and yield the answer, which is read within the context.

        Args:
            seconds: how long nothing may come.
            within: how long all of it may take from its first line on; who sends byte by byte would hold up a thread.
            refused: makes the problem of an answer that is no success, where somebody else may answer.
        """
        headers = {"Accept": JSON, "User-Agent": "kubectl-trimtab"}
        headers |= {} if body is None else {"Content-Type": content_type}
        sent = None if body is None else _written(body)
        url = self.address + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._connection.pool.request(
                method,
                url,
                headers={**headers, **self._connection.credentials()},
                body=sent,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
                preload_content=False,
                retries=False,
                redirect=False,
            )
            try:
                with _ended(response, within):
                    if response.status >= 300:
                        raise (refused or refusal)(response.status, _read(response), method, path)
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


@contextmanager
def _ended(response: urllib3.BaseHTTPResponse, within: float | None) -> Iterator[None]:
    """End what is still read of an answer after so many seconds."""

    def end() -> None:
        with suppress(ValueError, RuntimeError, OSError):  # it was closed meanwhile
            response.shutdown()

    timer = None if within is None else threading.Timer(within, end)
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _written(body: Body) -> bytes:
    """Return a body as JSON.

    Raises:
        Invalid: it has what JSON does not have, such as a number that is none.
    """
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"this cannot be written as JSON ({error})", "look for .nan, .inf and what is no text") from error


def _short(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip("()'\" ")[:200] or type(error).__name__


def _read(response: urllib3.BaseHTTPResponse) -> Body:
    """Return what a refusal says; a proxy's page is no JSON."""
    raw = response.read(ERROR_BYTES)
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        told = None
    return told if isinstance(told, dict) else {"message": raw[:200].decode(errors="replace").strip()}


def refusal(code: int, told: Body, method: str, path: str) -> Problem:
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
        case 409 if told.get("reason") == "AlreadyExists":
            return Conflict(message, "choose another name")
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
        case 429 | 500 | 502 | 503 | 504:  # it has no time, or something behind it is away: who follows asks again
            return Unreachable(f"the API server answered {code} to {method} {path} ({message})", "try it again")
        case _:
            return Problem(f"the API server answered {code} to {method} {path} ({message})", "try it again")
