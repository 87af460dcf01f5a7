"""What the guard knows of the engine around it, and asks of it without leaving the process."""

from __future__ import annotations

import hmac
import json
import os
from typing import Any

from .asgi import App, Headers, Message, Scope
from .files import Table


def with_aliases(body: bytes, table: Table) -> bytes:
    try:
        document = json.loads(body)
        known = {item["id"]: item for item in document["data"]}
        for alias, entry in sorted(table.aliases.items()):
            if entry.names and alias not in known:
                heaviest = max(zip(entry.weights, entry.names, strict=True))[1]
                parent = known.get(heaviest, {}).get("parent")
                created = known.get(heaviest, {}).get("created", 0)
                document["data"].append(
                    {
                        "id": alias,
                        "object": "model",
                        "created": created,
                        "owned_by": "trimtab",
                        "root": heaviest,
                        "parent": parent,
                    }
                )
        return json.dumps(document).encode()
    except (ValueError, TypeError, KeyError, AttributeError):
        return body


def _state(scope: Scope) -> Any:
    return getattr(scope.get("app"), "state", None)


def _api_keys(scope: Scope) -> list[str]:
    """Return the engine's own keys: its argument comes before its variable."""
    keys = getattr(getattr(_state(scope), "args", None), "api_key", None) or [os.environ.get("VLLM_API_KEY")]
    return [str(key) for key in ([keys] if isinstance(keys, str) else keys) if key]


def has_the_key(scope: Scope) -> bool:
    """Tell whether a request may be let in: by one of the engine's keys, if it has any, and as the engine compares."""
    keys = _api_keys(scope)
    if not keys:
        return True
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    scheme, _, key = given.partition(b" ")
    same = [hmac.compare_digest(key, each.encode()) for each in keys]
    return scheme.lower() == b"bearer" and any(same)


def base_names(scope: Scope) -> set[str]:
    """Return the names the base model is served by: without --served-model-name it is the path it was read from."""
    args = getattr(_state(scope), "args", None)
    served = getattr(args, "served_model_name", None) or []
    return {str(name) for name in ([served] if isinstance(served, str) else served)} | {str(getattr(args, "model", ""))}


def limits(scope: Scope) -> dict[str, Any]:
    """Return what the engine was really started with: its configuration, else its arguments; None where unknown."""
    state = _state(scope)
    configuration = getattr(getattr(state, "vllm_config", None), "lora_config", None)
    args = getattr(state, "args", None)
    found: dict[str, Any] = {}
    for name, key in (("max_loras", "maxLoras"), ("max_lora_rank", "maxLoraRank"), ("max_cpu_loras", "maxCpuLoras")):
        value = getattr(configuration, name, None)
        if value is None:
            value = getattr(args, name, None)
        found[key] = int(value) if value is not None else None
    if found["maxCpuLoras"] is None:
        found["maxCpuLoras"] = found["maxLoras"]
    enabled = getattr(args, "enable_lora", None)
    found["loraEnabled"] = configuration is not None or bool(enabled) if state is not None else None
    return found


async def ask(app: App, path: str, scope: Scope) -> bytes | None:
    """GET a path of the engine without leaving the process; None unless it answers 200."""
    headers: Headers = [(b"host", b"localhost")]
    if keys := _api_keys(scope):
        headers.append((b"authorization", b"Bearer " + keys[0].encode()))
    inner = {
        "type": "http",
        "asgi": scope.get("asgi", {"version": "3.0"}),
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": scope.get("server"),
        "state": scope.get("state", {}),
    }
    if "app" in scope:
        inner["app"] = scope["app"]
    status, parts, asked = 0, [], False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    try:
        await app(inner, receive, send)
    except Exception:  # an engine that fails to answer is not ready, whatever it raised
        return None
    return b"".join(parts) if status == 200 else None
