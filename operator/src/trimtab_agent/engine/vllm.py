"""What the agent asks of a serving engine, and how vLLM answers (0.11 to 0.33).

Status codes alone do not say whether to try again: vLLM answers 500 for a rank that is too high, for DoRA, for files
that are cut off and for shapes of another base, all of which stay as they are; and 404 both for a path it cannot see
and for an endpoint that was not switched on. So answers are read by what they say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from ..contract import Probe, ProbeKind
from ..failures import FailureReason, RevisionFailed

TOKEN_HEADER = "X-Trimtab-Token"
ANSWER_BYTES = 4 * 1024 * 1024

PERMANENT = (
    ("greater than max_lora_rank", FailureReason.RANK_TOO_HIGH),
    ("does not yet support dora", FailureReason.NOT_SUPPORTED),
    ("fused 3d moe weights", FailureReason.NOT_SUPPORTED),
    ("bias", FailureReason.NOT_SUPPORTED),
    ("modules_to_save", FailureReason.NOT_SUPPORTED),
    ("unsupported lora", FailureReason.NOT_SUPPORTED),
    ("is not supported", FailureReason.NOT_SUPPORTED),
    ("expected target modules", FailureReason.NOT_SUPPORTED),
    ("while deserializing header", FailureReason.ARTIFACT_DAMAGED),
    ("doesn't contain tensors", FailureReason.ARTIFACT_DAMAGED),
    ("size of tensor", FailureReason.BASE_MODEL_MISMATCH),
    ("must match", FailureReason.BASE_MODEL_MISMATCH),
    ("shape", FailureReason.BASE_MODEL_MISMATCH),
    ("conflicts with a served base model", FailureReason.NAME_TAKEN),
)
"""What vLLM says, in lower case, of faults that no repetition heals; the first that is found counts."""


@dataclass(frozen=True)
class ServedModel:
    """One line of the engine's list; an adapter's `root` is the folder it was loaded from, a base has no parent."""

    name: str
    root: str | None
    parent: str | None


@dataclass(frozen=True)
class Limits:
    """What the engine was started with, and the id of this start of it; None where the guard could not tell."""

    instance: str
    max_loras: int | None
    max_lora_rank: int | None
    max_cpu_loras: int | None
    lora_enabled: bool | None


@dataclass(frozen=True)
class Reply:
    """An answer to a probe: the text, and the log-probability of each token in it (nats)."""

    text: str
    logprobs: tuple[float, ...]

    def differs(self, other: Reply) -> bool:
        """Tell whether another model gave this: an adapter that does anything at all changes the probabilities."""
        return self.text != other.text or self.logprobs != other.logprobs


class EngineUnreachable(Exception):
    """The engine did not answer, or not in time; trying again may help."""


class Unhealthy(Exception):
    """The engine answered a probe with something that no healthy model says."""


class Engine(Protocol):
    """An engine that loads adapters while it runs. Every method ends within its time.

    Raises:
        EngineUnreachable: from each of them.
    """

    async def models(self) -> tuple[ServedModel, ...]:
        """Return what the engine lists, aliases left out."""

    async def limits(self) -> Limits:
        """Return what it was started with."""

    async def counts(self) -> Mapping[str, Any]:
        """Return the guard's counts by revision."""

    async def load(self, name: str, folder: str) -> None:
        """Load a folder under a new name, never in place of another.

        Raises:
            RevisionFailed: the engine refuses, for now or for good.
        """

    async def unload(self, name: str) -> None:
        """Take a name away; one that is not there is no error."""

    async def ask(self, model: str, probe: Probe) -> Reply:
        """Ask a question without chance.

        Raises:
            Unhealthy: refused, silent, or probabilities that are no numbers.
        """


@dataclass(frozen=True)
class Timeouts:
    """Seconds for a question about state, for loading, and for a probe's answer."""

    state: float = 5
    load: float = 30
    probe: float = 30


class VLLM:
    """vLLM behind the guard, over loopback; the token opens what is closed to clients."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str,
        api_key: str | None = None,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers = {TOKEN_HEADER: token}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeouts = timeouts

    async def models(self) -> tuple[ServedModel, ...]:
        document = await self._state("/v1/models")
        try:
            return tuple(ServedModel(item["id"], item.get("root"), item.get("parent")) for item in document["data"])
        except (KeyError, TypeError, AttributeError):
            raise EngineUnreachable("/v1/models does not list models") from None

    async def limits(self) -> Limits:
        found = await self._state("/-/trimtab/limits")
        try:
            return Limits(
                instance=str(found["instance"]),
                max_loras=found["maxLoras"],
                max_lora_rank=found["maxLoraRank"],
                max_cpu_loras=found["maxCpuLoras"],
                lora_enabled=found["loraEnabled"],
            )
        except (KeyError, TypeError):
            raise EngineUnreachable("the guard does not tell the engine's limits; is it of this version?") from None

    async def counts(self) -> Mapping[str, Any]:
        found = await self._state("/-/trimtab/counts")
        if not isinstance(found, dict):
            raise EngineUnreachable("the guard does not tell its counts")
        return found

    async def load(self, name: str, folder: str) -> None:
        body = {"lora_name": name, "lora_path": folder}
        status, text = await self._call("POST", "/v1/load_lora_adapter", self._timeouts.load, body)
        if status == 200:
            return
        message = message_of(text)
        if status == 400 and "already been loaded" in message:
            # An earlier call whose answer was lost, or something else under this name: the list tells which.
            found = next((model for model in await self.models() if model.name == name), None)
            if found is not None and found.root == folder:
                return
            where = found.root if found else "nowhere"
            raise RevisionFailed(FailureReason.NAME_TAKEN, f"{name} is loaded from {where}", permanent=False)
        raise refusal(status, message, folder)

    async def unload(self, name: str) -> None:
        status, text = await self._call("POST", "/v1/unload_lora_adapter", self._timeouts.load, {"lora_name": name})
        message = message_of(text)
        # 404 NotFoundError now, 400 InvalidUserInput before 0.13: it is not there, which is what was wanted.
        if status == 200 or (status in (400, 404) and "cannot be found" in message):
            return
        raise EngineUnreachable(f"unloading {name} was answered {status} {message}")

    async def ask(self, model: str, probe: Probe) -> Reply:
        body: dict[str, Any] = {"model": model, "max_tokens": probe.max_tokens, "temperature": 0, "seed": 0}
        if probe.kind == ProbeKind.CHAT:
            path = "/v1/chat/completions"
            body |= {"messages": [{"role": "user", "content": probe.prompt}], "logprobs": True}
        else:
            path = "/v1/completions"
            body |= {"prompt": probe.prompt, "logprobs": 1}
        status, text = await self._call("POST", path, self._timeouts.probe, body)
        if status in (502, 503, 504, 429):
            raise EngineUnreachable(f"{path} was answered {status}")
        if status != 200:
            # A poisoned engine answers 400 "Out of range float values": its probabilities are NaN.
            raise Unhealthy(f"{model} was answered {status}: {message_of(text)[:300]}")
        return reply_of(text, model, probe.kind)

    async def _state(self, path: str) -> Any:
        status, text = await self._call("GET", path, self._timeouts.state)
        if status != 200:
            raise EngineUnreachable(f"{path} was answered {status}: {message_of(text)[:300]}")
        try:
            return json.loads(text)
        except ValueError:
            raise EngineUnreachable(f"{path} was not answered with JSON") from None

    async def _call(
        self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                return response.status, await response.content.read(ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineUnreachable(f"{method} {path}: {error or type(error).__name__}") from None


def message_of(text: bytes) -> str:
    """Return what an error says: nested under `error` now, at the top level before 0.11, `detail` of the framework."""
    try:
        document = json.loads(text)
    except ValueError:
        return text.decode(errors="replace").strip()
    if not isinstance(document, dict):
        return str(document)
    error = document.get("error", document)
    if isinstance(error, dict):
        return str(error.get("message") or error.get("detail") or error)
    return str(error)


def refusal(status: int, message: str, folder: str) -> RevisionFailed:
    """Return what a refused load means."""
    small = message.lower()
    if status == 404 and "no adapter found" in small:
        return RevisionFailed(
            FailureReason.VOLUME_NOT_SHARED,
            f"the engine does not see {folder}; mount the shared volume at the same path in both containers",
            permanent=True,
        )
    if status in (404, 405):
        return RevisionFailed(
            FailureReason.LOADING_DISABLED,
            "the engine has no endpoint to load adapters; start it with --enable-lora and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            permanent=True,
        )
    if status in (401, 403):
        return RevisionFailed(
            FailureReason.ENGINE_REFUSED, f"the engine answered {status}; give the agent its API key", permanent=False
        )
    for sign, reason in PERMANENT:
        if sign in small and (status == 500 or 400 <= status < 500):
            return RevisionFailed(reason, message, permanent=True)
    if 400 <= status < 500 and status not in (408, 409, 425, 429):
        return RevisionFailed(FailureReason.ENGINE_REFUSED, message, permanent=True)
    return RevisionFailed(FailureReason.ENGINE_FAILED, f"the engine answered {status} {message}", permanent=False)


def reply_of(text: bytes, model: str, kind: str) -> Reply:
    """Return the text and probabilities of an answer.

    Raises:
        Unhealthy: there are none, or they are no numbers.
    """
    try:
        choice = json.loads(text)["choices"][0]
        if kind == ProbeKind.CHAT:
            said = choice["message"]["content"] or ""
            probabilities = [entry["logprob"] for entry in choice["logprobs"]["content"]]
        else:
            said = choice["text"]
            probabilities = choice["logprobs"]["token_logprobs"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise Unhealthy(f"{model} was answered without text and probabilities") from None
    if not probabilities:
        raise Unhealthy(f"{model} said nothing at all")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in probabilities):
        raise Unhealthy(f"{model} was answered with probabilities that are no numbers")
    return Reply(str(said), tuple(float(value) for value in probabilities))
