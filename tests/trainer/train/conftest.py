"""The tiny base model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.tiny import make_tiny_model
from trimtab_trainer import hardware


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny base model."""
    hardware.configure()
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")
