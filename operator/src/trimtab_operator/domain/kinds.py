"""The list of kinds. What else is to be known of one is in its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapterexport import ADAPTER_EXPORT
from .adapterrollout.record import ADAPTER_ROLLOUT
from .evaluation import EVALUATION
from .finetunejob import FINE_TUNE_JOB
from .finetunesweep import FINE_TUNE_SWEEP
from .kind import Kind
from .review import REVIEWS

KINDS: Mapping[str, Kind[Any, Any]] = {
    kind.name: kind for kind in (FINE_TUNE_JOB, FINE_TUNE_SWEEP, EVALUATION, ADAPTER_ROLLOUT, REVIEWS, ADAPTER_EXPORT)
}
"""Kinds by name, in the order in which people meet them."""
