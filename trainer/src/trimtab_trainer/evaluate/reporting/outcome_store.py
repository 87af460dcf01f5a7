"""What an evaluation found, in object storage: written once, read back by whoever asks the same again. No torch.

    <output>/evaluations/<digest>/{report.html,results.json}    and MANIFEST.json last, with the outcome in it

The digest is that of the question, so the answer is never computed twice: `prepare` reads it before a pod with an
accelerator is asked for, and `stage` before it loads anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from ...contract import EvaluationOutcome, Result
from ...storage import MANIFEST, FileEntry, ObjectDamaged, ObjectMissing, Store, commit, read_manifest, verify
from ...storage.layout import evaluation_prefix
from ..results import EvaluationResults

REPORT, RESULTS = "report.html", "results.json"
OUTCOME_VERSION = "trimtab.dev/outcome/v1"


def read_outcome(store: Store, evaluation_digest: str) -> EvaluationOutcome | None:
    """Return what an evaluation found, if report and results are there as they were written; None: evaluate it.

    Raises:
        TrainerError: storage cannot be read.
    """
    prefix = evaluation_prefix(evaluation_digest)
    try:
        manifest = read_manifest(store, prefix)
        if manifest is None:
            return None
        verify(store, prefix, manifest)
        outcome = EvaluationOutcome.model_validate(manifest.document.get("outcome"))
    except (ValueError, ObjectMissing, ObjectDamaged):
        return None
    # The folder may have been copied to another bucket since.
    return outcome.model_copy(update={"report_uri": store.address(f"{prefix}/{REPORT}")})


def publish(store: Store, results: EvaluationResults, page: Callable[[EvaluationOutcome], str]) -> EvaluationOutcome:
    """Store results.json and report.html, then the manifest, once; return the outcome that is stored.

    If another attempt was first, what it stored is the outcome.

    Args:
        store: of the outcomes.
        results: all of them.
        page: makes the report of the outcome that is stored beside it.

    Raises:
        ObjectDamaged: what is stored does not stay as it was written.
        TrainerError: storage failed; nothing half-written is visible.
    """
    prefix = evaluation_prefix(results.digest)
    document = json.dumps(results.to_json(), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    outcome = EvaluationOutcome(
        report_uri=store.address(f"{prefix}/{REPORT}"),
        results_digest=f"sha256:{hashlib.sha256(document.encode()).hexdigest()}",
        rows=sum(task.rows for task in results.tasks),
        looks=max((task.looks for task in results.tasks), default=0),
        results=in_order(results),
        checks=results.checks,
        unreliable=results.unreliable,
    )
    files = {RESULTS: document.encode(), REPORT: page(outcome).encode()}
    entries = [FileEntry(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())]
    manifest = {
        "version": OUTCOME_VERSION,
        "digest": results.digest,
        "outcome": outcome.to_json(),
        "files": [entry.to_json() for entry in entries],
    }
    for _ in range(2):
        stored = read_outcome(store, results.digest)
        if stored is not None:
            return stored
        store.delete([f"{prefix}/{MANIFEST}"])  # of files that are not as they were written
        for name, data in files.items():
            store.put(f"{prefix}/{name}", data)
        commit(store, prefix, manifest)
    stored = read_outcome(store, results.digest)
    if stored is None:
        raise ObjectDamaged(f"{store.address(prefix)} is not as it was written; check the object storage")
    return stored


def in_order(results: EvaluationResults) -> list[Result]:
    """Return all figures, the most wanted first: those of checks, each task's headline, the others.

    Only so many fit into a termination message and a status.
    """
    checked = {results.thresholds[check.threshold].metric for check in results.checks}
    headlines = {f"{task.name}/{task.results[0].metric}" for task in results.tasks if task.results}

    def place(result: Result) -> int:
        path = f"{result.task}/{result.metric}"
        return 0 if path in checked else 1 if path in headlines else 2

    return sorted((result for task in results.tasks for result in task.results), key=place)
