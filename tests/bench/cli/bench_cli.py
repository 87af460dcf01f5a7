"""Measure how soon the command line answers: `make bench-cli`. The last line of output is JSON.

Processes are started one after the other, each kind in turn, and the median of each is told, with those of a Python
that does nothing and of kubectl beside them. The list is of an API server in this process that answers at once, so that
what is measured is the command. Other programs on the machine make every figure worse, the time on a processor
less than the others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.unit.cli.cluster import TRAINING, FakeCluster, kubeconfig, serve


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return how long a process took, and how much of it on a processor, in milliseconds."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return (time.perf_counter() - began) * 1000, processor * 1000


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="processes of each kind")
    parser.add_argument("--objects", type=int, default=50, help="FineTuneJobs that are listed")
    options = parser.parse_args()
    cluster = FakeCluster()
    server = serve(cluster)
    for number in range(options.objects):
        cluster.put({**TRAINING, "metadata": {"name": f"job-{number}"}})
    trimtab = str(Path(sys.executable).parent / "trimtab")
    commands = {
        "python_ms": [sys.executable, "-c", "pass"],
        "help_ms": [trimtab, "--help"],
        "list_ms": [trimtab, "list"],
        "list_json_ms": [trimtab, "list", "-o", "json"],
    }
    if kubectl := shutil.which("kubectl"):
        commands["kubectl_version_ms"] = [kubectl, "version", "--client"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig(Path(folder) / "kubeconfig", cluster.address))}
        for command in commands.values():  # bytecode is compiled, files are in memory
            measured(command, environment)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.runs):
            for name, command in commands.items():
                times[name].append(measured(command, environment))
    server.shutdown()
    print(f"{options.runs} runs each, {options.objects} objects, load {os.getloadavg()[0]:.1f}")
    figures: dict[str, int] = {}
    for name, found in times.items():
        walls, processors = [wall for wall, _ in found], [processor for _, processor in found]
        figures[name] = round(statistics.median(walls))
        figures[f"{name.removesuffix('_ms')}_processor_ms"] = round(statistics.median(processors))
        print(
            f"{name:20} median {statistics.median(walls):5.0f}, least {min(walls):5.0f}, most {max(walls):5.0f}; "
            f"on a processor {statistics.median(processors):5.0f}"
        )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
