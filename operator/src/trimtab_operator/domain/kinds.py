"""The kinds that are decided about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .evaluation import EVALUATION
from .finetunejob import FINE_TUNE_JOB
from .work import Kind

KINDS: Mapping[str, Kind[Any, Any]] = {kind.name: kind for kind in (FINE_TUNE_JOB, EVALUATION)}
"""Kinds by name."""
