"""vLLM's own rendering of chat requests, without a model behind it: `vllm launch render`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.tiny import make_tiny_model

PROGRAM = "TRIMTAB_VLLM"
"""In the environment: the path of vLLM's command."""
STARTS_SECONDS = 600
NAME = "tiny"


class Refused(Exception):
    """What the engine said instead of a prompt."""


@dataclass(frozen=True)
class Engine:
    """Renders requests as an engine would that serves a model with this tokenizer."""

    address: str
    model: Path

    def prompt(self, template: str, messages: list[dict[str, Any]], tools: list[Any] | None) -> list[int]:
        """Return the tokens that an engine gives its model.

        Raises:
            Refused: it does not take the request.
        """
        body = {
            "model": NAME,
            "messages": messages,
            "chat_template": template,
            "add_generation_prompt": True,
            **({"tools": tools} if tools else {}),
        }
        request = urllib.request.Request(
            f"{self.address}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                tokens: list[int] = json.load(answer)["tokens"]
                return tokens
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.read().decode()) from error


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    model = make_tiny_model(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ[PROGRAM], "launch", "render", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", NAME, "--trust-request-chat-template"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTS_SECONDS
        while not _answers(address):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield Engine(address, model)
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
