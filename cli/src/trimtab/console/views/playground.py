"""Asking models side by side, through the API server's proxy to a serving pod, as who asks. Nothing of it is kept, but
for what a person prefers where that is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...asking import adapter_of, all_of, engines_of, first_that_serves
from ...engine import Engine, base_of
from ...errors import Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable
from ...kinds import kind_named
from ...objects import AdapterRollout, CustomObject, mapping, number, sequence, text
from ..addresses import object_path
from ..callers import Caller
from ..context import Context
from ..pages.playground import MODELS, QUESTION_LENGTH, TOKENS, Choice, Storing, choices_of, playground_page
from ..preferences import rows_of
from .forms import check_form
from .reading import asked, the_object
from .responding import respond

PREFERENCE_FORMATS = ("Preference", "UnpairedPreference")
LISTED = 8
"""Pods that are asked for their models, when the first do not have all revisions of the history."""
LOADED = ("Incoming", "Serving", "Previous")


@dataclass(frozen=True)
class Question:
    """What is asked of which models of an engine."""

    engine: Engine
    models: tuple[str, ...]
    text: str
    chat: bool
    settings: dict[str, Any]


def show_playground(context: Context, request: Request) -> Response:
    """Show the form; who can be asked is what the engines of the rollout serve now."""
    caller, namespace = asked(context, request)
    rollouts = context.feeds.objects(caller, kind_named("adapterrollouts"), namespace) if namespace else ()
    about = _chosen(rollouts, request.query_params.get("rollout", ""))
    choices: tuple[Choice, ...] = ()
    sentence, next_step = "", ""
    if about is not None:
        try:
            choices = _choices(engines_of(caller.server, about, None), about)
        except Problem as problem:
            sentence, next_step = problem.sentence, problem.next_step
    storing = _storing(context, caller, about) if choices and about is not None else None
    page = playground_page(rollouts, about, choices, sentence, next_step, storing=storing)
    return respond(context, caller, request, "playground.html", page, namespace=namespace)


def _storing(context: Context, caller: Caller, about: AdapterRollout) -> Storing | None:
    if context.preferences is None:
        return None
    pairs, labels = (context.preferences.address(about.namespace, about.name, each) for each in PREFERENCE_FORMATS)
    may = context.may_prefer(caller, about.namespace, about.name)
    return Storing(pairs, labels, object_path(about, "preferences") if may else "")


def prefer(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """Store rows of what a person prefers; the answer is JSON, for the page's script."""
    caller, namespace, about, _ = the_object(context, request)
    check_form(context, caller, form)
    if not isinstance(about, AdapterRollout):
        raise NotFound("only a rollout's models are compared", "choose one on the page Playground")
    if context.preferences is None:
        raise NotInstalled("this console stores no preferences", "download them")
    if not context.may_prefer(caller, namespace, about.name):
        raise NotAllowed(
            f"you may not give preferences about {about.name}",
            "download them; or ask for the right to create adapterrollouts/preferences in this namespace",
        )
    name = form.get("format", "")
    rows = rows_of(form.get("rows", ""), name)
    uri = context.preferences.store(namespace, about.name, name, rows, context.named_user(caller).name)
    return JSONResponse({"rows": len(rows), "uri": uri})


def _chosen(rollouts: Sequence[CustomObject], name: str) -> AdapterRollout | None:
    """Return the rollout of a name; without one that which moves, else the first that serves.

    Raises:
        NotFound: there is none of that name.
    """
    found = [each for each in sorted(rollouts, key=lambda each: each.name) if isinstance(each, AdapterRollout)]
    if name:
        named = [each for each in found if each.name == name]
        if not named:
            raise NotFound(f"there is no AdapterRollout {name}", "choose one of the list")
        return named[0]
    moving = [each for each in found if mapping(each.told.get("step"))]
    served = [each for each in found if each.served_digest]
    return next(iter([*moving, *served, *found]), None)


def _choices(engines: Sequence[Engine], about: AdapterRollout) -> tuple[Choice, ...]:
    adapter, names, base = adapter_of(about), [], ""
    revisions = [each for each in map(mapping, sequence(about.told.get("revisions"))) if each.get("state") in LOADED]
    wanted = {text(each.get("name")) for each in revisions if number(each.get("pods"))}
    silent: Unreachable | None = None
    for engine in engines[:LISTED]:
        try:
            models = engine.models()
        except Unreachable as problem:  # another may answer: this one may be about to end
            if silent is not None:  # and who waited for two waits for no third
                break
            silent = problem
            continue
        base = base or base_of(models)
        names += [text(each.get("id")) for each in models]
        if wanted <= set(names):
            break
    if silent is not None and not names:
        raise silent
    return choices_of(about, adapter, base, names)


def the_question(context: Context, request: Request, form: Mapping[str, str]) -> Question:
    """Return what a form asks, of an engine that serves all models that it names.

    Raises:
        Problem: it is not of the session, out of bounds, or no engine can be asked.
    """
    caller, _, about, _ = the_object(context, request)
    check_form(context, caller, form)
    if not isinstance(about, AdapterRollout):
        raise NotFound("only a rollout's models are asked", "choose one on the page Playground")
    words = form.get("question", "")
    if not words.strip() or len(words) > QUESTION_LENGTH:
        raise Invalid(f"the question has {len(words):,} characters", f"write 1 to {QUESTION_LENGTH:,}")
    names = list(dict.fromkeys(filter(None, form.get("models", "").splitlines())))
    if not names or len(names) > MODELS:
        raise Invalid(f"{len(names)} models are chosen", f"choose 1 to {MODELS}")
    tokens, temperature = form.get("tokens", ""), _temperature(form.get("temperature", ""))
    if not (tokens.isascii() and tokens.isdigit() and len(tokens) < 6 and 0 < int(tokens) <= TOKENS):
        raise Invalid("the length is none", f"write 1 to {TOKENS} tokens")
    engine, models = first_that_serves(engines_of(caller.server, about, None), lambda listed: all_of(listed, names))
    settings = {"max_tokens": int(tokens), "temperature": temperature}
    return Question(engine, tuple(models), words, form.get("completion") != "on", settings)


def _temperature(told: str) -> float:
    try:
        value = float(told)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise Invalid("the temperature is none", "write 0 to 2")
    return value
