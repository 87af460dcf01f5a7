"""Real servers of trackers, from the package index, each in an environment of its own that is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.component.patience import Patience
from tests.ports import free_port

MLFLOW = "3.17.2"
"""The version of the server that is told; its REST API has been the same since 1.0."""
TRACKIO = "0.43.0"
"""Likewise; its HTTP API calls itself version 1."""
WRITE_TOKEN = "a-write-token"


def _environment(package: str, version: str) -> Path:
    cache = Path(os.environ.get("TRIMTAB_CACHE") or Path.home() / ".cache/trimtab")
    folder = cache / f"{package}-{version}"
    if not (folder / ".installed").exists():
        uv = cache / "uv/bin/uv"
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, folder], check=True)
        only_wheels = ["--only-binary", ":all:", "--python", str(folder / "bin/python")]
        subprocess.run([uv, "pip", "install", "-q", *only_wheels, f"{package}=={version}"], check=True)
        (folder / ".installed").touch()
    return folder


@contextmanager
def _serving(name: str, command: list[str], uri: str, health: str, folder: Path, **variables: str) -> Iterator[None]:
    """Run a server until its address answers, and then for as long as it is wanted."""
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=out, start_new_session=True, cwd=folder, env={**os.environ, **variables}
        )
    try:
        patience = Patience(name)
        while True:
            with suppress(OSError):  # not there yet, or slow to begin
                urllib.request.urlopen(f"{uri}/{health}", timeout=5)
                break
            assert server.poll() is None, log.read_text()
            patience.spend(log.stat().st_size)
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, 15)
        server.wait()


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that keeps its runs in SQLite."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    uri = f"http://127.0.0.1:{port}"
    program = _environment("mlflow", MLFLOW) / "bin/mlflow"
    command = [str(program), "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder)]
    with _serving("MLflow", command, uri, "health", folder):
        yield uri


@pytest.fixture(scope="session")
def trackio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that lets those write who know WRITE_TOKEN."""
    folder, port = tmp_path_factory.mktemp("trackio"), free_port()
    uri = f"http://127.0.0.1:{port}"
    python = _environment("trackio", TRACKIO) / "bin/python"
    program = (
        f"import trackio; trackio.show(host='127.0.0.1', server_port={port}, open_browser=False, block_thread=True)"
    )
    variables = {"TRACKIO_DIR": str(folder), "TRACKIO_WRITE_TOKEN": WRITE_TOKEN, "HF_HUB_OFFLINE": "1"}
    with _serving("Trackio", [str(python), "-c", program], uri, "version", folder, **variables):
        yield uri
