"""Who judges: an endpoint or a local model. Only what is used of them is imported."""

from __future__ import annotations

from pathlib import Path

from ...contract import StoredJudge
from .judge import Judge


def judge_of(settings: StoredJudge, folder: Path, batch_size: int | None) -> Judge:
    """Return who judges.

    Args:
        settings: one of both.
        folder: for the files of a local model.
        batch_size: of its forward passes; derived if None.

    Raises:
        SettingsInvalid: its key is not there.
    """
    if settings.endpoint is not None:
        from .endpoint import Endpoint

        return Endpoint(settings.endpoint)
    if settings.model is None:
        raise ValueError("a judge is an endpoint or a model")
    from .local import LocalJudge

    return LocalJudge(settings.model, folder, batch_size)
