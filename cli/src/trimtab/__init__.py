"""Trimtab from Python: `from trimtab import Client`. Only what is used is imported: the command starts at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import Finding
    from .client import Client
    from .comparison import Comparison
    from .decisions import Decided
    from .errors import Conflict, Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable
    from .logs import LogLine
    from .manifests import Answers
    from .objects import AdapterRollout, Curve, CustomObject, Evaluation, FineTuneJob, FineTuneSweep
    from .story import Story
    from .tables import Listing

__all__ = [
    "AdapterRollout",
    "Answers",
    "Client",
    "Comparison",
    "Conflict",
    "Curve",
    "CustomObject",
    "Decided",
    "Evaluation",
    "Finding",
    "FineTuneJob",
    "FineTuneSweep",
    "Invalid",
    "Listing",
    "LogLine",
    "NotAllowed",
    "NotFound",
    "NotInstalled",
    "Problem",
    "Story",
    "Unreachable",
]

_MODULES = {
    "checking": ("Finding",),
    "client": ("Client",),
    "comparison": ("Comparison",),
    "decisions": ("Decided",),
    "errors": ("Conflict", "Invalid", "NotAllowed", "NotFound", "NotInstalled", "Problem", "Unreachable"),
    "logs": ("LogLine",),
    "manifests": ("Answers",),
    "objects": ("AdapterRollout", "Curve", "CustomObject", "Evaluation", "FineTuneJob", "FineTuneSweep"),
    "story": ("Story",),
    "tables": ("Listing",),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)
