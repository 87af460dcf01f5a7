"""What a beginning needs written: the objects of a file, and a Secret with the keys of the object storage."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .checking import check, read
from .errors import Conflict, Invalid, NotFound
from .kinds import kinds
from .objects import mapping
from .server import Body, Resource, Server

SECRETS = Resource("", "v1", "secrets")
NEEDED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
KEYS = (*NEEDED, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION")
"""Variables that every S3 tool reads, and keys of a Secret that a FineTuneJob names."""


@dataclass(frozen=True)
class Applied:
    """What became of one object: created, changed, or unchanged."""

    name: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}"


def apply(server: Server, namespace: str, file: Path, *, dry_run: bool = False) -> tuple[Applied, ...]:
    """Write the objects of a file, in its order, by server-side apply; nothing if any of them has a fault.

    Raises:
        Invalid: there are faults; its causes are line and sentence of each.
        Conflict: somebody else owns a field that the file says otherwise.
    """
    faults = [each for each in check(server, namespace, file) if each.fault]
    if faults:
        causes = tuple((str(each.line), each.sentence) for each in faults)
        many = "faults" if len(faults) > 1 else "fault"
        raise Invalid(f"{len(faults)} {many} in {file}, so nothing was written: {faults[0]}", causes=causes)
    written = []
    for document in read(file)[0]:
        kind = next(kind for kind in kinds() if kind.name == document.kind)
        where = document.namespace or namespace
        path = Resource(kind.group, kind.version, kind.plural).path(where, document.name)
        outcome = _write(server, path, document.body, dry_run=dry_run)
        written.append(Applied(f"{kind.singular}/{document.name}", outcome))
    return tuple(written)


def write_keys(server: Server, namespace: str, name: str, environment: Mapping[str, str]) -> Applied:
    """Write a Secret with the object storage's keys that an environment has.

    Raises:
        Invalid: the environment has none.
    """
    missing = [each for each in NEEDED if not environment.get(each)]
    if missing:
        raise Invalid(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not set",
            "put the keys that the pods shall use into the environment",
        )
    data = {each: base64.b64encode(environment[each].encode()).decode() for each in KEYS if environment.get(each)}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}
    outcome = _write(server, SECRETS.path(namespace, name), body)
    return Applied(f"secret/{name}", f"{outcome} ({', '.join(data)})")


def _write(server: Server, path: str, body: Body, *, dry_run: bool = False) -> str:
    """Apply an object, and return what became of it."""
    try:
        before = _said(server.get(path))
    except NotFound:
        before = None
    try:
        after = _said(server.apply(path, body, dry_run=dry_run))
    except Conflict as problem:
        raise Conflict(problem.sentence, "who wrote these fields keeps them: change them there") from problem
    return "created" if before is None else "unchanged" if before == after else "changed"


def _said(body: Body) -> Body:
    """Return what people say in an object, without what the cluster notes of it."""
    metadata = mapping(body.get("metadata"))
    said = {name: metadata.get(name) or {} for name in ("labels", "annotations")}
    return {**{name: part for name, part in body.items() if name not in ("metadata", "status")}, **said}
