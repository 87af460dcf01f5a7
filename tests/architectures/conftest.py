"""The process is configured as the trainer's stages do it."""

from __future__ import annotations

import pytest
from trimtab_trainer.training.machine import hardware


@pytest.fixture(autouse=True, scope="session")
def configured() -> None:
    hardware.configure()
