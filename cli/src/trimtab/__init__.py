"""Trimtab from Python: `from trimtab import Client`. Only what is used is imported: the command starts at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .applying import Applied
    from .checking import Finding
    from .client import Client
    from .comparison import Comparison
    from .costs import Estimate
    from .decisions import Decided
    from .errors import Conflict, Invalid, NotAllowed, NotFound, NotInstalled, Problem, Unreachable
    from .logs import LogLine
    from .manifests import Answers
    from .objects import AdapterRollout, Curve, CustomObject, Evaluation, FineTuneJob, FineTuneSweep
    from .replies import Replies, Reply
    from .story import Story
    from .tables import Listing

__all__ = [
    "AdapterRollout",
    "Answers",
    "Applied",
    "Client",
    "Comparison",
    "Conflict",
    "Curve",
    "CustomObject",
    "Decided",
    "Estimate",
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
    "Replies",
    "Reply",
    "Story",
    "Unreachable",
]

_MODULES = {
    "applying": ("Applied",),
    "checking": ("Finding",),
    "client": ("Client",),
    "comparison": ("Comparison",),
    "costs": ("Estimate",),
    "decisions": ("Decided",),
    "errors": ("Conflict", "Invalid", "NotAllowed", "NotFound", "NotInstalled", "Problem", "Unreachable"),
    "logs": ("LogLine",),
    "manifests": ("Answers",),
    "objects": ("AdapterRollout", "Curve", "CustomObject", "Evaluation", "FineTuneJob", "FineTuneSweep"),
    "replies": ("Replies", "Reply"),
    "story": ("Story",),
    "tables": ("Listing",),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)
