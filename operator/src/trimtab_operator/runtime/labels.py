"""Values of metric labels: the words of the API, of which there are few. What else somebody wrote counts as Other.

Reasons come from statuses, which tenants may write, from agents and trainers, which tenants run, and from versions that
know other words: each new one would be a series for ever.
"""

from __future__ import annotations

from http import HTTPStatus

from trimtab_trainer.contract import Stage
from trimtab_trainer.contract.sweeps.settings import TrialState

from ..domain.finetunesweep.trials import VALUE_MISSING
from ..domain.kinds import KINDS

OTHER, NEW = "Other", "New"
DISRUPTIONS = (
    "PreemptionByScheduler",
    "DeletionByTaintManager",
    "EvictionByEvictionAPI",
    "DeletionByPodGC",
    "TerminationByKubelet",
)
"""Reasons that Kubernetes itself gives to DisruptionTarget."""
PODS = ("ready", "behind", "unreachable")
"""States of serving pods."""
STAGES = frozenset(stage.value for stage in Stage)
OUTCOMES = frozenset({"Served", "RolledBack", "Superseded", "Unknown", VALUE_MISSING, *TrialState})
_EXPLAINED = {word for kind in KINDS.values() for _, explanations in kind.crd.reasons.values() for word in explanations}
_REASONS = frozenset({*_EXPLAINED, *DISRUPTIONS, *PODS, NEW})
_CODES = frozenset(int(status) for status in HTTPStatus)


def word_label(word: str) -> str:
    """Return a reason, a stage or an outcome as a label has it."""
    return str(word) if word in _REASONS or word in STAGES or word in OUTCOMES else OTHER


def reason_label(reason: str) -> str:
    """Return a reason as a label has it."""
    return str(reason) if reason in _REASONS else OTHER


def code_label(status: int) -> str:
    """Return the status of an answer as a label has it."""
    return str(status) if status in _CODES else OTHER
