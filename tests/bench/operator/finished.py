"""Finished FineTuneJobs by the thousand: copies of one that has run, with its Jobs and pods, written into etcd.

Through the API server that would take ten writes each and half an hour. What is there afterwards is the same: the API
server takes its objects from etcd, and reads JSON as well as what it writes itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from trimtab_local import Cluster
from trimtab_operator.domain.views import JOB_LABEL
from trimtab_operator.runtime.kube import JOBS, PODS, Body, Resource

from tests.bench.operator.executor import RawClient
from tests.resources import FINETUNEJOBS

ETCD = ("127.0.0.1", 2379)
AT_ONCE = 100
"""Objects of a transaction: etcd takes 128 operations and 1.5 MB."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
ROOT = Path(__file__).parents[3]


def key_of(resource: Resource, body: Body) -> str:
    """Return under what the API server keeps an object."""
    group = f"{resource.group}/" if resource.group == FINETUNEJOBS.group else ""
    return f"/registry/{group}{resource.plural}/{body['metadata']['namespace']}/{body['metadata']['name']}"


async def family_of(client: RawClient, namespace: str, name: str) -> list[tuple[Resource, Body]]:
    """Return a FineTuneJob with its Jobs and their pods."""
    found = [(FINETUNEJOBS, await client.send("GET", FINETUNEJOBS.path(namespace, name)))]
    for resource, kind in ((JOBS, "Job"), (PODS, "Pod")):
        query = f"?labelSelector={JOB_LABEL}%3D{name}"
        listed = await client.send("GET", resource.path(namespace) + query)
        common = {"apiVersion": resource.api_version, "kind": kind}
        found += [(resource, {**common, **item}) for item in listed["items"]]
    return found


def copies(family: Sequence[tuple[Resource, Body]], count: int) -> Iterator[tuple[str, str]]:
    """Yield keys and texts of so many copies of a family, each with names, uids and an adapter of its own."""
    for _, body in family:
        body["metadata"].pop("resourceVersion")
    texts = [(key_of(resource, body), json.dumps(body)) for resource, body in family]
    name, uids = family[0][1]["metadata"]["name"], [body["metadata"]["uid"] for _, body in family]
    for number in range(count):
        copy = f"{name}-{number:05}"
        digest = f"sha256:{hashlib.sha256(copy.encode()).hexdigest()}"
        new = {uid: str(uuid.uuid5(uuid.UUID(uid), copy)) for uid in uids}
        for at, (key, text) in enumerate(texts):
            made = text.replace(name, copy)
            for uid, other in new.items():
                made = made.replace(uid, other)
            yield key.replace(name, copy), DIGEST.sub(digest, made) if at == 0 else made


def transactions(objects: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """Yield the bodies of requests to etcd's JSON gateway."""
    operations = []
    for key, text in objects:
        key64, value64 = (base64.b64encode(each.encode()).decode() for each in (key, text))
        operations.append({"requestPut": {"key": key64, "value": value64}})
        if len(operations) == AT_ONCE:
            yield json.dumps({"success": operations}).encode()
            operations = []
    if operations:
        yield json.dumps({"success": operations}).encode()


async def write(cluster: Cluster, client: RawClient, namespace: str, name: str, count: int) -> None:
    """Have so many finished FineTuneJobs like one that is there."""
    family = await family_of(client, namespace, name)
    assert [resource.plural for resource, _ in family] == ["finetunejobs", "jobs", "jobs", "pods", "pods"]
    path = f"PYTHONPATH={ROOT}:{ROOT / 'deploy/local'}"
    command = cluster.enter("env", path, sys.executable, "-m", "tests.bench.operator.finished")
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    for body in transactions(copies(family, count)):
        process.stdin.write(body + b"\n")
        await process.stdin.drain()
    process.stdin.close()
    if await process.wait():
        raise RuntimeError("etcd did not take the copies")


def main() -> None:
    """Send each line of the input to etcd; runs beside it, for it listens to nobody else."""
    connection = http.client.HTTPConnection(*ETCD, timeout=30)
    for line in sys.stdin.buffer:
        connection.request("POST", "/v3/kv/txn", line.strip())
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            sys.exit(f"{answer.status}: {text[:500]!r}")


if __name__ == "__main__":
    main()
