"""A page value becomes an answer: the whole page, its live part, or a file that stands alone."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ...errors import Conflict, Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable
from ..addresses import ALL, namespace_path, page_path, within
from ..callers import Caller
from ..context import KINDS, Context
from ..feeds import TooMany
from ..pictures.curve import spark
from ..sessions import new_session

STATUSES: tuple[tuple[type[Problem], int], ...] = (
    (NotAllowed, 403),
    (NotFound, 404),
    (NotInstalled, 404),
    (Conflict, 409),
    (Invalid, 422),
    (TooMany, 503),
    (Unreachable, 502),
)
LIVE = "live"
"""The block that a live page asks for again, and the id of its element."""
MENU = (
    ("Overview", "", "o"),
    ("Runs", "finetunejobs", "r"),
    ("Sweeps", "finetunesweeps", "s"),
    ("Evaluations", "evaluations", "e"),
    ("Rollouts", "adapterrollouts", "u"),
    ("Compare", "compare", "c"),
    ("Approvals", "approvals", "a"),
    ("Playground", "playground", "p"),
)
DONE = {
    "suspended": "It is held up.",
    "resumed": "It goes on.",
    "back": "The rollout was told to go back.",
    "approve": "Your approval is recorded.",
    "reject": "Your rejection is recorded.",
    "comment": "Your comment is recorded.",
}
"""What a page says after a write; the address has the word alone."""


@cache
def templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trimtab.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["coded"] = coded
    environment.globals |= {
        "all_namespaces": ALL,
        "asset": asset,
        "kinds": KINDS,
        "menu": MENU,
        "namespace_path": namespace_path,
        "page_path": page_path,
        "spark": spark,
    }
    return environment


def prepare() -> None:
    """Read all files and compile all templates, so that whoever comes first does not wait for it."""
    assets()
    for name in templates().list_templates():
        templates().get_template(name)


def status_of(problem: Problem) -> int:
    return next((status for kind, status in STATUSES if isinstance(problem, kind)), 500)


CODED = re.compile(r"`([^`]+)`")


def coded(line: str) -> Markup:
    """Return a line of the meaning of a reason, its `names` as code; all else of it is text."""
    return Markup(CODED.sub(r"<code>\1</code>", str(escape(line))))  # escaped before


@cache
def asset(name: str) -> str:
    """Return the address of a file, which has its content's hash so that browsers keep it for good."""
    return f"/assets/{name}?v={hashlib.sha256(assets()[name]).hexdigest()[:12]}"


@cache
def assets() -> Mapping[str, bytes]:
    """Return all files that pages are made of, by their names."""
    folder = files("trimtab.console") / "assets"
    places = (("", folder), ("vendor/", folder / "vendor"))
    return {
        f"{prefix}{each.name}": each.read_bytes()
        for prefix, place in places
        for each in place.iterdir()
        if each.is_file()
    }


@cache
def _style() -> tuple[Markup, str]:
    """Return the style sheet for a page that stands alone, and the hash that its policy allows it by."""
    text = assets()["console.css"].decode()
    return Markup(text), b64encode(hashlib.sha256(text.encode()).digest()).decode()


def respond(
    context: Context,
    caller: Caller,
    request: Request,
    template: str,
    page: Any,
    *,
    namespace: str,
    status: int = 200,
    **more: Any,
) -> Response:
    """Return a page; the block of its live part where a live page asks; a file to keep for `?export`."""
    session = caller.session or new_session()
    export = "export" in request.query_params
    found = templates().get_template(template)
    values = {
        "follows": LIVE in found.blocks,
        "page": page,
        "namespace": namespace,
        "namespaces": context.namespaces(caller),
        "path": request.url.path,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "form_token": context.sessions.form_token(session),
        "user": context.user(caller).name,
        "cluster": context.address,
        "opens_reports": context.storage is not None,
        "is_signed_in": caller.is_signed_in,
        "done": DONE.get(request.query_params.get("done", ""), ""),
        "export": export,
        "style": _style() if export else None,
        "tab": "",
        "so_far": 0,
        **more,
    }
    if request.headers.get("hx-target") == LIVE and LIVE in found.blocks:
        text = "".join(found.blocks[LIVE](found.new_context(values)))
        return HTMLResponse(_encoded(text), status)
    response = HTMLResponse(_encoded(found.render(values)), status)
    if export:
        name = "".join(each if each.isalnum() or each == "-" else "-" for each in request.url.path.strip("/"))
        response.headers["Content-Disposition"] = f'attachment; filename="trimtab-{name}.html"'
    if session != caller.session:
        set_session(context, response, session)
    return response


def _encoded(text: str) -> bytes:
    """Return a page as bytes: half a character, which JSON can say and an engine may tell, is a question mark."""
    return text.encode(errors="replace")


def set_session(context: Context, response: Response, session: str) -> None:
    response.set_cookie(
        context.callers.cookie,
        session,
        path="/",
        httponly=True,
        samesite=context.callers.same_site,
        secure=context.secure,
    )


def redirect(path: str, done: str = "") -> Response:
    """Return the way to a page of the console and nowhere else."""
    return RedirectResponse(within(path) + (f"?done={done}" if done else ""), 303)
