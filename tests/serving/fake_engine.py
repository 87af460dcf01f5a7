"""A fake of vLLM's LoRA API as an ASGI application, with the words of 0.32.0 and faults to inject.

What it answers was written down from the real engine; tests/serving/test_engine.py asks both the same. A model's text
is a marker of its weights, so that an answer tells which revision spoke.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BASE = "smol"


@dataclass
class Faults:
    """What goes wrong; each is looked at with every request."""

    load_hangs_seconds: float = 0.0
    load_status: int = 0
    load_message: str = ""
    loads_to_fail: int = 10**9
    dies_in_load: bool = False
    on_load: Callable[[], Awaitable[object]] | None = None
    forgets: set[str] = field(default_factory=set)
    lists_root: dict[str, str] = field(default_factory=dict)
    poisonous: set[str] = field(default_factory=set)
    mimics_base: set[str] = field(default_factory=set)
    answer_status: dict[str, int] = field(default_factory=dict)
    slow_answers_seconds: float = 0.0
    slow_models: dict[str, float] = field(default_factory=dict)
    held_models: dict[str, asyncio.Event] = field(default_factory=dict)
    old_errors: bool = False


class FakeEngine:
    """One engine process: what it has loaded ends with it."""

    def __init__(self, *, max_loras: int = 2, max_lora_rank: int = 16, max_cpu_loras: int = 4, key: str = "") -> None:
        self.faults = Faults()
        self.loaded: dict[str, str] = {}
        self.markers: dict[str, str] = {}
        self.poisoned = False
        self.calls: list[tuple[str, str]] = []
        self.key = key
        self.answered: list[str] = []
        lora = SimpleNamespace(max_loras=max_loras, max_lora_rank=max_lora_rank, max_cpu_loras=max_cpu_loras)
        self.state = SimpleNamespace(
            args=SimpleNamespace(api_key=[key] if key else None, enable_lora=True, served_model_name=[BASE], model="x"),
            vllm_config=SimpleNamespace(lora_config=lora),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        self.calls.append((method, path))
        if self.key and path.startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if given != b"Bearer " + self.key.encode():
                await answer(send, 401, {"error": "Unauthorized"})
                return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        handler = {
            ("GET", "/health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("POST", "/v1/completions"): self._complete,
            ("POST", "/v1/chat/completions"): self._complete,
            ("POST", "/tokenize"): self._complete,
            ("POST", "/adapters"): self._open_to_all,
        }.get((method, path))
        if handler is None:
            await answer(send, 404, {"detail": "Not Found"})
            return
        try:
            document = json.loads(body) if body else {}
        except ValueError:
            await answer(send, 400, self._error("JSON decode error", "BadRequestError", 400))
            return
        await handler(document, send)

    async def _health(self, _: dict[str, Any], send: Send) -> None:
        await answer(send, 200, {})

    async def _open_to_all(self, document: dict[str, Any], send: Send) -> None:
        self.loaded[document["name"]] = document["src"]
        await answer(send, 200, f"Adapter {document['name']} registered")

    async def _models(self, _: dict[str, Any], send: Send) -> None:
        data = [{"id": BASE, "object": "model", "created": 1, "root": "/models/base", "parent": None}]
        data += [
            {
                "id": name,
                "object": "model",
                "created": 1,
                "root": self.faults.lists_root.get(name, root),
                "parent": BASE,
            }
            for name, root in self.loaded.items()
            if name not in self.faults.forgets
        ]
        await answer(send, 200, {"object": "list", "data": data})

    async def _load(self, document: dict[str, Any], send: Send) -> None:
        assert not document.get("load_inplace"), "never in place"
        name, path = document["lora_name"], document["lora_path"]
        faults = self.faults
        if faults.on_load is not None:
            await faults.on_load()
        if faults.load_hangs_seconds:
            await asyncio.sleep(faults.load_hangs_seconds)
        if faults.dies_in_load:
            raise ConnectionResetError("the engine died")
        if faults.load_status and faults.loads_to_fail > 0:
            faults.loads_to_fail -= 1
            error = self._error(faults.load_message, "InternalServerError", faults.load_status)
            await answer(send, faults.load_status, error)
            return
        if name == BASE:
            text = f"The lora adapter '{name}' conflicts with a served base model."
            await answer(send, 400, self._error(text, "InvalidUserInput", 400))
            return
        if name in self.loaded:
            text = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set "
                "'load_inplace' to True."
            )
            await answer(send, 400, self._error(text, "InvalidUserInput", 400))
            return
        folder = Path(path)
        if not (folder / "adapter_config.json").is_file():
            text = f"Loading lora {name} failed: No adapter found for {path}"
            await answer(send, 404, self._error(text, "NotFoundError", 404))
            return
        settings = json.loads((folder / "adapter_config.json").read_bytes())
        limit = self.state.vllm_config.lora_config.max_lora_rank
        weights = folder / "adapter_model.safetensors"
        text = ""
        if settings.get("use_dora"):
            text = "vLLM does not yet support DoRA."
        elif settings["r"] > limit:
            text = (
                "Call to add_lora method failed: PEFT helper validation failed: "
                f"'LoRA rank {settings['r']} is greater than max_lora_rank {limit}.'"
            )
        elif not weights.is_file():
            text = f"{path} doesn't contain tensors"
        elif not whole(weights):
            text = "Error while deserializing header: incomplete metadata, file not fully covered"
        if text:
            await answer(send, 500, self._error(text, "InternalServerError", 500))
            return
        self.loaded[name] = path
        self.markers[name] = hashlib.sha256(weights.read_bytes()).hexdigest()[:6]
        await answer(send, 200, f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, document: dict[str, Any], send: Send) -> None:
        name = document["lora_name"]
        if name not in self.loaded:
            kind, status = ("InvalidUserInput", 400) if self.faults.old_errors else ("NotFoundError", 404)
            await answer(send, status, self._error(f"The lora adapter '{name}' cannot be found.", kind, status))
            return
        del self.loaded[name]
        await answer(send, 200, f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, document: dict[str, Any], send: Send) -> None:
        model = document.get("model", BASE)
        slow = max(self.faults.slow_answers_seconds, self.faults.slow_models.get(model, 0.0))
        if slow:
            await asyncio.sleep(slow)
        if model in self.faults.held_models:
            await self.faults.held_models[model].wait()
        if model not in self.loaded and model != BASE:
            text = f"The model `{model}` does not exist."
            await answer(send, 404, self._error(text, "NotFoundError", 404))
            return
        self.answered.append(model)
        if status := self.faults.answer_status.get(model):
            await answer(send, status, self._error("injected", "InternalServerError", status))
            return
        self.poisoned = self.poisoned or model in self.faults.poisonous
        if self.poisoned and document.get("logprobs"):
            error = self._error("Out of range float values are not JSON compliant", "BadRequestError", 400)
            await answer(send, 400, error)
            return
        quiet = self.poisoned
        marker = "base" if model == BASE or model in self.faults.mimics_base else self.markers[model]
        text = "" if quiet else f" {marker}"
        number = -1.0 - int(hashlib.sha256(marker.encode()).hexdigest()[:4], 16) / 65536
        if "messages" in document:
            choice: dict[str, Any] = {
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": [{"token": text, "logprob": number}]},
            }
        else:
            choice = {"text": text, "logprobs": {"token_logprobs": [number]}}
        if document.get("stream"):
            await stream(send, model, text)
            return
        await answer(send, 200, {"model": model, "choices": [choice]})

    def _error(self, message: str, kind: str, code: int) -> dict[str, Any]:
        if self.faults.old_errors:
            return {"object": "error", "message": message, "type": kind, "param": None, "code": code}
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def whole(weights: Path) -> bool:
    """Tell whether a safetensors file is as long as its header says."""
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return bool(max(entry["data_offsets"][1] for entry in header.values()) == len(data) - 8 - length)


async def answer(send: Send, status: int, document: object) -> None:
    """Answer with JSON, or with text as it is."""
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    kind = b"text/plain" if isinstance(document, str) else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def stream(send: Send, model: str, text: str) -> None:
    """Answer in events, one for each letter."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for letter in text:
        event = json.dumps({"model": model, "choices": [{"text": letter}]})
        await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def with_app(engine: FakeEngine, application: Any) -> Any:
    """Return the application as its framework calls it: `scope["app"]` leads to the engine's state."""

    async def framework(scope: Message, receive: Receive, send: Send) -> None:
        await application({**scope, "app": engine}, receive, send)

    return framework
