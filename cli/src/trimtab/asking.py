"""A question to several models of one serving pod, side by side: the base, what is served, any revision."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .engine import Engine, base_of
from .errors import NotFound, Problem, Unreachable, near
from .objects import CustomObject, mapping, sequence, text
from .replies import Replies, Reply
from .server import PODS, Body, Server

ENGINE_PORT = 8000
PORT_NAME = "http"
"""What the port of an engine is called in its pod."""
AGENT = "trimtab-agent"
DIGEST_CHARACTERS = 8
"""Of a digest, in the name of a revision."""
ANSWER_CHARACTERS = 1_000_000
"""Of one answer: an engine that never ends would fill the memory."""


Heard = Callable[[Sequence[Reply]], None]


class Ends:
    """Ends answers that are under way, from whatever thread: the engine then computes no more of them."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.over = False

    def add(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.append(end)
            over = self.over
        if over:  # it was ended before there was anything to end
            _ended(end)

    def end(self) -> None:
        with self._lock:
            self.over = True
            ends, self._ends = self._ends, []
        for each in ends:
            _ended(each)


def _ended(end: Callable[[], None]) -> None:
    with contextlib.suppress(ValueError, RuntimeError, OSError):  # its connection was closed before
        end()


def ask(
    engine: Engine,
    models: Sequence[str],
    question: str,
    settings: dict[str, Any],
    *,
    chat: bool = True,
    heard: Heard | None = None,
    ends: Ends | None = None,
) -> Replies:
    """Ask all models at once, and return what they answered.

    Args:
        heard: called with what there is of all answers, whenever there is more; by one thread at a time.
        ends: what ends the answers before they are whole.

    Raises:
        Problem: none of them answered.
    """
    replies = [Reply(model, "") for model in models]
    problems: list[Problem | None] = [None] * len(models)
    lock, began, ends = threading.Lock(), time.monotonic(), ends or Ends()

    def put(place: int, **changes: Any) -> None:
        with lock:
            before = replies[place]
            told = {"text": before.text, "revision": before.revision, **changes, "seconds": time.monotonic() - began}
            replies[place] = Reply(before.model, **told)
            if heard is not None:
                heard(tuple(replies))

    def listen(place: int) -> None:
        try:
            whole = ""
            for revision, word in engine.words(models[place], question, settings, chat=chat, begun=ends.add):
                whole += word
                if len(whole) > ANSWER_CHARACTERS:
                    raise Problem(f"{models[place]} answers without end", "see the engine's log")
                put(place, text=whole, revision=revision)
            put(place, text=whole)
        except Problem as problem:
            problems[place] = problem
            put(place, problem=str(problem))
        except Exception as bug:  # told where somebody waits, and not in a thread
            problems[place] = Problem(f"{type(bug).__name__}: {bug}")
            put(place, problem=str(bug))

    threads = [threading.Thread(target=listen, args=(place,), daemon=True) for place in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [each for each in problems if each is not None]
    if found and len(found) == len(models):
        raise found[0]
    return Replies.of(replies, question, engine.name)


def chosen(models: list[Body], adapter: str, revisions: Sequence[str], *, base: bool) -> list[str]:
    """Return which of an engine's models are asked: the base, the served name, and the revisions that are wanted.

    Args:
        adapter: the name that is served; empty where there is none.
        revisions: names, or the begin of a digest.
        base: whether the base is asked too.

    Raises:
        NotFound: one is not there, or nothing but the base; the sentence has what there is.
    """
    names = [text(each.get("id")) for each in models]
    if adapter not in names and not revisions:
        raise NotFound(
            f"the engine does not serve {adapter}; it serves {', '.join(names)}",
            "kubectl trimtab describe says what the rollout waits for",
        )
    wanted = [base_of(models)] if base else []
    wanted += [adapter] if adapter in names else []
    for revision in revisions:
        digest = revision.removeprefix("sha256:")[:DIGEST_CHARACTERS]
        found = [name for name in names if name == revision or (digest and name.startswith(f"{adapter}@{digest}"))]
        if not found:
            loaded = ", ".join(name for name in names if name.startswith(f"{adapter}@")) or "none"
            raise NotFound(
                f"the revision {revision} is not loaded; loaded are {loaded}",
                near(revision, names) or "what is loaded: the one before, the one served and the one that comes",
            )
        wanted += found[:1]
    return [each for each in dict.fromkeys(wanted) if each]


def first_that_serves(engines: Sequence[Engine], wanted: Callable[[list[Body]], list[str]]) -> tuple[Engine, list[str]]:
    """Return the first engine that has all that is wanted, and the names of that.

    Args:
        wanted: returns the names of an engine's models that are asked, or raises NotFound.

    Raises:
        NotFound: none has it.
        Unreachable: none answers.
    """
    refused: NotFound | None = None
    silent: Unreachable | None = None
    for each in engines:
        try:
            return each, wanted(each.models())
        except NotFound as problem:  # another pod may have it: a canary has what the others do not have yet
            refused = refused or problem
        except Unreachable as problem:  # another may answer: this one may be about to end
            if silent is not None:  # and who waited for two waits for no third
                raise silent from problem
            silent = problem
    found = refused or silent
    assert found is not None, "there is an engine, and it was asked"
    raise found


def all_of(models: list[Body], names: Sequence[str]) -> list[str]:
    """Return names, all of which an engine serves.

    Raises:
        NotFound: it does not serve one.
    """
    served = [text(each.get("id")) for each in models]
    for name in names:
        if name not in served:
            raise NotFound(f"no pod serves all of {', '.join(names)}", "choose fewer, or load the page again")
    return list(names)


def engines_of(server: Server, rollout: CustomObject, port: int | None) -> list[Engine]:
    """Return the engines of the pods that a rollout serves in and that are ready, in the order of their names.

    Raises:
        NotFound: there is none.
    """
    selector = selector_of(mapping(mapping(rollout.spec.get("serving")).get("selector")))
    pods = server.items(PODS.path(rollout.namespace), labelSelector=selector)
    ready = sorted((pod for pod in pods if _ready(pod)), key=lambda pod: text(mapping(pod.get("metadata")).get("name")))
    if not ready:
        raise NotFound(
            f"no pod with {selector} is ready in {rollout.namespace} ({len(pods)} are there)",
            f"kubectl get pods -n {rollout.namespace} -l {selector}",
        )
    return [_engine(server, rollout.namespace, pod, port) for pod in ready]


def _engine(server: Server, namespace: str, pod: Body, port: int | None) -> Engine:
    name = text(mapping(pod.get("metadata")).get("name"))
    path = PODS.path(namespace, f"{name}:{port or _port(pod)}", "proxy")
    return Engine(f"pod {name}", server, path)


def _port(pod: Body) -> int:
    """Return the port of the engine's container: that named http, else the first, else vLLM's own."""
    containers = [mapping(each) for each in sequence(mapping(pod.get("spec")).get("containers"))]
    ports = [mapping(port) for each in containers if each.get("name") != AGENT for port in sequence(each.get("ports"))]
    numbers = sorted(ports, key=lambda each: each.get("name") != PORT_NAME)
    found = numbers[0].get("containerPort") if numbers else None
    return found if isinstance(found, int) else ENGINE_PORT


def selector_of(told: Mapping[str, Any]) -> str:
    """Return a label selector as a query has it."""
    parts = [f"{name}={value}" for name, value in sorted(mapping(told.get("matchLabels")).items())]
    for each in map(mapping, sequence(told.get("matchExpressions"))):
        key, values = text(each.get("key")), ",".join(map(str, sequence(each.get("values"))))
        match each.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts)


def _ready(pod: Body) -> bool:
    conditions = [mapping(each) for each in sequence(mapping(pod.get("status")).get("conditions"))]
    going = mapping(pod.get("metadata")).get("deletionTimestamp")
    return not going and any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def adapter_of(about: CustomObject) -> str:
    return text(about.spec.get("adapterName")) or about.name
