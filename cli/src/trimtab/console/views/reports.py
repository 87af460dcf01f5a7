"""Reports of the object storage in a frame of their own: what was written by a run is shown, and can do nothing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ...errors import NotFound, NotInstalled, Problem
from ...objects import CustomObject, Evaluation, FineTuneJob, FineTuneSweep, mapping, text
from ...text import clean
from ..context import Context
from ..pages.head import Head, head
from ..visits import NotSignedIn
from .reading import now, the_object
from .responding import respond, status_of

POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Of a report: no script runs, nothing is asked for, and its origin is nobody's: it reads nothing of the console."""
HEADERS = {"Content-Security-Policy": POLICY, "X-Frame-Options": "SAMEORIGIN"}


@dataclass(frozen=True)
class ReportPage:
    """Attributes:
    source: where the frame's page is, empty where the console cannot read it; `uri` in the storage.
    command: gets it with a person's own keys.
    """

    head: Head
    name: str
    uri: str
    source: str
    command: str


def show_report(context: Context, request: Request) -> Response:
    """Show a report in a frame, or say how it is got."""
    caller, namespace, about, _ = the_object(context, request)
    uri, which = uri_of(about, request.path_params["which"]), request.path_params["which"]
    told = head(about, now())
    is_read = context.storage is not None and uri.startswith("s3://")
    source = f"{told.href}/reports/{which}/page" if is_read else ""
    page = ReportPage(told, PurePosixPath(clean(uri)).name, clean(uri), source, _command(uri))
    return respond(context, caller, request, "report.html", page, namespace=namespace, tab=which)


def show_content(context: Context, request: Request) -> Response:
    """Give the report itself, which nobody but a frame of the console shows, or say there why there is none."""
    try:
        _, _, about, _ = the_object(context, request)
        uri = uri_of(about, request.path_params["which"])
        if context.storage is None:
            raise NotInstalled("this console has no keys of the object storage", f"get {clean(uri)} with your own")
        return Response(context.storage.page(uri), media_type="text/html; charset=utf-8", headers=HEADERS)
    except NotSignedIn:
        raise
    except Problem as problem:  # any other page of the console is framed by nobody, so a browser would show nothing
        return refusal(problem)


def refusal(problem: Problem) -> Response:
    """Return why a report is not shown, for its frame."""
    return PlainTextResponse(clean(str(problem)), status_of(problem), headers=HEADERS)


def _command(uri: str) -> str:
    """Return what a person types; an address with anything odd is one word of a shell all the same."""
    return f"aws s3 cp {shlex.quote(clean(uri))} ." if uri.startswith("s3://") else f"# on its volume: {clean(uri)}"


def uri_of(about: CustomObject, which: str) -> str:
    """Return the address of a report that an object's status names.

    Raises:
        NotFound: it names none.
    """
    match about, which:
        case FineTuneJob(), "report":
            uri = text(mapping(about.told.get("artifact")).get("reportURI"))
        case FineTuneJob(), "data":
            uri = text(mapping(about.told.get("dataset")).get("reportURI"))
        case ((Evaluation() | FineTuneSweep()), "report"):
            uri = text(about.told.get("reportURI"))
        case _:
            uri = ""
    if not uri:
        raise NotFound(f"{about.name} has no such report yet", "its page says how far it is")
    return uri
