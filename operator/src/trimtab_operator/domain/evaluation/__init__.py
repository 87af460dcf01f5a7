"""Evaluations: what they wait for and ask, and the verdict; `work` decides about them."""

from __future__ import annotations

from trimtab_operator.api import PASSED, Evaluation, PassedReason, WorkStatus
from trimtab_operator.api.evaluation import EVALUATION as CRD

from ..cluster import Key
from ..ended import reason_of
from ..indexes import gated_in, named_evaluation, of_sweep, passed_in, sweeps_among, waiting_for
from ..measures import Measure
from ..plan import Body
from ..readers import readers_of_evaluation
from ..views import SWEEP_LABEL
from ..work.staged import staged
from .evaluating import Evaluating

__all__ = ["EVALUATING", "EVALUATION"]


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    """Return whose it is, and what it waits for, or once it has ended whether it passed."""
    sweep = (body["metadata"].get("labels") or {}).get(SWEEP_LABEL)
    mine = (of_sweep(body["metadata"]["namespace"], sweep),) if sweep else ()
    return (*mine, *_state_of(body, ended))


def _state_of(body: Body, ended: bool) -> tuple[str, ...]:
    namespace, spec, status = body["metadata"]["namespace"], body.get("spec", {}), body.get("status", {})
    if ended:
        verdict: Body = next((c for c in status.get("conditions", ()) if c.get("type") == PASSED), {})
        if verdict.get("status") != "True":
            return ()
        gated = verdict.get("reason") == PassedReason.PASSED
        return (passed_in(namespace), gated_in(namespace)) if gated else (passed_in(namespace),)
    if "resolved" in status:
        return ()
    wanted = {
        "FineTuneJob": spec.get("target", {}).get("fineTuneJobName"),
        "AdapterRollout": spec.get("baseline", {}).get("rolloutName"),
    }
    return tuple(waiting_for(kind, namespace, name) for kind, name in wanted.items() if name)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    named = named_evaluation(key.namespace, key.name)
    return (named, *sweeps_among(indexes), *((passed_in(key.namespace),) if ended else ()))


def _verdict(status: WorkStatus) -> tuple[Measure, ...]:
    return (Measure("evaluations", (reason_of(status, PASSED),)),)


EVALUATING = Evaluating()
EVALUATION = staged(
    EVALUATING,
    CRD,
    parse=Evaluation.parse,
    indexes=_indexes,
    concerns=_concerns,
    gauge="trimtab_evaluation_states",
    seconds="evaluation_seconds",
    verdict=_verdict,
    awaited=readers_of_evaluation,
)
