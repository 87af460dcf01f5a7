"""AdapterExports: which adapter and base model are joined, and what came of it; `work` decides about them."""

from __future__ import annotations

from trimtab_operator.api import AdapterExport
from trimtab_operator.api.adapterexport import ADAPTEREXPORT

from ..cluster import Key
from ..indexes import named_evaluation, waiting_for
from ..plan import Body
from ..work.staged import staged
from .exporting import Exporting

__all__ = ["ADAPTER_EXPORT", "EXPORTING"]


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    """Return what it waits for."""
    if ended or "resolved" in body.get("status", {}):
        return ()
    namespace, source = body["metadata"]["namespace"], body.get("spec", {}).get("source", {})
    job, evaluation = source.get("fineTuneJobName"), source.get("evaluationName")
    return (
        *((waiting_for("FineTuneJob", namespace, job),) if job else ()),
        *((named_evaluation(namespace, evaluation),) if evaluation else ()),
    )


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    """Return nobody: nothing is decided on by what was exported."""
    return ()


EXPORTING = Exporting()
ADAPTER_EXPORT = staged(
    EXPORTING,
    ADAPTEREXPORT,
    parse=AdapterExport.parse,
    indexes=_indexes,
    concerns=_concerns,
    gauge="trimtab_adapterexports",
    seconds="adapterexport_seconds",
)
