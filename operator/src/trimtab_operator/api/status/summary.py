"""What `kubectl get` prints of a status: derived from the rest of it, because a column can only show a field."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from trimtab_trainer.contract import Model


class SummarizedStatus(Model):
    """A status with a computed `summary`, which is written with the rest and never read back."""

    @model_validator(mode="before")
    @classmethod
    def _without_summary(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if key != "summary"} if isinstance(value, dict) else value
