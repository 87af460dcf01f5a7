"""What the guard costs on a real vLLM: `make bench-guard`. The last line of output is JSON.

Two engines on processors in the local cluster, SmolLM2-135M-Instruct with one adapter each: the pod that the cpu
overlay of deploy/serving makes, with agent and guard, and the same pod without both. An AdapterRollout brings the
adapter to the first, which is asked by the alias, as clients do: the guard parses each request, draws the revision,
writes the request anew, counts it and names the revision in the answer. The second has the same adapter loaded under
the same name, and is asked for it by that name. Agent, operator and probes go about their work meanwhile.

Requests are completions of one token, to the pods' own addresses. First, one at a time over a connection that is kept
to each engine, in pairs whose order is drawn: from these come p50, p99 and the difference of the medians with its 95 %
interval, for which pairs are resampled. Then some clients at once ask one engine for some seconds, then the other, in
turns: from these come the requests per second. Exit code 1: the interval ends neither below 5 % nor below 2 ms.

Two processes of one program differ by themselves, for example in where their memory lies. That is part of the
difference, and no number of pairs averages it out: run it again to see how large it is.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from trimtab_local.progress import Failed

from deploy.demo.installation import Installation, say
from tests.bench.serving.bare_engine import Body, without_trimtab
from tests.bench.serving.paired import Difference, difference, percentile
from tests.e2e.conftest import installed
from tests.e2e.tenants import Tenant, new_tenant
from tests.engine.markers import QUESTION, Marker, base_model, marker_adapter, upload
from tests.engine.serving import ENGINE_SECONDS, PORT, Load, Served, clients_of_this_machine

ALIAS = "guide"
GUARDED, BARE = "vllm", "vllm-bare"
FOLDER = "/tmp/adapter"
"""In the bare engine's container: the one place where it may write."""
LARGEST_MS, LARGEST_PERCENT = 2.0, 5.0
SEED = 1
WARM_REQUESTS, WARM_SECONDS = 40, 3.0
ANSWER_SECONDS = 60
HEADERS = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Engine:
    """An engine and how it is asked.

    Attributes:
        model: what requests name.
        revision: what the guard says in answers; None where there is no guard.
    """

    name: str
    host: str
    model: str
    revision: str | None


@dataclass
class Measured:
    """Seconds of each request to one engine, and of all the time in which it was asked."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def p50_ms(self) -> float:
        return 1000 * percentile(self.latencies, 50)

    @property
    def p99_ms(self) -> float:
        return 1000 * percentile(self.latencies, 99)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds


class Client:
    """One connection to an engine, kept between requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection = http.client.HTTPConnection(engine.host, PORT, timeout=ANSWER_SECONDS)
        body = {"model": engine.model, "prompt": QUESTION, "max_tokens": 1, "temperature": 0}
        self._body = json.dumps(body).encode()

    def close(self) -> None:
        self._connection.close()

    def ask(self) -> float:
        """Return the seconds from the request to the end of the answer.

        Raises:
            Failed: the answer is not one of this engine, or ended the connection.
        """
        began = time.perf_counter()
        self._connection.request("POST", "/v1/completions", self._body, HEADERS)
        response = self._connection.getresponse()
        content = response.read()
        took = time.perf_counter() - began
        revision = response.headers.get("X-Trimtab-Revision")
        if response.status != 200 or revision != self._engine.revision or self._connection.sock is None:
            said = content.decode(errors="replace")[:300]
            kept = "not kept" if self._connection.sock is None else "kept"
            raise Failed(f"{self._engine.name}: {response.status}, revision {revision}, connection {kept}: {said}")
        return took


def in_pairs(first: Engine, second: Engine, pairs: int) -> tuple[Measured, Measured]:
    """Ask both engines in turn, in an order that is drawn for each pair."""
    dice = random.Random(SEED)
    measured = (Measured(), Measured())
    with closing(Client(first)) as one, closing(Client(second)) as two:
        sides = list(zip((one, two), measured, strict=True))
        for _ in range(pairs):
            for client, found in sides if dice.random() < 0.5 else sides[::-1]:
                found.latencies.append(client.ask())
    for found in measured:
        found.seconds = sum(found.latencies)
    return measured


def at_once(engine: Engine, clients: int, seconds: float, found: Measured) -> None:
    """Have some clients ask an engine for some seconds."""
    began = time.perf_counter()

    def asking() -> list[float]:
        latencies = []
        with closing(Client(engine)) as client:
            while time.perf_counter() - began < seconds:
                latencies.append(client.ask())
        return latencies

    with ThreadPoolExecutor(clients) as threads:
        for future in [threads.submit(asking) for _ in range(clients)]:
            found.latencies += future.result()
    found.seconds += time.perf_counter() - began


def in_turns(first: Engine, second: Engine, options: argparse.Namespace) -> tuple[Measured, Measured]:
    """Have clients ask one engine, then the other, in an order that is drawn for each turn."""
    dice = random.Random(SEED)
    measured = (Measured(), Measured())
    sides = list(zip((first, second), measured, strict=True))
    for _ in range(options.turns):
        for engine, found in sides if dice.random() < 0.5 else sides[::-1]:
            at_once(engine, options.clients, options.seconds, found)
    return measured


def started(tenant: Tenant, name: str) -> Body:
    """Wait until the one pod of a Deployment is ready; return it."""
    began = time.monotonic()
    try:
        tenant.installation.wait_available(tenant.namespace, name, ENGINE_SECONDS)
    except Failed as failure:
        line = ["-n", tenant.namespace, "logs", "-l", f"app={name}", "--all-containers", "--tail=30"]
        raise Failed(f"{failure}\n{tenant.installation.kubectl(*line, check=False)}") from failure
    (pod,) = json.loads(tenant.kubectl("get", "pods", "-l", f"app={name}", "-o", "json"))["items"]
    found: Body = pod
    say(f"{name} is ready at {found['status']['podIP']}: {time.monotonic() - began:.0f} s")
    return found


def load_adapter(tenant: Tenant, pod: Body, marker: Marker) -> None:
    """Have the engine without an agent load an adapter, under the name that it has beside one."""
    name, host = pod["metadata"]["name"], pod["status"]["podIP"]
    tenant.kubectl("cp", str(marker.folder), f"{name}:{FOLDER}", "-c", "vllm")
    body = json.dumps({"lora_name": marker.name(ALIAS), "lora_path": FOLDER})
    with closing(http.client.HTTPConnection(host, PORT, timeout=ANSWER_SECONDS)) as connection:
        connection.request("POST", "/v1/load_lora_adapter", body, HEADERS)
        response = connection.getresponse()
        said = response.read().decode(errors="replace")
    if response.status != 200:
        raise Failed(f"{name} does not load the adapter: {response.status} {said[:300]}")


@contextmanager
def engines(here: Installation) -> Iterator[tuple[Engine, Engine]]:
    """Start both engines, one after the other, each with the same adapter; remove them afterwards."""
    base = base_model()
    marker = marker_adapter("ALPHA", base)
    with here.storage() as client:
        upload(client, base, marker)
    tenant = new_tenant(here).of("AdapterRollout")
    try:
        tenant.apply(clients_of_this_machine(tenant))
        here.install_serving(tenant.namespace, replicas=1)
        guarded = started(tenant, GUARDED)["status"]["podIP"]
        deployment = here.api.get("Deployment", GUARDED, tenant.namespace)
        if deployment is None:
            raise Failed(f"the Deployment {GUARDED} is gone")
        here.api.apply(without_trimtab(deployment, BARE))
        bare = started(tenant, BARE)
        load_adapter(tenant, bare, marker)
        Served(tenant, ALIAS, Load(guarded, ALIAS, marker)).serve(marker, 1, instead_of=None)
        revision = marker.name(ALIAS)
        say(f"{ALIAS} is {revision} on both")
        yield Engine(GUARDED, guarded, ALIAS, revision), Engine(BARE, bare["status"]["podIP"], revision, None)
    finally:
        tenant.remove()


def table(title: str, guarded: Measured, bare: Measured) -> None:
    print(f"\n{title}\n                     p50        p99   requests/s   requests")
    for name, found in (("with the guard", guarded), ("without", bare)):
        times = f"{found.p50_ms:7.2f} ms {found.p99_ms:7.2f} ms"
        print(f"{name:14} {times} {found.per_second:12.2f} {len(found.latencies):10,}")
    sys.stdout.flush()


def figures(found: Difference, pairs: tuple[Measured, Measured], turns: tuple[Measured, Measured]) -> dict[str, float]:
    """Return what the last line says."""
    return {
        "p50_ms": round(pairs[0].p50_ms, 3),
        "p50_ms_bare": round(pairs[1].p50_ms, 3),
        "difference_ms": round(1000 * found.value, 3),
        "difference_low_ms": round(1000 * found.low, 3),
        "difference_high_ms": round(1000 * found.high, 3),
        "difference_percent_high": round(100 * found.share_high, 2),
        "p99_ms": round(pairs[0].p99_ms, 3),
        "p99_ms_bare": round(pairs[1].p99_ms, 3),
        "requests_per_second": round(turns[0].per_second, 2),
        "requests_per_second_bare": round(turns[1].per_second, 2),
        "pairs": len(pairs[0].latencies),
    }


def measure(guarded: Engine, bare: Engine, options: argparse.Namespace) -> bool:
    """Print all figures; return whether the guard costs no more than it may."""
    in_pairs(guarded, bare, WARM_REQUESTS)
    for engine in (guarded, bare):
        at_once(engine, options.clients, WARM_SECONDS, Measured())
    say(f"both are warm; {options.pairs} pairs")
    pairs = in_pairs(guarded, bare, options.pairs)
    found = difference(*(side.latencies for side in pairs))
    table("one client, in pairs", *pairs)
    print(
        f"difference of p50: {1000 * found.value:+.2f} ms ({1000 * found.low:+.2f} to {1000 * found.high:+.2f}), "
        f"{100 * found.share:+.2f} % ({100 * found.share_low:+.2f} to {100 * found.share_high:+.2f}); "
        f"median of the pairs' differences: {1000 * found.of_pairs:+.2f} ms",
        flush=True,
    )
    turns = in_turns(guarded, bare, options)
    table(f"{options.clients} clients, {options.turns} turns of {options.seconds:.0f} s each", *turns)
    print(json.dumps(figures(found, pairs, turns)), flush=True)
    return found.below(LARGEST_MS / 1000, LARGEST_PERCENT / 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300, help="pairs of requests, one to each engine")
    parser.add_argument("--clients", type=int, default=4, help="clients at once, for the requests per second")
    parser.add_argument("--turns", type=int, default=4, help="how often they ask each engine")
    parser.add_argument("--seconds", type=float, default=15, help="how long they ask it each time")
    options = parser.parse_args()
    if os.environ.get("KUBECONFIG"):
        sys.exit("needs the local cluster, whose pods can be reached from here by their addresses: unset KUBECONFIG")
    if os.geteuid() != 0:
        sys.exit("needs root, for a node of its own")
    with installed(engine=True, settings=()) as here, engines(here) as (guarded, bare):
        cheap = measure(guarded, bare, options)
    if not cheap:
        sys.exit(f"the interval of the difference ends above {LARGEST_PERCENT:.0f} % and above {LARGEST_MS:.0f} ms")


if __name__ == "__main__":
    main()
