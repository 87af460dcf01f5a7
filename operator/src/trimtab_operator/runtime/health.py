"""The endpoints for probes and Prometheus, each on its own port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], Mapping[str, bool]]
"""Returns named findings; all of them must hold."""


async def serve(port: int, application: web.Application, host: str | None = None) -> web.AppRunner:
    """Listen on a port, IPv4 and IPv6; the caller cleans the runner up."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, reuse_address=True).start()
    return runner


def probes(live: Check, ready: Check) -> web.Application:
    """Return `/healthz` and `/readyz`: 200 or 503, and which findings did not hold."""

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            found = check()
            text = "".join(f"[{'+' if holds else '-'}]{name}\n" for name, holds in found.items())
            return web.Response(status=200 if all(found.values()) else 503, text=text)

        return handle

    application = web.Application()
    application.add_routes([web.get("/healthz", answer(live)), web.get("/readyz", answer(ready))])
    return application


def exposition() -> web.Application:
    """Return `/metrics`."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes([web.get("/metrics", handle)])
    return application
