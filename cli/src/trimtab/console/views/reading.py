"""Pages that only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...errors import Invalid, NotAllowed, NotFound, NotInstalled
from ...kinds import Kind, kind_named
from ...logs import log_lines
from ...objects import AdapterRollout, CustomObject, Evaluation, FineTuneJob, FineTuneSweep, mapping, text
from ...server import Resource
from ...text import age, clean
from ..addresses import ALL, NAMESPACE, Selection, namespace_path
from ..callers import Caller
from ..context import KINDS, PATIENCE_SECONDS, Context
from ..feeds import FIRST_LIST_SECONDS
from ..pages.approvals import approvals_page
from ..pages.compare import MOST, compare_page
from ..pages.evaluation import evaluation_page
from ..pages.head import head
from ..pages.job import job_page
from ..pages.overview import listing, overview
from ..pages.rollout import rollout_page
from ..pages.sweep import sweep_page
from .responding import respond

EVENTS = Resource("", "v1", "events")
REVIEWS = Resource("trimtab.dev", "v1alpha1", "reviews")
LOG_LINES, EVENTS_SHOWN = 200, 100
LOG_BYTES, POD_BYTES = 400_000, 2_000_000
"""Of a page, and of what is asked of one pod for it."""


def now() -> datetime:
    return datetime.now(UTC)


def patience(request: Request) -> float:
    """Return the seconds that a page waits for long lists: a file to keep for all of them, as no more comes to it."""
    return FIRST_LIST_SECONDS if "export" in request.query_params else PATIENCE_SECONDS


def asked(context: Context, request: Request) -> tuple[Caller, str]:
    """Return who asks, and the namespace; empty means all.

    Raises:
        NotFound: no namespace can have the name.
    """
    caller, namespace = context.caller(request), request.path_params.get("namespace", "")
    if namespace not in ("", ALL) and not NAMESPACE.fullmatch(namespace):
        raise NotFound("no namespace has this name", "choose one above, or - for all")
    return caller, "" if namespace == ALL else namespace


def begin(context: Context, request: Request) -> Response:
    caller = context.caller(request)
    return RedirectResponse(namespace_path(caller.namespace), 303)


def show_overview(context: Context, request: Request) -> Response:
    caller, namespace = asked(context, request)
    found = context.everything(caller, namespace, patience(request))
    page = overview(found.objects, namespace, now(), found.not_shown)
    so_far = 0 if found.is_whole else len(found.objects)
    return respond(context, caller, request, "overview.html", page, namespace=namespace, so_far=so_far)


def show_list(context: Context, request: Request) -> Response:
    caller, namespace = asked(context, request)
    kind = kind_of(request)
    seen = context.feeds.so_far(caller, kind, namespace, patience(request))
    page = listing(seen.objects, kind, namespace, Selection.read(dict(request.query_params)), now())
    so_far = 0 if seen.is_whole else len(seen.objects)
    return respond(context, caller, request, "listing.html", page, namespace=namespace, so_far=so_far)


def show_object(context: Context, request: Request) -> Response:
    caller, namespace, about, others = the_object(context, request)
    match about:
        case FineTuneJob():
            template, page = "job.html", job_page(about, others, now())  # type: tuple[str, Any]
        case Evaluation():
            template, page = "evaluation.html", evaluation_page(about, others, now())
        case AdapterRollout():
            template, page = "rollout.html", rollout_page(about, others, now())
        case FineTuneSweep():
            template, page = "sweep.html", sweep_page(about, now())
        case _:
            raise NotFound(f"{about.kind.name}s have no page", "see kubectl describe")
    return respond(context, caller, request, template, page, namespace=namespace, tab="page")


def show_manifest(context: Context, request: Request) -> Response:
    caller, namespace, about, _ = the_object(context, request)
    metadata = {name: value for name, value in about.metadata.items() if name != "managedFields"}
    written = yaml.safe_dump({**about.body, "metadata": metadata}, sort_keys=False, allow_unicode=False)
    page = {"head": head(about, now()), "manifest": written}
    return respond(context, caller, request, "manifest.html", page, namespace=namespace, tab="manifest")


def show_events(context: Context, request: Request) -> Response:
    caller, namespace, about, _ = the_object(context, request)
    selector = f"involvedObject.kind={about.kind.name},involvedObject.name={about.name}"
    try:
        bodies, refused = caller.server.items(EVENTS.path(namespace), fieldSelector=selector), ""
    except NotAllowed as problem:
        bodies, refused = [], problem.sentence
    events = sorted((_event(each) for each in bodies), key=lambda each: each["time"], reverse=True)[:EVENTS_SHOWN]
    page = {"head": head(about, now()), "events": events, "refused": refused}
    return respond(context, caller, request, "events.html", page, namespace=namespace, tab="events")


def _event(body: dict[str, Any]) -> dict[str, str]:
    series = mapping(body.get("series"))
    times = (series.get("lastObservedTime"), body.get("lastTimestamp"), body.get("eventTime"),
             mapping(body.get("metadata")).get("creationTimestamp"))  # fmt: skip
    time = next((text(each) for each in times if text(each)), "")
    count = series.get("count") or body.get("count") or 1
    return {
        "time": time,
        "age": age(time, now()),
        "type": clean(text(body.get("type"))),
        "reason": clean(text(body.get("reason"))),
        "message": clean(text(body.get("message"))),
        "count": str(count) if isinstance(count, int) and count > 1 else "",
    }


def show_log(context: Context, request: Request) -> Response:
    caller, namespace, about, _ = the_object(context, request)
    refused = ""
    parts: list[dict[str, Any]] = []
    try:
        parts = list(_log(caller, about))
    except NotAllowed as problem:
        refused = problem.sentence
    page = {"head": head(about, now()), "parts": parts, "refused": refused}
    return respond(context, caller, request, "log.html", page, namespace=namespace, tab="log")


def _log(caller: Caller, about: CustomObject) -> Iterator[dict[str, Any]]:
    """Yield an attempt with its lines, the newest lines of each."""
    part: dict[str, Any] = {}
    room = LOG_BYTES
    for each in log_lines(caller.server, about, follow=False, tail=LOG_LINES, most=POD_BYTES):
        if part.get("number") != each.attempt.number:
            if part:
                yield part
            part = {"number": each.attempt.number, "stage": clean(each.attempt.stage), "pod": "", "lines": []}
        room -= len(each.text)
        if room > 0:
            part["lines"].append(clean(each.text[:4000]))
        part["pod"] = clean(each.pod) or part["pod"]
    if part:
        yield part


def show_compare(context: Context, request: Request) -> Response:
    caller, namespace = asked(context, request)
    plural = request.query_params.get("kind", "finetunejobs")
    kind = kind_named(plural if plural in ("finetunejobs", "evaluations") else "finetunejobs")
    known = context.feeds.objects(caller, kind, namespace)
    names = list(dict.fromkeys(filter(None, request.query_params.getlist("name"))))[:MOST]
    counted = Counter(each.name for each in known)
    if several := [name for name in names if counted[name] > 1]:
        raise Invalid(f"{several[0]} is in {counted[several[0]]} namespaces", "choose one above, then compare")
    by_name = {each.name: each for each in known}
    chosen = [by_name[name] for name in names if name in by_name]
    missing = [name for name in names if name not in by_name]
    page = compare_page(chosen, known, namespace, kind.plural, missing)
    return respond(context, caller, request, "compare.html", page, namespace=namespace)


def show_approvals(context: Context, request: Request) -> Response:
    caller, namespace = asked(context, request)
    found = context.everything(caller, namespace, patience(request))
    try:
        reviews = caller.server.items(REVIEWS.path(namespace or None))
    except (NotInstalled, NotFound):
        reviews = None
    page = approvals_page(reviews, found.objects, namespace, now())
    so_far = 0 if found.is_whole else len(found.objects)
    return respond(context, caller, request, "approvals.html", page, namespace=namespace, so_far=so_far)


def the_object(context: Context, request: Request) -> tuple[Caller, str, CustomObject, Any]:
    """Return who asks, the namespace, the object that the address names, and the others of its namespace.

    Raises:
        NotFound: there is none, or the address names no namespace.
    """
    caller, namespace = asked(context, request)
    if not namespace:
        raise NotFound("an object has a namespace", "look at the list")
    name = request.path_params["name"]
    about, others = context.one(caller, kind_of(request), namespace, name, patience(request))
    return caller, namespace, about, others


def kind_of(request: Request) -> Kind:
    """Return the kind that the address names.

    Raises:
        NotFound: it has no pages.
    """
    plural = request.path_params["plural"]
    if plural not in KINDS:
        raise NotFound(f"there are no {plural}", f"the pages are of {', '.join(KINDS)}")
    return kind_named(plural)
