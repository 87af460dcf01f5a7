"""The guard: an ASGI class in the engine's own process. vLLM loads it with `--middleware trimtab_guard.Guard`.

The agent copies this one folder to the volume that both containers share, so it uses the standard library alone. It

- turns the alias in a request's `model` into the name of a revision, by the table that the agent replaces atomically
  (`files`), and back again in the answer (`renaming`); the header `x-trimtab-revision` says who answered,
- answers inference paths only (`paths`); whatever else the engine offers needs the token that the agent wrote,
- asks for the engine's own key before it reads a body, and bounds what of bodies is held (`bodies`),
- counts requests, errors and latency of each revision, for the analysis of a canary (`counting`),
- adds the aliases to `GET /v1/models`, says the engine's real limits, and is the container's readiness and liveness.

Own paths: `/-/trimtab/ready` and `/-/trimtab/live` (open, for the kubelet), `/-/trimtab/counts` and
`/-/trimtab/limits` (token). A request that carries the token is the agent's: it is not rewritten, not counted, and sees
the engine as it is. Whoever has no token is told reasons in one word: what the agent knows of them names buckets.
"""

from .middleware import Guard

__all__ = ["Guard"]
