"""Values of metric labels: the words of the API, of which there are few. What else somebody wrote counts as Other.

Reasons come from statuses, which tenants may write, from agents and trainers, which tenants run, and from versions that
know other words: each new one would be a series for ever.
"""

from __future__ import annotations

from http import HTTPStatus

from ..api import AttemptReason, PassedReason, State
from ..api.conditions import EVALUATION_REASONS, FINETUNEJOB_REASONS
from ..api.rollout_reasons import POD_EXPLANATIONS, RolloutReason

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
STAGES = ("prepare", "train", "evaluate")
OUTCOMES = ("Served", "RolledBack", "Superseded", "Unknown")
_REASONS = frozenset(
    {
        *State,
        *AttemptReason,
        *PassedReason,
        *RolloutReason,
        *FINETUNEJOB_REASONS,
        *EVALUATION_REASONS,
        *POD_EXPLANATIONS,
        *DISRUPTIONS,
        *PODS,
        NEW,
    }
)
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
