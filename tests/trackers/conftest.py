"""A real MLflow tracking server, from the package index, in an environment of its own that is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.component.operator.process import free_port
from tests.component.patience import Patience

MLFLOW = "3.17.2"
"""The version of the server that is told; its REST API has been the same since 1.0."""


def _environment() -> Path:
    cache = Path(os.environ.get("TRIMTAB_CACHE") or Path.home() / ".cache/trimtab")
    folder = cache / f"mlflow-{MLFLOW}"
    if not (folder / ".installed").exists():
        uv = cache / "uv/bin/uv"
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, folder], check=True)
        only_wheels = ["--only-binary", ":all:", "--python", str(folder / "bin/python")]
        subprocess.run([uv, "pip", "install", "-q", *only_wheels, f"mlflow=={MLFLOW}"], check=True)
        (folder / ".installed").touch()
    return folder


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that keeps its runs in SQLite."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [str(_environment() / "bin/mlflow"), "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder)]
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        patience = Patience("MLflow")
        while True:
            with suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{uri}/health", timeout=5)
                break
            assert server.poll() is None, log.read_text()
            patience.spend(log.stat().st_size)
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(server.pid, 15)
        server.wait()
