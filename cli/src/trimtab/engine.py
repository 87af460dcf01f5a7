"""An engine that speaks the OpenAI API, asked through the API server as the user, or by an address of its own.

Through the API server it is the pod's proxy: nothing is opened on this machine, and RBAC decides (`create` and `get` of
`pods/proxy`). The API server keeps the header with the key of an engine that wants one, so such an engine has to be
asked by an address, with the key in VLLM_API_KEY.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .connection import Connection
from .errors import Invalid, NotAllowed, NotInstalled, Problem, Unreachable
from .objects import mapping, sequence, text
from .server import Body, Server, refusal

MODELS, CHAT, COMPLETIONS = "/v1/models", "/v1/chat/completions", "/v1/completions"
SILENT_SECONDS = 300
"""How long an engine may take for the next word: a queue before it, or a large model."""
MODELS_SECONDS, MODELS_BYTES = 15.0, 4 << 20
"""Of the list of its models: it is asked for before anything is shown."""
LINE_BYTES = 8 << 20
"""Of one event of an answer."""
REVISION = "x-trimtab-revision"
DONE = b"[DONE]"
OWNER = "trimtab"
"""Who owns an alias in the list of models."""


@dataclass(frozen=True)
class Engine:
    """One engine: of a pod, or at an address.

    Attributes:
        name: what a person calls it.
        path: what its own paths are put behind.
    """

    name: str
    server: Server
    path: str = ""

    def models(self) -> list[Body]:
        """Return what it serves: base, adapters, aliases."""
        began = time.monotonic()
        try:
            with self.server.opened(
                "GET", self.path + MODELS, seconds=MODELS_SECONDS, within=MODELS_SECONDS, refused=self._refused
            ) as response:
                told = _json(response.read(MODELS_BYTES + 1))
        except Unreachable as problem:
            if time.monotonic() - began < MODELS_SECONDS:
                raise
            raise Unreachable(
                f"{self.name} does not say within {MODELS_SECONDS:g} s what it serves", "see the engine's log"
            ) from problem
        found = [each for each in sequence(mapping(told).get("data")) if text(mapping(each).get("id"))]
        if not found:
            raise Problem(f"{self.name} lists no models", "is it an engine with the OpenAI API? Give --port")
        return found

    def words(
        self,
        model: str,
        question: str,
        settings: Mapping[str, Any],
        *,
        chat: bool,
        begun: Callable[[Callable[[], None]], None] | None = None,
    ) -> Iterator[tuple[str, str]]:
        """Yield what a model answers as it comes, each with the revision that answers, empty where no guard says it.

        Args:
            begun: is given what ends the answer at once, from whatever thread.
        """
        asked = {"messages": [{"role": "user", "content": question}]} if chat else {"prompt": question}
        body = {"model": model, "stream": True, **asked, **settings}
        path = self.path + (CHAT if chat else COMPLETIONS)
        with self.server.opened("POST", path, body=body, seconds=SILENT_SECONDS, refused=self._refused) as response:
            if begun is not None:
                begun(response.shutdown)
            revision = str(response.headers.get(REVISION) or "")
            for line in self.server.lines_of(response, LINE_BYTES):
                event = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or event == DONE:
                    continue
                yield revision, self._word(model, event)

    def _word(self, model: str, event: bytes) -> str:
        told = _json(event)
        if told is None:
            raise Problem(f"{self.name} broke off its answer for {model}", "ask again")
        if error := mapping(told).get("error"):
            raise Problem(f"{self.name} gave up on {model} ({_said(error)})", "see the engine's log")
        choice = mapping(next(iter(sequence(mapping(told).get("choices"))), None))
        return text(mapping(choice.get("delta")).get("content")) or text(choice.get("text"))

    def _refused(self, code: int, told: Body, method: str, path: str) -> Problem:
        """Return what was said no with: by the API server on the way, or by the engine."""
        if told.get("kind") == "Status" and code in (401, 403):
            return NotAllowed(
                str(told.get("message")),
                "asking needs the right to get and create pods/proxy; or forward a port, give --url",
            )
        said = _said(told.get("error") or told.get("detail") or told.get("message") or told)
        if told.get("kind") == "Status":
            if "error trying to reach service" in said or code in (502, 503, 504):
                return Unreachable(
                    f"{self.name} does not answer ({said})",
                    "see --port; or a NetworkPolicy keeps the API server out: forward a port, and give --url",
                )
            return refusal(code, told, method, path)
        match code:
            case 401 | 403:
                step = (
                    "put it into VLLM_API_KEY, and ask with --url"
                    if not self.path
                    else ("the API server keeps keys: kubectl port-forward, then --url with the key in VLLM_API_KEY")
                )
                return NotAllowed(f"{self.name} wants a key", step)
            case 404 if path.endswith(MODELS):
                return NotInstalled(f"{self.name} has no {MODELS}", "give the engine's port with --port")
            case 400 if "chat template" in said.lower():
                return Invalid(f"the model has no chat template ({said})", "ask with --completion")
            case _:
                return Problem(
                    f"{self.name} answered {code} ({said})", "see kubectl trimtab describe, and the engine's log"
                )


def _json(written: bytes) -> Any:
    """Return what JSON says, None of what is none; engines are their tenants'."""
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None


def at(address: str) -> Engine:
    """Return the engine at an address, such as that of a forwarded port.

    Raises:
        Invalid: it is no address.
    """
    import urllib3

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"{address} is no address", "write http://localhost:8000")

    def credentials() -> Mapping[str, str]:
        key = os.environ.get("VLLM_API_KEY")
        return {"Authorization": f"Bearer {key}"} if key else {}

    plain = address.rstrip("/").removesuffix("/v1")
    return Engine(plain, Server(Connection(plain, urllib3.PoolManager(retries=False), credentials)))


def base_of(models: list[Body]) -> str:
    """Return the name of the base model: the first that comes of no other and is no alias."""
    plain = [each for each in models if not each.get("parent") and each.get("owned_by") != OWNER]
    return text(plain[0].get("id")) if plain else ""


def _said(told: Any) -> str:
    if isinstance(told, dict):
        told = told.get("message") or told
    return str(told)[:300]
