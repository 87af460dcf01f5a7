"""FineTuneJobs: what they train and publish; `work` decides about them."""

from __future__ import annotations

from trimtab_operator.api import FineTuneJob
from trimtab_operator.api.finetunejob import FINETUNEJOB
from trimtab_operator.api.tracking import TRACKED

from ..cluster import Cluster, Key
from ..indexes import of_artifact, of_sweep, sweeps_among, waiting_for
from ..plan import Body
from ..readers import Readers, readers_of_job
from ..views import SWEEP_LABEL
from ..work.staged import staged
from .training import Training

__all__ = ["FINE_TUNE_JOB", "TRAINING"]


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    metadata, digest = body["metadata"], body.get("status", {}).get("artifact", {}).get("digest")
    sweep = (metadata.get("labels") or {}).get(SWEEP_LABEL)
    return (
        *((of_artifact(metadata["namespace"], digest),) if digest else ()),
        *((of_sweep(metadata["namespace"], sweep),) if sweep else ()),
    )


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return (waiting_for(*key), *sweeps_among(indexes))


def _awaited(cluster: Cluster, job: FineTuneJob) -> Readers:
    return readers_of_job(cluster, job.metadata.namespace, job.metadata.name)


TRAINING = Training()
FINE_TUNE_JOB = staged(
    TRAINING,
    FINETUNEJOB,
    parse=FineTuneJob.parse,
    indexes=_indexes,
    concerns=_concerns,
    gauge="trimtab_finetunejobs",
    seconds="finetunejob_seconds",
    later=frozenset({TRACKED}),
    awaited=_awaited,
)
