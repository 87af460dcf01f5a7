"""`python -m trimtab_agent`: supervise a worker; `python -m trimtab_agent worker`: be it.

Exit codes: 0 told to stop; 1 something essential ended; 2 settings invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from importlib.metadata import version

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics
from trimtab_trainer.contract import Credentials

from . import logs
from .agent import Agent, Pace
from .documents import PublicKeys, Verifier, namespace_audience, pod_audience
from .engine import VLLM
from .mounted import MountedDocuments
from .server import Server
from .settings import Settings, SettingsInvalid, read
from .shares import Shares
from .store import AdapterStore
from .supervisor import supervise
from .table import SharedVolume

log = logging.getLogger("trimtab_agent")

DRAIN_SECONDS = 5.0


async def serve(settings: Settings) -> int:
    """Run one worker until it is told to stop; return the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    volume = SharedVolume(settings.shared)
    token = volume.prepare()
    credentials = Credentials(directory=str(settings.credentials)) if settings.credentials else None
    store = AdapterStore(volume.adapters, credentials)
    store.prepare()
    shares = Shares(settings.state, settings.namespace)
    shares.load()
    audiences = (namespace_audience(settings.namespace), pod_audience(settings.pod_uid))
    verifier = Verifier(PublicKeys(settings.keys), audiences)
    api_key = settings.engine_api_key.read_text().strip() if settings.engine_api_key else None
    async with aiohttp.ClientSession(trust_env=False) as session:
        agent = Agent(
            volume=volume,
            store=store,
            engine=VLLM(session, settings.engine_url, token, api_key),
            shares=shares,
            base_model_digest=settings.base_model_digest,
            require_share=settings.require_share,
            pace=Pace(restore=settings.restore_seconds, remove=settings.remove_seconds),
        )
        mounted = MountedDocuments(settings.desired, settings.labels, verifier, agent)
        mounted.read()
        server = Server(agent, verifier, volume, settings.pod_uid)
        runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        await web.TCPSite(runner, None, settings.port, reuse_address=True).start()
        log.info("serving", extra=logs.keys(port=settings.port, engine=settings.engine_url))
        work = {
            asyncio.create_task(agent.run(), name="rounds"),
            asyncio.create_task(mounted.run(), name="mounted"),
        }
        told = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({told, *work}, return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            if task.done() and not task.cancelled():
                log.error("ended", exc_info=task.exception())
        # Calls under way are answered; aliases and adapters stay, for the engine may serve on while the pod drains.
        server.stop_waiting()
        await runner.cleanup()
        for task in work:
            task.cancel()
        await agent.close()
    log.info("stopped")
    return 0 if stop.is_set() else 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="trimtab-agent", description="Brings adapters into a serving engine.")
    parser.add_argument("--version", action="version", version=version("trimtab-operator"))
    parser.add_argument("command", nargs="?", choices=["supervise", "worker"], default="supervise")
    if parser.parse_args().command == "supervise":
        sys.exit(supervise([sys.executable, "-m", "trimtab_agent", "worker"]))
    try:
        settings = read()
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    logs.configure(settings.log_level)
    disable_created_metrics()
    with asyncio.Runner() as runner:
        code = runner.run(serve(settings))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)  # at once: a fetch in a thread cannot be cancelled, and leaves nothing half-written


if __name__ == "__main__":
    main()
