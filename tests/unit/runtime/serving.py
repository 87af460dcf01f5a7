"""Keys, serving pods and agents in memory, for tests of what the operator does with them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web
from trimtab_agent.contract import DOCUMENTS_AT_ONCE, Share
from trimtab_agent.documents import Refused, Verifier, pod_audience, read_documents, read_share
from trimtab_operator import agentkey
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.pods.signing import SigningKeys

from tests.unit.runtime.objects import NAMESPACE

LETTERS = {"a": "sha256:" + "a" * 64, "b": "sha256:" + "b" * 64}


def new_key(folder: Path, name: str) -> None:
    """Put a private key into a folder, as a mounted Secret has it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(agentkey.new_key())


def serving_pod(name: str = "vllm-1", *, version: int = 1, ip: str = "127.0.0.1", **labels: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": str(version),
            "labels": {"app": "vllm", "trimtab.dev/stage": "serve", **labels},
        },
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def rollout(
    letter: str = "a", *, version: int = 1, port: int = 8081, source: Body | None = None, **status: Any
) -> Body:
    artifact = {"uri": f"s3://adapters/guide/{letter}", "digest": LETTERS[letter]}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterRollout",
        "metadata": {
            "namespace": NAMESPACE,
            "name": "guide",
            "uid": "arl-1",
            "generation": 1,
            "creationTimestamp": "2026-01-05T11:00:00Z",
        },
        "spec": {
            "adapterName": "guide",
            "source": source or {"artifact": artifact},
            "serving": {"selector": {"matchLabels": {"app": "vllm"}}, "port": port},
            "strategy": {"canarySeconds": 0, "drainSeconds": 0},
        },
        "status": status,
    }


class FakeAgent:
    """An agent whose engine has whatever is wanted at once; it checks tokens as the real one does."""

    def __init__(self, uid: str, signing: SigningKeys) -> None:
        self.verifier = Verifier(signing, (pod_audience(uid),))
        self.keys = sorted(signing.read())
        self.shares: dict[str, Share] = {}
        self.version = 1
        self.asked = 0
        self.documents: list[Share] = []
        self.requests: list[list[str]] = []
        """Of which rollouts each request with documents was."""
        self.takes_several = True
        """Whether it is of this version: an earlier one takes one document in a request."""
        self.refuses: tuple[int, str] | None = None
        self.refused: set[str] = set()
        """Rollouts of which it refuses every document."""
        self.status = 200
        self.hangs = False
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        application = web.Application()
        application.add_routes(
            [
                web.get("/v1/rollouts", self._truth),
                web.put("/v1/rollouts", self._take_several),
                web.put("/v1/rollouts/{name}", self._take),
                web.delete("/v1/rollouts/{name}", self._take),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _truth(self, request: web.Request) -> web.Response:
        self.asked += not self.hangs
        if self.status != 200:
            return web.json_response({}, status=self.status)
        if (refused := await self._refused(request)) is not None:
            return refused
        names = [revision.name for share in self.shares.values() for revision in share.revisions]
        body = {
            "version": self.version,
            **({"documents": DOCUMENTS_AT_ONCE} if self.takes_several else {}),
            "keys": self.keys,
            "counts": None,
            "engine": {
                "answers": True,
                "error": None,
                "instance": "one",
                "harmed": None,
                "limits": {"maxLoras": 2, "maxLoraRank": 16, "maxCpuLoras": 4},
                "baseModels": ["smol"],
                "adapters": [{"name": name, "root": "/x"} for name in names],
            },
            "rollouts": [self._share(share) for share in self.shares.values()],
        }
        return web.json_response(body)

    async def _take(self, request: web.Request) -> web.Response:
        if (refused := await self._refused(request)) is not None:
            return refused
        share = read_share(await request.read())
        self.requests.append([share.rollout])
        told, refusal = self._hold(share)
        if refusal is not None:
            return web.json_response(refusal, status=(self.refuses or (409, ""))[0])
        return web.json_response({"version": self.version, **(told or {})})

    async def _take_several(self, request: web.Request) -> web.Response:
        if not self.takes_several:
            raise web.HTTPMethodNotAllowed(request.method, ["GET"])
        if (refused := await self._refused(request)) is not None:
            return refused
        shares = [read_share(document) for document in read_documents(await request.read())]
        self.requests.append([share.rollout for share in shares])
        answers = [{"share": told, "refused": refusal} for told, refusal in map(self._hold, shares)]
        return web.json_response({"answers": answers})

    def _hold(self, share: Share) -> tuple[Body | None, Body | None]:
        """Hold a share; return what is true of it then, or why it is refused."""
        self.documents.append(share)
        if self.refuses is not None or share.rollout in self.refused:
            reason = self.refuses[1] if self.refuses is not None else "DoesNotFit"
            return None, {"reason": reason, "message": "as the test wants it"}
        self.version += 1
        if share.retired:
            self.shares.pop(share.rollout, None)
        else:
            self.shares[share.rollout] = share
        return self._share(share), None

    async def _refused(self, request: web.Request) -> web.Response | None:
        while self.hangs:
            await asyncio.sleep(0.02)
        token = request.headers["Authorization"].removeprefix("Bearer ")
        try:
            self.verifier.call(token, request.method, request.path, await request.read())
        except Refused as error:
            return web.json_response({"reason": error.reason, "message": error.message}, status=error.status)
        return None

    @staticmethod
    def _share(share: Share) -> Body:
        return {
            "rollout": share.rollout,
            "uid": share.uid,
            "sequence": list(share.sequence),
            "aliases": {alias: {"to": dict(weights)} for alias, weights in share.aliases.items()},
            "revisions": [
                {
                    "name": revision.name,
                    "digest": revision.digest,
                    "uri": revision.uri,
                    "verified": True,
                    "loaded": True,
                    "probed": True,
                    "failed": None,
                }
                for revision in share.revisions
            ],
        }
