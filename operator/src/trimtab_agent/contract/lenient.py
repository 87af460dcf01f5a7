"""Values that are read from a peer of another version, or from one that lies: unknown fields ignored, all bounded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from trimtab_trainer.contract import Model

SHARES_KEPT = 256
"""AdapterRollouts that one pod holds."""


class Lenient(Model):
    """Frozen value with camelCase JSON names; unknown fields are ignored, and no number is infinite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


def cut_at(length: int) -> BeforeValidator:
    """Return what shortens a text for people; one that is too long is no reason to ignore the rest."""

    def cut(text: Any) -> Any:
        return text[:length] if isinstance(text, str) else text

    return BeforeValidator(cut)


COUNTER = Annotated[int, Field(ge=0, le=2**62)]
SEQUENCE = tuple[COUNTER, COUNTER]
"""[term, number]: the order of documents, see `Share.sequence`."""
_EXCEEDED = Annotated[int, Field(ge=0, lt=2**62)]
TOLD_SEQUENCE = tuple[_EXCEEDED, _EXCEEDED]
"""Of an answer: there is a document above it."""
WORD = Annotated[str, Field(max_length=64), cut_at(64)]
"""A reason: kept as it is, whether it is known here or not."""
MESSAGE = Annotated[str, Field(max_length=1024), cut_at(1024)]
WEIGHT = Annotated[int, Field(ge=0, le=100)]
TEXT = Annotated[str, Field(max_length=256)]
"""A name, a digest, an id."""
PATH = Annotated[str, Field(max_length=1024)]
