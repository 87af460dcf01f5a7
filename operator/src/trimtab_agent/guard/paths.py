"""Which paths of an engine are open to clients, and which need the agent's token."""

from __future__ import annotations

from .asgi import Scope

TOKEN_HEADER = b"x-trimtab-token"
ASKED_BY_MODEL = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/rerank",
        "/v1/responses",
        "/v1/score",
        "/v2/rerank",
        "/classify",
        "/detokenize",
        "/pooling",
        "/rerank",
        "/score",
        "/tokenize",
    }
)
"""POST with a JSON body that names a model: open, and rewritten."""
READ = frozenset({"/health", "/load", "/metrics", "/ping", "/v1/models", "/version"})
"""GET and HEAD without a token: what kubelets, scrapers and clients ask for."""


def is_open(method: str, path: str) -> bool:
    """Tell whether a path needs no token and no rewriting; compared as a whole, so `//v1/x` or `/v1/x/` is not it."""
    if method in ("GET", "HEAD") and path in READ:
        return True
    if method == "OPTIONS" and (path in ASKED_BY_MODEL or path in READ):
        return True
    parts = path.split("/")  # a stored response of the Responses API: it names no model
    if parts[:3] != ["", "v1", "responses"] or "" in parts[3:] or ".." in parts:
        return False
    return (method in ("GET", "DELETE") and len(parts) == 4) or (
        method == "POST" and len(parts) == 5 and parts[4] == "cancel"
    )


def leaves_the_folder(name: str) -> bool:
    return name.startswith("/") or ".." in name.replace("\\", "/").split("/") or "\0" in name


def without_token(scope: Scope) -> Scope:
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != TOKEN_HEADER]}
