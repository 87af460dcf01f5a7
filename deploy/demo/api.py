"""One client of the API server for the demonstration and the end-to-end tests: objects as JSON, by kind and name.

A kubectl for each question costs a quarter of a second of a processor; this costs milliseconds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3.exceptions
from kubernetes import client
from kubernetes.config import load_kube_config
from trimtab_local.progress import Failed

Body = dict[str, Any]

API_VERSIONS = {
    "FineTuneJob": "trimtab.dev/v1alpha1",
    "FineTuneSweep": "trimtab.dev/v1alpha1",
    "Evaluation": "trimtab.dev/v1alpha1",
    "AdapterRollout": "trimtab.dev/v1alpha1",
    "AdapterExport": "trimtab.dev/v1alpha1",
    "Job": "batch/v1",
    "Deployment": "apps/v1",
    "Pod": "v1",
    "Service": "v1",
    "ConfigMap": "v1",
    "ResourceQuota": "v1",
    "Event": "v1",
    "Namespace": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Node": "v1",
}
"""Where the kinds that are asked for by name are; what is applied says it itself."""

SECONDS = 60.0
"""For one answer."""
CONNECTIONS = 64
WATCH_SECONDS = 120
"""A watch ends after this, and goes on with the next."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Failed):
    """The API server said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Unreachable(Failed):
    """No answer, or one that broke off."""


class Api:
    """The API server of a kubeconfig, for any number of threads."""

    def __init__(self, kubeconfig: Path) -> None:
        configuration = client.Configuration()
        load_kube_config(str(kubeconfig), client_configuration=configuration)
        configuration.connection_pool_maxsize = CONNECTIONS
        self._client = client.ApiClient(configuration)
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, name: str, namespace: str = "") -> Body | None:
        """Return an object, or None if it is not there."""
        try:
            return self._json("GET", self._path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def page(self, kind: str, namespace: str, labels: str = "") -> Body:
        """Return the list of a kind's objects; it has the resourceVersion that a watch begins with."""
        query = {"labelSelector": labels} if labels else {}
        return self._json("GET", self._path(kind, namespace), query=query)

    def objects(self, kind: str, namespace: str, labels: str = "") -> list[Body]:
        items: list[Body] = self.page(kind, namespace, labels)["items"]
        return items

    def row(self, kind: str, name: str, namespace: str) -> list[str]:
        """Return the cells that `kubectl get` prints of an object."""
        table = self._json("GET", self._path(kind, namespace, name), accept=TABLE)
        shown = [number for number, column in enumerate(table["columnDefinitions"]) if column["priority"] == 0]
        return [str(table["rows"][0]["cells"][number] or "") for number in shown]

    def watch(self, kind: str, namespace: str, since: str) -> Iterator[Body]:
        """Yield the events after a resourceVersion, bookmarks among them, until the server ends the watch."""
        query = {"watch": "1", "resourceVersion": since, "allowWatchBookmarks": "1"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        answer = self._answer("GET", self._path(kind, namespace), query=query, seconds=WATCH_SECONDS + SECONDS)
        try:
            left = b""
            for piece in answer.stream(amt=None):
                *lines, left = (left + piece).split(b"\n")
                yield from (json.loads(line) for line in lines)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"watch of {kind}: {error}") from error
        finally:
            answer.close()

    def apply(self, *bodies: Body) -> None:
        """Apply objects, server-side, in their order."""
        for body in bodies:
            metadata = body["metadata"]
            path = self._path(body["kind"], metadata.get("namespace", ""), metadata["name"], body["apiVersion"])
            query = {"fieldManager": "trimtab-demo", "force": "true"}
            self._json("PATCH", path, query=query, body=body, content_type=PATCHES["apply"])

    def create(self, kind: str, body: Body, *, subresource: str = "") -> None:
        """Create an object, or a subresource such as a pod's eviction."""
        metadata = body["metadata"]
        path = self._path(kind, metadata["namespace"], metadata["name"] if subresource else "")
        self._json("POST", f"{path}/{subresource}" if subresource else path, body=body)

    def patch(self, kind: str, name: str, namespace: str, patch: Body, *, how: str = "merge", sub: str = "") -> None:
        """Patch an object or a subresource of it; `how` is a key of PATCHES."""
        path = self._path(kind, namespace, name) + (f"/{sub}" if sub else "")
        self._json("PATCH", path, body=patch, content_type=PATCHES[how])

    def delete(self, kind: str, name: str, namespace: str = "", *, grace_seconds: int | None = None) -> None:
        """Ask for an object's deletion, and for that of what it owns; one that is gone is no error."""
        options: Body = {"propagationPolicy": "Background"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self._json("DELETE", self._path(kind, namespace, name), body=options)
        except ApiError as error:
            if error.status != 404:
                raise

    # -- requests ------------------------------------------------------------------------------------------------

    def _path(self, kind: str, namespace: str, name: str = "", api_version: str = "") -> str:
        api_version = api_version or API_VERSIONS[kind]
        plural, namespaced = self._plural(kind, api_version)
        parts = [_root(api_version)]
        parts += ["namespaces", namespace] if namespaced and namespace else []
        parts += [plural, name] if name else [plural]
        return "/".join(parts)

    def _plural(self, kind: str, api_version: str) -> tuple[str, bool]:
        """Return a kind's name in URLs, and whether it lives in namespaces, as the server says."""
        with self._lock:
            if (kind, api_version) not in self._plurals:
                for each in self._json("GET", _root(api_version))["resources"]:
                    if "/" not in each["name"]:
                        self._plurals[each["kind"], api_version] = (each["name"], each["namespaced"])
            try:
                return self._plurals[kind, api_version]
            except KeyError:
                raise ApiError(404, f"the server has no {kind} in {api_version}") from None

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Body:
        answer = self._answer(method, path, query=query, body=body, content_type=content_type, accept=accept)
        try:
            found: Body = json.loads(answer.read())
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {error}") from error
        finally:
            answer.release_conn()
        return found

    def _answer(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = SECONDS,
    ) -> urllib3.HTTPResponse:
        """Send a request and return the answer, whose content is still to be read."""
        headers = {"Accept": accept, "Content-Type": content_type}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer: urllib3.HTTPResponse = self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=(SECONDS, seconds)
            ).response
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {error}") from error
        if answer.status >= 400:
            raise ApiError(answer.status, _message(answer.data))
        return answer


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, LookupError, TypeError):
        return content[:200].decode(errors="replace")
