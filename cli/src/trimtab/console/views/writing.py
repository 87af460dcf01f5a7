"""What changes something, with the rights of who asks and nothing that kubectl could not: hold up and let go on, go
back, decide, and make what a form describes. A write names the uid of what the person saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import Response

from ...checking import repeated
from ...decisions import DIGEST, review
from ...errors import Conflict, Invalid, NotFound, Problem
from ...kinds import Kind, kind_named, kinds
from ...loader import ManifestLoader
from ...manifests import METHODS, Answers, manifests
from ...objects import AdapterRollout, mapping, text
from ...server import Resource
from ...text import clean
from ..addresses import object_path, page_path
from ..context import KINDS, Context
from ..pages.head import head
from ..pages.rollout import way_back
from .forms import check_form
from .reading import REVIEWS, asked, now, the_object
from .responding import redirect, respond

Form = Mapping[str, str]
MADE = (*KINDS, "adapterexports")
"""Kinds that a form makes: an export has no page, and kubectl trimtab describe tells of it."""
MANIFESTS, MANIFEST_LENGTH, DEPTH = 10, 100_000, 60
"""Of one form."""


def hold(context: Context, request: Request, form: Form) -> Response:
    """Hold an object up, or let it go on."""
    caller, _, about, _ = the_object(context, request)
    check_form(context, caller, form)
    verb = request.path_params["verb"]
    if about.kept_by:
        raise Conflict(
            f"{about.name} is kept as it is in git ({about.kept_by})", f"set spec.{about.kind.stop} there instead"
        )
    if about.ended:
        raise Invalid(f"{about.name} has ended ({about.state})", f"there is nothing to {verb}")
    _check_same(about, form)
    patch = _bound(form["uid"], {"spec": {about.kind.stop: verb == "suspend"}})
    context.feeds.learn(caller, about.kind, caller.server.merge(_path(about), patch))
    return redirect(object_path(about), "suspended" if verb == "suspend" else "resumed")


def show_back(context: Context, request: Request) -> Response:
    """Show what going back to a revision would write, and what the API server says of it."""
    caller, namespace, about, _ = the_object(context, request)
    digest = request.query_params.get("to", "")
    patch = _back(about, digest)
    problem = ""
    try:
        caller.server.merge(_path(about), _bound(about.metadata.get("uid"), patch), dry_run=True)
    except Problem as refused:
        problem = str(refused)
    page = {
        "head": head(about, now()),
        "before": yaml.safe_dump({"spec": {"source": about.spec.get("source")}}, sort_keys=False),
        "after": yaml.safe_dump(_shown(patch), sort_keys=False),
        "digest": digest,
        "problem": clean(problem),
    }
    return respond(context, caller, request, "back.html", page, namespace=namespace, tab="page")


def go_back(context: Context, request: Request, form: Form) -> Response:
    """Write the source that `show_back` has shown.

    Raises:
        Conflict: what keeps it in git would set it back, or it is another object than was shown.
    """
    caller, _, about, _ = the_object(context, request)
    check_form(context, caller, form)
    patch = _back(about, form.get("to", ""))
    if about.kept_by:
        raise Conflict(f"{about.name} is kept as it is in git ({about.kept_by})", "commit the change shown there")
    _check_same(about, form)
    answer = caller.server.merge(_path(about), _bound(form["uid"], patch))
    context.feeds.learn(caller, about.kind, answer)
    return redirect(object_path(about), "back")


def _back(about: Any, digest: str) -> dict[str, Any]:
    if not isinstance(about, AdapterRollout):
        raise NotFound("only a rollout goes back", "look at the list")
    return way_back(about, digest)


def _shown(patch: dict[str, Any]) -> dict[str, Any]:
    """Return a change as a manifest has it: what is taken away is not in it."""
    return {"spec": {"source": {name: value for name, value in patch["spec"]["source"].items() if value is not None}}}


def _check_same(about: Any, form: Form) -> None:
    """Raise Conflict where the object is not the one that the page of a form showed: it was deleted and made anew."""
    if form.get("uid") != about.metadata.get("uid"):
        raise Conflict(f"{about.name} is another one than the page showed", "load the page again, and look")


def _bound(uid: Any, patch: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, **patch}


def _path(about: Any) -> str:
    return Resource(about.kind.group, about.kind.version, about.kind.plural).path(about.namespace, about.name)


def decide(context: Context, request: Request, form: Form) -> Response:
    """Record a Review by who asks."""
    caller, namespace = asked(context, request)
    check_form(context, caller, form)
    subject = next((kind for kind in kinds() if kind.name == form.get("kind") and kind.plural in KINDS), None)
    if subject is None or not namespace or not DIGEST.fullmatch(form.get("digest", "")):
        raise Invalid("this is nothing to decide about", "use the page of approvals")
    user = context.named_user(caller)
    about, _ = context.one(caller, subject, namespace, form.get("name", ""))
    decision = form.get("decision", "")
    body = review(about, decision, form["digest"], form.get("message", ""), user)
    caller.server.create(REVIEWS.path(namespace), body)
    return redirect(page_path(namespace, "approvals"), decision.lower())


def show_new(context: Context, request: Request) -> Response:
    """Show the form, and the manifests of what it says so far."""
    caller, namespace = asked(context, request)
    answers, problem, written = _answers(request.query_params), "", ""
    if answers.name:
        try:
            written = manifests(answers)
        except Invalid as refused:
            problem = str(refused)
    page = {
        "answers": answers,
        "methods": tuple(METHODS),
        "problem": clean(problem),
        "manifest": written,
        "told": (),
        "made": (),
    }
    return respond(context, caller, request, "new.html", page, namespace=namespace)


def _answers(query: Mapping[str, str]) -> Answers:
    """Return what an address says; `export` is there that of a file to keep."""
    given = {name: value.strip() for name, value in query.items() if name != "export"}

    def number(name: str, default: str) -> int:
        told = given.get(name) or default
        return int(told) if told.isascii() and told.isdigit() and len(told) < 4 else -1

    return Answers(
        name=given.get("name", ""),
        base_model=given.get("base_model", ""),
        data=given.get("data", ""),
        output=given.get("output", ""),
        secret_name=given.get("secret_name", "object-storage"),
        gpus=number("gpus", "1"),
        serving=given.get("serving", ""),
        nodes=number("nodes", "1"),
        method=given.get("method", "SFT"),
        trials=number("trials", "0"),
        export=given.get("export_to", ""),
        hub_secret_name=given.get("hub_secret_name", ""),
    )


def make(context: Context, request: Request, form: Form) -> Response:
    """Ask for manifests by a dry run, and where that was the wish and nothing is wrong make them."""
    caller, namespace = asked(context, request)
    check_form(context, caller, form)
    if not namespace:
        raise Invalid("no namespace is chosen", "choose one above")
    written = form.get("manifest", "").replace("\r\n", "\n")
    told: list[str] = []
    made: list[tuple[str, str]] = []
    bodies = _bodies(written, namespace)
    for path, body in bodies:
        try:
            caller.server.create(path, body, dry_run=True)
        except Problem as problem:
            told.append(f"{body['kind']} {body['metadata']['name']}: {problem}")
    if form.get("wish") == "make" and not told:
        for path, body in bodies:
            try:
                context.feeds.learn(caller, _kind_of(body), caller.server.create(path, body))
            except Problem as problem:  # what was made before stays, and is told
                told.append(f"{body['kind']} {body['metadata']['name']}: {problem}")
                break
            made.append((f"{body['kind']} {body['metadata']['name']}", _page_of(namespace, body)))
    page = {
        "answers": _answers(request.query_params),
        "methods": tuple(METHODS),
        "problem": "",
        "manifest": written,
        "told": tuple(map(clean, told)) or (() if made else ("The API server would take it as it is.",)),
        "made": tuple(made),
        "refused": bool(told),
    }
    status = 422 if told else 200
    return respond(context, caller, request, "new.html", page, namespace=namespace, status=status)


def _bodies(written: str, namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """Return where each object of a text goes, and the object.

    Raises:
        Invalid: it is no YAML, of another kind, or of another namespace.
    """
    try:
        _check_shape(written)
        for node in yaml.compose_all(written, ManifestLoader):
            for line, sentence in repeated(node):
                raise Invalid(f"line {line}: {sentence}")
        found = [each for each in yaml.load_all(written, ManifestLoader) if each is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise Invalid(f"line {line}: this is no YAML: {clean(error.problem)}", "look at its indent") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"this is no YAML: {clean(error)}", "look at its indent") from error
    if not found or len(found) > MANIFESTS:
        raise Invalid(f"there are {len(found)} objects", f"write one to {MANIFESTS}")
    placed = []
    for each in found:
        body, metadata = mapping(each), mapping(mapping(each).get("metadata"))
        kind = next((kind for kind in kinds() if kind.name == body.get("kind") and kind.plural in MADE), None)
        if kind is None or body.get("apiVersion") != kind.api_version or not text(metadata.get("name")):
            known = ", ".join(kind_named(plural).name for plural in MADE)
            raise Invalid("an object has another kind, or no name", f"write {known} of {kinds()[0].api_version}")
        if text(metadata.get("namespace")) not in ("", namespace):
            raise Invalid(f"{metadata.get('name')} is of another namespace", f"this page is of {namespace}")
        placed.append((Resource(kind.group, kind.version, kind.plural).path(namespace), dict(body)))
    return placed


def _check_shape(written: str) -> None:
    """Refuse what small text makes large or deep, before it is made.

    Raises:
        Invalid: with what it is.
        yaml.YAMLError: it is none.
    """
    if len(written) > MANIFEST_LENGTH:
        raise Invalid(f"the manifests have {len(written):,} characters", f"write at most {MANIFEST_LENGTH:,}")
    depth = 0
    for event in yaml.parse(written, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise Invalid("the manifests have an alias (*)", "write out what it stands for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise Invalid(f"the manifests are nested more than {DEPTH} deep", "no object of Trimtab is")


def _page_of(namespace: str, body: dict[str, Any]) -> str:
    """Return the page of what was made, empty where it has none."""
    return (
        ""
        if _kind_of(body).plural not in KINDS
        else page_path(namespace, _kind_of(body).plural, body["metadata"]["name"])
    )


def _kind_of(body: dict[str, Any]) -> Kind:
    return next(kind for kind in kinds() if kind.name == body["kind"])
