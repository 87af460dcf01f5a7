"""`python -m trimtab_agent`: supervise a worker; `... worker`: be it; `... fetch-base-model`: before an engine starts.

Exit codes: 0 told to stop, or fetched; 1 something essential ended, or storage failed; 2 settings invalid.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics
from pydantic import ValidationError
from trimtab_trainer.contract import Credentials, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid as BaseModelInvalid
from trimtab_trainer.errors import TrainerError

from . import logs
from .documents import PublicKeys, Verifier, namespace_audience, pod_audience
from .engine.table import SharedVolume
from .engine.vllm import VLLM
from .receiving.mounted import MountedDocuments
from .receiving.server import Server
from .rounds.agent import Agent, Pace
from .rounds.shares import Shares
from .settings import Settings, SettingsInvalid, read
from .supervisor import supervise
from .weights.base_model import fetch_base_model
from .weights.store import AdapterStore

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


def fetch(uri: str, folder: Path) -> int:
    """Fetch the base model that an engine will serve; return the exit code."""
    credentials = os.environ.get("TRIMTAB_CREDENTIALS")
    logs.configure("INFO")
    try:
        settings = StoredBaseModel(
            uri=uri,
            digest=os.environ.get("TRIMTAB_BASE_MODEL_DIGEST") or None,
            credentials=Credentials(directory=credentials) if credentials else None,
        )
        fetch_base_model(settings, folder)
    except ValidationError as error:
        (first, *_) = error.errors()
        log.error("base model not fetched", extra=logs.keys(err=f"{first['loc'][0]}: {first['msg']}"))
        return 2
    except TrainerError as error:
        log.error("base model not fetched", extra=logs.keys(reason=error.reason.value, err=error.message))
        return 2 if isinstance(error, BaseModelInvalid) else 1
    return 0


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="trimtab-agent", description="Brings adapters into a serving engine.")
    parser.add_argument("--version", action="version", version=version("trimtab-operator"))
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("supervise", help="run a worker, and start it again whenever it ends (the default)")
    commands.add_parser("worker", help="bring adapters into the engine until told to stop")
    base = commands.add_parser("fetch-base-model", help="bring a base model to a volume, then end")
    base.add_argument("--uri", required=True, help="s3:// or file:// URI of its folder")
    base.add_argument("--folder", required=True, type=Path, help="where its files are wanted")
    return parser


def main() -> None:
    """Entry point."""
    options = arguments().parse_args()
    if options.command == "fetch-base-model":
        sys.exit(fetch(options.uri, options.folder))
    if options.command != "worker":
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
