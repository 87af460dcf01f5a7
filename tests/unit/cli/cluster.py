"""An API server that answers from a dictionary, over plain HTTP; and objects as a cluster has them."""

from __future__ import annotations

import copy
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

Body = dict[str, Any]
GROUP = "/apis/trimtab.dev/v1alpha1"
PLURALS = ("finetunejobs", "finetunesweeps", "evaluations", "adapterrollouts", "reviews", "adapterexports")
NAMESPACE = "team-a"


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class FakeCluster:
    """Answers by path: a body, or a status code with one, or raw bytes. Lists are made of objects that were put in."""

    address: str = ""
    objects: dict[str, Body] = field(default_factory=dict)
    answers: dict[str, tuple[int, Body | bytes]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    user: str = "alice"
    groups: tuple[str, ...] = ("leads", "system:authenticated")
    now: str = "2026-11-01T12:00:00Z"
    """Of what is created: a clock that stands still."""
    on_patch: Callable[[Body, Request], tuple[int, Body]] | None = None
    otherwise: Callable[[Request], tuple[int, Body | bytes] | None] | None = None
    """Answers first, what it has an answer for."""

    def put_pod(self, name: str, labels: Body, *, ready: bool = True, **spec: Any) -> str:
        """Put in a pod, and return the path of its proxy."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        self.objects[path] = {
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {"containers": [{"name": "vllm", "ports": [{"name": "http", "containerPort": 8000}]}], **spec},
            "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
        }
        return f"{path}:8000/proxy"

    def put(self, body: Body) -> Body:
        plural = f"{body['kind'].lower()}s"
        metadata = {"namespace": NAMESPACE, "uid": f"uid-{body['metadata']['name']}", **body["metadata"]}
        metadata.setdefault("creationTimestamp", ago(hours=3))
        whole = copy.deepcopy({"apiVersion": "trimtab.dev/v1alpha1", **body, "metadata": metadata})
        self.objects[f"{GROUP}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"] = whole
        return whole

    def refuse(self, path: str, code: int, message: str, **status: Any) -> None:
        self.answers[path] = (code, {"kind": "Status", "message": message, "code": code, **status})

    def answer(self, request: Request) -> tuple[int, Body | bytes]:
        self.asked.append(request)
        if self.otherwise is not None and (told := self.otherwise(request)) is not None:
            return told
        if request.path in self.answers:
            return self.answers[request.path]
        if request.method == "POST":
            return self._posted(request)
        known = self.objects.get(request.path)
        if request.method == "PATCH" and self.on_patch is not None:
            return self.on_patch(known or {}, request)
        if request.method == "PATCH" and known is not None:
            return 200, merged(known, request.body)
        if known is not None:
            return 200, known
        *_, plural = request.path.split("/")
        if plural in (*PLURALS, "pods"):
            inside = [body for path, body in sorted(self.objects.items()) if self._listed(request.path, path, plural)]
            return 200, {"metadata": {"resourceVersion": "7"}, "items": inside}
        return 404, {"message": f'"{plural}" not found', "reason": "NotFound", "details": {"name": plural}}

    def _posted(self, request: Request) -> tuple[int, Body]:
        """Create an object, or tell who asks."""
        body: Body = copy.deepcopy(request.body)
        if body["kind"] == "SelfSubjectReview":
            return 201, {**body, "status": {"userInfo": {"username": self.user, "groups": list(self.groups)}}}
        begin = body["metadata"].pop("generateName")
        made = sum(path.rpartition("/")[2].startswith(begin) for path in self.objects)
        body["metadata"]["name"] = f"{begin}x7k2p{made or ''}"
        body["metadata"]["creationTimestamp"] = self.now
        return 201, body if "dryRun" in request.query else self.put(body)

    @staticmethod
    def _listed(asked: str, path: str, plural: str) -> bool:
        return path.startswith(f"{asked}/") or (asked == f"{GROUP}/{plural}" and f"/{plural}/" in path)


def merged(old: Body, patch: Body) -> Body:
    """Return an object with a merge patch."""
    both = dict(old)
    for name, value in patch.items():
        both[name] = merged(old.get(name, {}), value) if isinstance(value, dict) else value
    return both


def serve(cluster: FakeCluster, tls: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    """Start it on a free port; `shutdown` ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            parts = urlsplit(self.path)  # of a proxy the whole address
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            told = Request(self.command, parts.path, dict(parse_qsl(parts.query)), body, dict(self.headers))
            code, answer = cluster.answer(told)
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_POST = _respond

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.address = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def kubeconfig(path: Path, address: str, **changes: Any) -> Path:
    """Write a kubeconfig with one context, `test`."""
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        "current-context": "test",
        **changes,
    }
    path.write_text(yaml.safe_dump(body))
    return path


def ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(type_: str, status: str, reason: str, message: str = "") -> Body:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": ago(minutes=1)}


def finetunejob(name: str, **status: Any) -> Body:
    spec = {
        "baseModel": {"uri": "s3://models/base"},
        "dataset": {"training": {"uri": "s3://rows/"}},
        "output": {"uri": "s3://out"},
        "lora": {"rank": 16},
        "training": {"learningRate": 0.0002, "packing": True},
    }
    return {"kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec, "status": status}


STEPS = list(range(10, 101, 10))
LOSS = [3.0, 2.4, 2.0, 1.7, 1.5, 1.35, 1.25, 1.2, 1.16, 1.15]
TRAINING = finetunejob(
    "demo",
    conditions=[condition("Succeeded", "Unknown", "Training", "attempt 2 trains")],
    summary={"progress": "50%", "loss": "1.150", "step": "100/200"},
    progress={
        "step": 100,
        "totalSteps": 200,
        "percent": 50,
        "loss": 1.15,
        "tokensPerSecond": 5200.0,
        "etaSeconds": 4800,
    },
    curve={"steps": STEPS, "loss": LOSS, "validationSteps": [50, 100], "validationLoss": [1.7, 1.4]},
    attempts=[
        {"number": 0, "stage": "prepare", "jobName": "demo-prepare-0", "reason": "Completed", "activeSeconds": 123},
        {
            "number": 1,
            "stage": "train",
            "jobName": "demo-train-1",
            "reason": "NodeLost",
            "message": "node gpu-3 does not answer",
            "chargedTo": "disruptions",
            "activeSeconds": 600,
            "startStep": 0,
            "endStep": 50,
        },
        {"number": 2, "stage": "train", "jobName": "demo-train-2", "startTime": ago(minutes=5)},
    ],
    dataset={"rows": 1200, "tokens": 345678, "validationRows": 60, "testRows": 61, "dropped": 3},
    acceleratorSeconds=900,
    lostAcceleratorSeconds=300,
)
FAILED = finetunejob(
    "broken",
    conditions=[condition("Succeeded", "False", "DatasetMalformed", "train.jsonl line 7 is no JSON")],
    attempts=[
        {
            "number": 0,
            "stage": "prepare",
            "jobName": "broken-prepare-0",
            "reason": "DatasetMalformed",
            "message": "train.jsonl line 7 is no JSON",
        }
    ],
)
EVALUATED: Body = {
    "kind": "Evaluation",
    "metadata": {"name": "demo-gate"},
    "spec": {"target": {"fineTuneJobName": "demo"}},
    "status": {
        "conditions": [
            condition("Succeeded", "True", "Completed", "all tasks were asked"),
            condition("Passed", "False", "Regressed", "heldout/perplexity is worse by 0.2"),
        ],
        "summary": {"metric": "heldout/perplexity", "value": "12.2", "change": "+0.2"},
        "results": [
            {
                "task": "heldout",
                "metric": "perplexity",
                "value": 12.2,
                "low": 11.9,
                "high": 12.5,
                "baseline": 12.0,
                "passed": False,
            }
        ],
        "reportURI": "s3://out/report.html",
    },
}
SERVED: Body = {
    "kind": "AdapterRollout",
    "metadata": {"name": "served"},
    "spec": {"adapterName": "served", "paused": False},
    "status": {
        "conditions": [condition("Ready", "True", "Serving", "every pod answers with it")],
        "summary": {"adapter": "57304f9f7684", "pods": "2/2"},
        "served": {"digest": "sha256:57304f9f7684", "uri": "s3://out/adapters/57304f9f7684"},
        "pods": {"desired": 2, "ready": 2},
    },
}
WAITS: Body = {
    "kind": "AdapterRollout",
    "metadata": {"name": "guide"},
    "spec": {
        "adapterName": "guide",
        "strategy": {"approvals": {"required": 2, "from": {"groups": ["leads"]}}},
    },
    "status": {
        "conditions": [
            condition(
                "Ready",
                "False",
                "AwaitingApproval",
                "guide@57304f9f has 1 of 2 approvals; asked are leads; approved by bob; its canary was good",
            )
        ],
        "summary": {"adapter": "0b1c2d3e4f50", "pods": "0/2"},
        "served": {"digest": f"sha256:{'0b1c2d3e4f50' + '0' * 52}", "uri": "s3://out/adapters/0b1c2d3e4f50"},
        "step": {"digest": f"sha256:{'57304f9f7684' + '0' * 52}", "phase": "Canary"},
        "approval": {
            "digest": f"sha256:{'57304f9f7684' + '0' * 52}",
            "required": 2,
            "approvedBy": ["bob"],
            "sinceTime": ago(days=2),
        },
        "pods": {"desired": 2, "ready": 0},
    },
}
"""A rollout that waits for one more approval."""
HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]x[/] \u202egnp.exe\r\nFORGED  Completed\x9b31m\u2028"
