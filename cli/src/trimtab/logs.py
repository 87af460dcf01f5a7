"""What the attempts of an object said: from their pods where those are there, else what the status tells of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import Invalid, NotFound
from .objects import Attempt, CustomObject, mapping, text
from .server import PODS, Server

JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
TRAIN = "train"
"""Stage of the attempts that leave curves."""
STORAGE = "object storage"
"""In place of a pod, of lines that come from there."""
CONTAINER = "trainer"
"""Of the pods of attempts."""
SILENT_SECONDS = 3600
"""How long a log that is followed may say nothing."""


@dataclass(frozen=True)
class LogLine:
    """A line of an attempt; `pod` is empty for what the status tells in place of a log."""

    attempt: Attempt
    pod: str
    text: str


def log_lines(
    server: Server,
    about: CustomObject,
    *,
    follow: bool,
    tail: int | None,
    most: int | None = None,
    storage: bool = False,
) -> Iterator[LogLine]:
    """Yield the lines of all attempts that the status knows, oldest first.

    Args:
        follow: go on with the pods that run, until they end.
        tail: at most so many lines of each pod.
        most: at most so many bytes of them; a line may be a whole file.
        storage: of the newest attempt that trained, and whose pod is gone, what it left in object storage.
    """
    trained = [each.number for each in about.attempts if each.stage == TRAIN]
    for attempt in about.attempts:
        selector = f"{JOB_NAME_LABEL}={attempt.job_name}"
        pods = [
            mapping(pod.get("metadata")) for pod in server.items(PODS.path(about.namespace), labelSelector=selector)
        ]
        names = sorted(text(each.get("name")) for each in pods)
        query = {"container": CONTAINER}
        query |= {"follow": "true"} if follow and not attempt.reason else {}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        query |= {"limitBytes": str(most)} if most is not None else {}
        for pod in names:
            yield from _of_a_pod(server, PODS.path(about.namespace, pod, "log"), attempt, pod, query)
        if not names:
            yield LogLine(attempt, "", _in_place_of_a_log(attempt))
        if not names and attempt.reason and attempt.number in trained[-1:]:
            yield from _of_the_bucket(about, attempt, tail) if storage else _hint(attempt)


def _of_a_pod(server: Server, path: str, attempt: Attempt, pod: str, query: dict[str, str]) -> Iterator[LogLine]:
    silent = True
    try:
        for line in server.lines(path, SILENT_SECONDS if "follow" in query else 60, **query):
            silent = False
            yield LogLine(attempt, pod, line.decode(errors="replace"))
        if silent:  # of a pod without a node the API server gives an empty log
            yield LogLine(attempt, "", f"its pod {pod} has said nothing yet")
    except Invalid as problem:  # its container has not started
        yield LogLine(attempt, "", f"no log yet: {problem.sentence}")
    except NotFound:  # it went between the list and this
        yield LogLine(attempt, "", _in_place_of_a_log(attempt))


def _of_the_bucket(about: CustomObject, attempt: Attempt, tail: int | None) -> Iterator[LogLine]:
    """Yield what was measured, all attempts together: a checkpoint has the curve of those before it too."""
    from .bucket import record_of

    record = record_of(about)
    yield LogLine(attempt, "", f"what was measured, of all attempts: {record.uri}")
    for line in record.lines if tail is None else record.lines[len(record.lines) - min(tail, len(record.lines)) :]:
        yield LogLine(attempt, STORAGE, line)


def _hint(attempt: Attempt) -> Iterator[LogLine]:
    yield LogLine(attempt, "", "--storage reads what it measured, with your own keys of the object storage")


def _in_place_of_a_log(attempt: Attempt) -> str:
    if not attempt.reason:
        return "no pod yet"
    told = f"{attempt.reason}: {attempt.message}" if attempt.message else attempt.reason
    return f"its pod is gone; the status says {told}"
