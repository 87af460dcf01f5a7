"""The tiny base model, made once; one thread, for on a busy machine two of them mostly wait for each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trimtab_trainer.training.machine import hardware

from tests.trainer.tiny import make_tiny_model

os.environ["OMP_NUM_THREADS"] = "1"
hardware.import_bitsandbytes()  # before a test imports peft, which would import it with operations that are compiled


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model."""
    hardware.configure()
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")
