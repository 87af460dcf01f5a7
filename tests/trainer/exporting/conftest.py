"""The adapter that most tests of exports are about."""

from __future__ import annotations

import pytest

from .models import NF4, Trained, trained


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny base model, and an adapter that was trained over it in NF4."""
    return trained(tmp_path_factory.mktemp("usual"), quantization=NF4)
