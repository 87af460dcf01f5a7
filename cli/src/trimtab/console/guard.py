"""What every request passes before any page: the Host header, where a form comes from, and the headers of answers.

One ASGI middleware. A name in Host that is not the console's means that somebody's name service points at it (DNS
rebinding); an Origin that is not, that another site's page wants something done.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # without any, browsers send forms with the Origin null
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
SAFE = ("GET", "HEAD")


class Guard:
    """Lets requests through that are meant for these hosts and come from their own pages.

    Args:
        hosts: values of the Host header that are the console's, such as `127.0.0.1:8090`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a report has a stricter policy of its own
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(str(scope["method"]), str(scope["path"]), Headers(scope=scope))
        if refusal:
            await PlainTextResponse(refusal, 403)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> str:
        """Return why a request is not let through, or nothing."""
        if path == "/healthz":  # a kubelet asks by the pod's address
            return "" if method in SAFE else "Nothing is written here."
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return "This is not the console's name: open it by the address that it was started with."
        if method in SAFE:
            return ""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
        if site is not None and site != "same-origin":
            return "A page of another site asked for this."
        if origin.lower() not in (f"http://{host}", f"https://{host}"):
            return "This did not come from a page of the console."
        return ""
