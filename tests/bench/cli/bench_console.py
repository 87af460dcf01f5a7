"""Measure the console under open pages: `make bench-console`. The last line of output is JSON.

A real API server with many objects; the console as a process of its own; pages that are open are connections to its
stream of changes, each of which asks for its page again at every change, as a browser does. What the API server counts
as watches is read from its own metrics; those that the control plane has of every kind are taken off.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import yaml
from trimtab.kinds import kinds

from tests.bench.control_plane import control_plane
from tests.component.api_server import ApiServer
from tests.component.patience import Patience
from tests.console.conftest import GROUP, USERS, Team, console, user
from tests.console.objects import completed, failed, team, training

INSTANCE = 5
WATCHES = re.compile(
    r'^apiserver_longrunning_requests\{[^}]*group="trimtab\.dev"[^}]*verb="WATCH"[^}]*\} (\d+)', re.MULTILINE
)


class Page(threading.Thread):
    """An open page: reads events, and after each the page."""

    def __init__(self, home: str, path: str, cookie: str) -> None:
        super().__init__(daemon=True)
        self._place, self._path, self._cookie = urlsplit(home).netloc, path, cookie
        self.times: list[float] = []
        self.open = threading.Event()
        self._stream: http.client.HTTPConnection | None = None

    def run(self) -> None:
        namespace = "/".join(self._path.split("/")[:3])
        self._stream = http.client.HTTPConnection(self._place, timeout=120)
        self._stream.request("GET", f"{namespace}/changes", headers={"Cookie": self._cookie})
        response = self._stream.getresponse()
        assert response.status == 200, response.status
        self.open.set()
        try:
            for line in response:
                if line.startswith(b"event: change"):
                    self._load()
        except (OSError, ValueError, AttributeError):
            return  # it was closed

    def _load(self) -> None:
        began = time.perf_counter()
        asked = http.client.HTTPConnection(self._place, timeout=120)
        asked.request("GET", self._path, headers={"Cookie": self._cookie, "HX-Request": "true", "HX-Target": "live"})
        assert asked.getresponse().read()
        asked.close()
        self.times.append((time.perf_counter() - began) * 1000)

    def close(self) -> None:
        if self._stream is not None and self._stream.sock is not None:
            self._stream.sock.shutdown(2)


def watches(server: ApiServer) -> int:
    """Return how many watches of our kinds the API server serves."""
    return sum(int(count) for count in WATCHES.findall(server.request("GET", "/metrics").message))


def of_the_control_plane(server: ApiServer) -> int:
    """Return how many watches of our kinds the control plane has: the garbage collector one of each, once it hears."""
    patience = Patience("the garbage collector's watches")
    while (found := watches(server)) < len(kinds()):
        patience.spend(found)
        time.sleep(0.5)
    return found


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def until(what: str, wanted: int, look: object) -> float:
    """Wait until a number is as wanted; return the seconds that it took."""
    assert callable(look)
    began = time.monotonic()
    while look() != wanted:
        assert time.monotonic() - began < 120, f"{what}: {look()} and not {wanted}"
        time.sleep(0.2)
    return time.monotonic() - began


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--changes", type=int, default=20, help="a second apart")
    parser.add_argument("--starts", type=int, default=7, help="consoles whose first page is asked for")
    options = parser.parse_args()
    with control_plane(INSTANCE) as (cluster, server), tempfile.TemporaryDirectory() as folder:
        made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "console-"}})
        place = Team(server, made.body["metadata"]["name"], "default", {})
        for body in team():
            place.make(body)
        for number in range(options.objects):
            place.make((completed, failed)[number % 2](f"many-{number:04}"))
        config = user(place, yaml.safe_load(cluster.kubeconfig.read_text()), "jane", USERS["jane"])
        path = Path(folder) / "jane"
        path.write_text(yaml.safe_dump(config))
        first = first_pages(options.starts, place, path)
        with console(path) as (address, process):
            print(json.dumps(first | measured(options, place, address, process.pid)))
        server.delete(f"/api/v1/namespaces/{place.namespace}")


def first_pages(starts: int, place: Team, config: Path) -> dict[str, float]:
    """Return what the first page of a console that has just started takes, beside the API server's own whole list.

    Each start has both, one after the other, so that what else the machine does slows both; the time on a processor is
    the console's alone.
    """
    found: list[tuple[float, float, float, float]] = []
    for _ in range(starts):
        with console(config) as (address, process):
            time.sleep(3)  # a person takes longer to open the address
            began, busy = time.perf_counter(), processor(process.pid)
            home, cookie = signed_in(address)
            page = f"/ns/{place.namespace}"
            told = load(home, page, cookie)
            shown, busy = time.perf_counter() - began, processor(process.pid) - busy
            while b"Still reading" in told:
                told = load(home, page, cookie)
            found.append((shown, time.perf_counter() - began, whole_list(place), busy))
    names = ("first_page_ms", "first_page_whole_ms", "list_ms", "first_page_processor_ms")
    medians = {
        name: round(statistics.median(times) * 1000)
        for name, times in zip(names, zip(*found, strict=True), strict=True)
    }
    return {**medians, "first_page_by_list": round(statistics.median(each[0] / each[2] for each in found), 2)}


def processor(pid: int) -> float:
    """Return the seconds that a process was on a processor."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


def whole_list(place: Team) -> float:
    """Return the seconds in which the API server gives all runs, page by page."""
    began, more = time.perf_counter(), {"limit": "500"}
    while True:
        path = f"{GROUP}/namespaces/{place.namespace}/finetunejobs"
        listed = place.server.get(f"{path}?{urlencode(more)}")
        if not listed.body["metadata"].get("continue"):
            return time.perf_counter() - began
        more["continue"] = listed.body["metadata"]["continue"]


def load(home: str, path: str, cookie: str) -> bytes:
    """Return a page."""
    asked = http.client.HTTPConnection(urlsplit(home).netloc, timeout=120)
    asked.request("GET", path, headers={"Cookie": cookie})
    told = asked.getresponse().read()
    asked.close()
    assert told
    return told


def signed_in(address: str) -> tuple[str, str]:
    """Open the address that a console printed; return where it is, and the cookie of the session."""
    home, _, login = address.partition("/login")
    asked = http.client.HTTPConnection(urlsplit(home).netloc)
    asked.request("GET", f"/login{login}")
    answer = asked.getresponse()
    answer.read()
    return home, str(answer.getheader("Set-Cookie")).partition(";")[0]


def measured(options: argparse.Namespace, place: Team, address: str, pid: int) -> dict[str, float]:
    """Open the pages, change an object, close them; return what it took."""
    home, cookie = signed_in(address)
    at_rest, others = resident(pid), of_the_control_plane(place.server)
    namespace = f"/ns/{place.namespace}"
    addresses = [namespace, f"{namespace}/finetunejobs", f"{namespace}/finetunejobs/field-guide-v4"]
    pages = [Page(home, addresses[number % len(addresses)], cookie) for number in range(options.pages)]
    began = time.perf_counter()
    for page in pages:
        page.start()
    for page in pages:
        assert page.open.wait(60)
    print(f"{len(pages)} pages open after {time.perf_counter() - began:.1f} s")
    peak = 0.0
    for number in range(options.changes):
        place.status("finetunejobs", "field-guide-v4", training(step=100 + number % 50)["status"])
        for _ in range(10):
            peak = max(peak, resident(pid))
            time.sleep(0.1)
    open_watches = watches(place.server) - others
    times = [milliseconds for page in pages for milliseconds in page.times]
    for page in pages:
        page.close()
    freed = until("watches after closing", others, lambda: watches(place.server))
    return {
        "load_average": round(os.getloadavg()[0], 1),
        "pages": len(pages),
        "objects": options.objects,
        "rss_at_rest_mib": round(at_rest),
        "rss_peak_mib": round(peak),
        "rss_after_mib": round(resident(pid)),
        "watches_open": open_watches,
        "watches_after": watches(place.server) - others,
        "freed_after_s": round(freed, 1),
        "loads": len(times),
        "load_median_ms": round(statistics.median(times)),
        "load_p95_ms": round(statistics.quantiles(times, n=20)[-1]),
    }


if __name__ == "__main__":
    main()
