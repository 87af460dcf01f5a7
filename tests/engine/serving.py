"""Real engines behind a Service, clients that ask them all the time, and what may be done to their pods meanwhile.

Every answer is judged: by the revision that the guard names, and by the word that this revision's adapter was trained
to say. Clients make a connection for each request, so that kube-proxy chooses a pod each time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from deploy.demo.api import Body
from deploy.demo.mirror import Quiet
from tests.e2e.tenants import Tenant, condition, processes
from tests.engine.markers import BASE_MODEL, QUESTION, Marker

PORT = 8000
CLIENTS = 3
PAUSE = 0.2
LONGEST_ANSWER = 120.0
ANSWER_SECONDS = 60
RETRY_AFTER = (2.0, 8.0)
"""Seconds before the first and the second retry of a client that has them."""
ENGINE_SECONDS = 900
"""How long nothing may move while an engine starts: three processes import torch, one after another, on processors
that others use too."""
EXAMPLES = 5


def clients_of_this_machine(tenant: Tenant) -> Body:
    """Return what lets the clients here ask the engines: deploy/serving lets in the pods of their namespace."""
    cluster = tenant.installation.cluster
    assert cluster is not None, "another cluster's pods are not to be reached from here"
    here = {"ipBlock": {"cidr": f"{cluster.instance.host_address}/32"}}
    ingress = [{"from": [here], "ports": [{"port": PORT, "protocol": "TCP"}]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "clients-of-this-machine", "namespace": tenant.namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress},
    }


@dataclass
class Verdicts:
    """What came of all requests. `failed`: the first try; `lost`: the retries too."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    lost: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)


@dataclass(frozen=True)
class Answer:
    """What a client got; `revision` is the guard's word, `text` the model's."""

    status: int
    revision: str
    text: str


def ask(host: str, model: str) -> Answer:
    """Ask a model the markers' question.

    Raises:
        OSError, http.client.HTTPException: no answer came.
    """
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4, "temperature": 0}
    connection = http.client.HTTPConnection(host, PORT, timeout=ANSWER_SECONDS)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            return Answer(response.status, "", content.decode(errors="replace")[:200])
        text: str = json.loads(content)["choices"][0]["message"]["content"]
        return Answer(200, response.headers.get("X-Trimtab-Revision", BASE_MODEL), text)
    finally:
        connection.close()


class Load:
    """Clients that ask one model after another's answer, until they are stopped."""

    def __init__(self, host: str, alias: str, *markers: Marker) -> None:
        self._host = host
        self._words = {marker.name(alias): marker.word for marker in markers}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._model = BASE_MODEL
        self._meant: list[tuple[float, frozenset[str]]] = [(0.0, frozenset({BASE_MODEL}))]
        self._verdicts = Verdicts()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS)

    def ask_for(self, model: str) -> None:
        """Let requests from now on name another model."""
        self._model = model

    def meant(self, *revisions: str) -> None:
        """Say which revisions may answer a request that begins from now on, whatever model it names."""
        with self._lock:
            self._meant.append((time.monotonic(), frozenset(revisions)))

    def wait(self, number: int) -> None:
        """Wait until there are so many more answers, or for a while."""
        deadline, enough = time.monotonic() + LONGEST_ANSWER, self._verdicts.answers.total() + number
        while self._verdicts.answers.total() < enough and time.monotonic() < deadline:
            time.sleep(PAUSE)

    def take(self) -> Verdicts:
        """Return the verdicts since the last time."""
        with self._lock:
            taken, self._verdicts = self._verdicts, Verdicts()
        return taken

    def _run(self) -> None:
        while not self._stopped.wait(PAUSE):
            self._request(self._model)

    def _request(self, model: str) -> None:
        for retry in (0.0, *RETRY_AFTER):
            if retry and self._stopped.wait(retry):
                return
            began = time.monotonic()
            try:
                answer = ask(self._host, model)
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                answer = Answer(0, "", f"{type(error).__name__}: {error}")
            if answer.status == 200:
                return self._judge(answer, began, time.monotonic())
            with self._lock:
                self._verdicts.failed += retry == 0.0
                self._verdicts.lost += retry == RETRY_AFTER[-1]
                self._verdicts.note(f"{model}: {answer.status} {answer.text}")

    def _judge(self, answer: Answer, began: float, ended: float) -> None:
        with self._lock:
            self._verdicts.answers[answer.revision] += 1
            self._verdicts.seconds.append(ended - began)
            later = [names for at, names in self._meant if began <= at <= ended]
            first = next(names for at, names in reversed(self._meant) if at <= began)
            word = self._words.get(answer.revision)
            said = {each for each in self._words.values() if each in answer.text}
            if answer.revision not in first.union(*later) or said != ({word} if word else set()):
                self._verdicts.wrong += 1
                self._verdicts.note(f"{answer.revision} answered {answer.text!r}; {sorted(first.union(*later))} may")


@dataclass
class Served:
    """An AdapterRollout on the engines of a namespace, under load."""

    tenant: Tenant
    rollout: str
    load: Load

    def spec(self, marker: Marker) -> Body:
        """Return the rollout with an adapter as its source; waits are short, and there are few requests to compare."""
        return {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "AdapterRollout",
            "metadata": {"name": self.rollout, "namespace": self.tenant.namespace},
            "spec": {
                "adapterName": self.rollout,
                "source": {"artifact": {"uri": marker.uri, "digest": marker.digest}},
                "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
                # two processors for everything: times say nothing about an adapter here
                "strategy": {"canarySeconds": 3, "drainSeconds": 2, "analysis": {"maximumLatencyRatio": 100}},
                "probe": {"kind": "Chat", "prompt": QUESTION, "maxTokens": 4},
            },
        }

    def serve(self, marker: Marker, pods: int, *, instead_of: Marker | None) -> None:
        """Name an adapter as the source, and wait until all pods answer with it alone."""
        new = marker.name(self.rollout)
        self.load.meant(new, instead_of.name(self.rollout) if instead_of else BASE_MODEL)
        self.tenant.apply(self.spec(marker))
        self.wait_serving(marker, pods)
        if instead_of is None:
            self.load.ask_for(self.rollout)
        else:
            self.load.meant(new)

    def wait_serving(self, marker: Marker, pods: int) -> None:
        def serving(body: Body) -> bool:
            status = body.get("status", {})
            ready = condition(body, "Ready")
            return (
                ready.get("status") == "True"
                and status["observedGeneration"] == body["metadata"]["generation"]
                and status["served"]["digest"] == marker.digest
                and status["pods"] == {"desired": pods, "updated": pods, "ready": pods}
            )

        self.tenant.wait(self.rollout, f"{marker.word} on {pods} pods", serving, ENGINE_SECONDS)

    def scale(self, pods: int) -> None:
        self.tenant.kubectl("scale", "deployment/vllm", f"--replicas={pods}")

    def pods(self) -> list[Body]:
        """Return the engines' pods that are not being deleted, oldest first."""
        pods = self.tenant.mirror.objects("Pod", {"app": "vllm"})
        found = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def wait_pods(self, number: int, what: Callable[[list[Body]], bool] = bool) -> list[Body]:
        """Wait until so many pods are ready, and what else is asked of them is true."""

        def look() -> list[Body] | None:
            pods = self.pods()
            ready = all(condition(pod, "Ready").get("status") == "True" for pod in pods)
            return pods if len(pods) == number and ready and what(pods) else None

        try:
            return self.tenant.mirror.wait(f"{number} ready pods", look, ENGINE_SECONDS)
        except Quiet as quietness:
            self.fail(str(quietness))

    def fail(self, why: str) -> NoReturn:
        lines = [why, self.tenant.kubectl("get", "pods", "-o", "wide")]
        for pod in self.pods():
            name = pod["metadata"]["name"]
            for container in ("trimtab-agent", "vllm"):
                line = ["-n", self.tenant.namespace, "logs", name, "-c", container, "--tail=30"]
                lines += [f"--- {name} {container}", self.tenant.installation.kubectl(*line, check=False)]
        pytest.fail("\n".join(lines))

    def kill(self, pod: Body, container: str) -> None:
        """SIGKILL all processes of a pod's container, as the kernel does when memory is short."""
        status = container_status(pod, container)
        found = processes(status["containerID"].rpartition("/")[2])
        assert found, f"the processes of {container} are not to be seen from here"
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended with its parent

    @contextmanager
    def step(self, name: str, *, may_fail: bool = False) -> Iterator[None]:
        """Print how long a step took and what came of the requests meanwhile; none is answered wrongly, none fails."""
        self.load.take()
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self.load.wait(2 * CLIENTS)  # a move can be over before anybody was answered; what comes after it counts
        verdicts = self.load.take()
        slow = max(verdicts.seconds, default=0.0)
        middle = statistics.median(verdicts.seconds) if verdicts.seconds else 0.0
        print(
            f"{name}: {took:.1f} s, {verdicts.answers.total()} answers {dict(verdicts.answers)}, "
            f"{verdicts.failed} failed, {verdicts.lost} after two retries, {verdicts.wrong} wrong, "
            f"median {middle:.2f} s, slowest {slow:.2f} s",
            flush=True,
        )
        assert verdicts.answers.total() >= 2 * CLIENTS, verdicts.examples
        assert (verdicts.wrong, verdicts.lost) == (0, 0), verdicts.examples
        assert may_fail or verdicts.failed == 0, verdicts.examples


def container_status(pod: Body, name: str) -> Body:
    """Return the status of a container, a sidecar's too."""
    status = pod["status"]
    every = (*status.get("containerStatuses", []), *status.get("initContainerStatuses", []))
    found: Body = next(each for each in every if each["name"] == name)
    return found
