"""A stand-in for vLLM's command, by the variable that names the real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.evaluate.engine.process import COMMAND

from tests.trainer.evaluate.engine import fake_vllm


class FakeVllm:
    """Says what the command was given."""

    def __init__(self, seen: Path) -> None:
        self.seen = seen

    @property
    def started(self) -> dict[str, Any]:
        """Arguments and environment."""
        found: dict[str, Any] = json.loads(self.seen.read_text().splitlines()[0])
        return found

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Bodies of the requests, in any order."""
        return [json.loads(line) for line in self.seen.read_text().splitlines()[1:]]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeVllm]:
    """Put the stand-in in place, with what is wrong with it."""

    def make(fault: str = "") -> FakeVllm:
        program = tmp_path / "vllm"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {fake_vllm.__file__} "$@"\n')
        program.chmod(0o755)
        seen = tmp_path / "seen"
        monkeypatch.setenv(COMMAND, str(program))
        monkeypatch.setenv(fake_vllm.FAULT, fault)
        monkeypatch.setenv(fake_vllm.SEEN, str(seen))
        return FakeVllm(seen)

    return make
