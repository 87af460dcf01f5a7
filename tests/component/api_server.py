"""A few verbs against a real API server, over the standard library: status code and body of each answer."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

Body = dict[str, Any]

CONTENT_TYPES = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
IDLE_SECONDS = 20.0
"""After which a connection is not used again: some tests take minutes."""


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    code: int
    body: Body

    @property
    def accepted(self) -> bool:
        return self.code < 300

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


class ApiServer:
    """One connection with the kubeconfig's client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with NamedTemporaryFile() as pair:  # the ssl module reads keys from files only
            for name in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[name]) + b"\n")
            pair.flush()
            context.load_cert_chain(pair.name)
        address = urlsplit(cluster["server"])
        self._connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=context, timeout=30
        )
        self._used = 0.0

    def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        patch: str = "",
        *,
        impersonate: str = "",
        **query: str,
    ) -> Answer:
        """Send one request; a patch is `merge` or `apply`. `impersonate`: the user in whose name it is sent."""
        content = CONTENT_TYPES.get(patch, "application/json")
        headers = {"Content-Type": content, "Accept": "application/json"}
        headers |= {"Impersonate-User": impersonate} if impersonate else {}
        data = None if body is None else json.dumps(body)
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()  # the next request opens it again: the server may have closed it by now
        try:
            self._connection.request(method, f"{path}?{urlencode(query)}" if query else path, data, headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # what broke is no reason for the next test to fail
            raise
        self._used = time.monotonic()
        if "json" not in response.getheader("Content-Type", ""):  # a path that is not served at all
            return Answer(response.status, {"message": text.decode()})
        return Answer(response.status, json.loads(text))

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def create(self, path: str, body: Body, **query: str) -> Answer:
        return self.request("POST", path, body, **query)

    def replace(self, path: str, body: Body, **query: str) -> Answer:
        return self.request("PUT", path, body, **query)

    def apply(self, path: str, body: Body, **query: str) -> Answer:
        return self.request("PATCH", path, body, "apply", fieldManager="test", force="true", **query)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)
