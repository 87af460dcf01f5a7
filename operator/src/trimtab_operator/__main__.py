"""`python -m trimtab_operator`: read the settings, wait for leadership, run until told to stop.

Exit codes: 0 told to stop; 1 leadership lost or something essential ended; 2 settings invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version

import uvloop
from prometheus_client import disable_created_metrics

from .runtime import health, logs, metrics
from .runtime.kube import Kube, load_configuration
from .runtime.leader import Leadership
from .runtime.leading import Leading
from .runtime.settings import PREFIX, Settings, SettingsInvalid, flag, read

log = logging.getLogger("trimtab_operator")

COLLECT_AFTER = (20_000, 20, 20)
"""Parsed JSON makes thousands of objects at a time and no cycles: the default of 700 spends half the time searching."""


async def serve(settings: Settings) -> int:
    """Run one replica; return the exit code."""
    configuration = await load_configuration()
    leadership = Leadership(
        configuration,
        name=settings.lease_name,
        namespace=settings.namespace,
        identity=settings.identity,
        seconds=settings.lease_seconds,
    )
    kube = Kube(configuration, settings.request_seconds, may_write=leadership.may_write)
    leading = Leading(kube, settings, lambda: leadership.transitions)

    def live() -> Mapping[str, bool]:
        return {"lease": leadership.alive(), **(leading.findings() if leadership.leading and leading.synced else {})}

    def ready() -> Mapping[str, bool]:
        return {"lease": leadership.alive(), "synced": leading.synced or not leadership.leading}

    servers = [  # the probes last: whoever is told that it is ready finds its metrics
        await health.serve(settings.metrics_port, health.exposition()),
        await health.serve(settings.health_port, health.probes(live, ready)),
    ]
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told_to_stop.set)

    async def lead() -> None:
        await leading.run(started=take_signals)  # kopf takes the signals when it starts

    take_signals()
    work = asyncio.create_task(leadership.run(lead), name="leadership")
    stop = asyncio.create_task(told_to_stop.wait(), name="stop")
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    if told_to_stop.is_set():
        log.info("told to stop")
        await leadership.release()
        return 0
    # Nothing is cleaned up: what is under way must not reach the API server any more.
    error = work.exception() if not work.cancelled() else None
    log.error("ended", exc_info=error)
    _ = servers
    return 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="trimtab-operator", description="Kubernetes operator for LoRA fine-tuning.")
    parser.add_argument("--version", action="version", version=version("trimtab-operator"))
    for name in Settings.model_fields:
        parser.add_argument(flag(name), metavar="VALUE", help=f"instead of {PREFIX}{name.upper()}")
    given = vars(parser.parse_args())
    try:
        settings = read(os.environ, given)
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    logs.configure(settings.log_level)
    gc.set_threshold(*COLLECT_AFTER)
    disable_created_metrics()
    metrics.BUILD.info({"version": version("trimtab-operator")})
    log.info("starting", extra=logs.keys(version=version("trimtab-operator"), identity=settings.identity))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # half of a request's time is the loop's
        code = runner.run(serve(settings))
        # At once, without waiting for tasks: what has lost the Lease must not write, what has released it need not.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
