"""The words under which objects of our kinds look each other up, and are told of each other's changes."""

from __future__ import annotations

from collections.abc import Iterable

CLAIMED = "name/"
SWEEP = "sweep/"
OF_SWEEP = "of-sweep/"


def waiting_for(kind: str, namespace: str, name: str) -> str:
    """Return the index of those who cannot start without an object."""
    return f"waits/{kind}/{namespace}/{name}"


def named_evaluation(namespace: str, name: str) -> str:
    """Return the index of the AdapterRollouts whose source is an Evaluation."""
    return f"source/{namespace}/{name}"


def passed_in(namespace: str) -> str:
    """Return the index of the Evaluations that passed, and of the AdapterRollouts that follow such."""
    return f"passed/{namespace}"


def gated_in(namespace: str) -> str:
    """Return the index of the Evaluations that passed thresholds."""
    return f"gated/{namespace}"


def of_adapter_name(namespace: str, name: str) -> str:
    """Return the index of the AdapterRollouts that claim a name."""
    return f"{CLAIMED}{namespace}/{name}"


def names_claimed(indexes: Iterable[str]) -> tuple[str, ...]:
    """Return those of an object's indexes that are of a name it claims."""
    return tuple(index for index in indexes if index.startswith(CLAIMED))


def sweep_named(namespace: str, name: str) -> str:
    """Return the index of a FineTuneSweep, which hears of what it made."""
    return f"{SWEEP}{namespace}/{name}"


def of_sweep(namespace: str, name: str) -> str:
    """Return the index of the FineTuneJobs and Evaluations that say that a FineTuneSweep made them."""
    return f"{OF_SWEEP}{namespace}/{name}"


def sweeps_among(indexes: Iterable[str]) -> tuple[str, ...]:
    """Return the indexes of the FineTuneSweeps that made an object with some indexes."""
    return tuple(SWEEP + index.removeprefix(OF_SWEEP) for index in indexes if index.startswith(OF_SWEEP))


def decisions_about(namespace: str, rollout: str) -> str:
    """Return the index of an AdapterRollout that asks for approvals."""
    return f"decisions/{namespace}/{rollout}"


def decided_on(namespace: str, rollout: str, digest: str) -> str:
    """Return the index of the Reviews that decide about one adapter of an AdapterRollout."""
    return f"{decisions_about(namespace, rollout)}/{digest}"


def decided_about(index: str) -> str:
    """Return the index of the AdapterRollout that Reviews with an index decide about."""
    return index.rpartition("/")[0]


def of_artifact(namespace: str, digest: str) -> str:
    """Return the index of the FineTuneJobs that published an adapter."""
    return f"artifact/{namespace}/{digest}"
