"""What is published, once: the files of an adapter with their manifest last, and RESULT.json, the note beside a run
that says which adapter it made, so that the same run is never trained twice.

`publish` writes the note once the adapter's manifest is in place; `prepare` and `train` read it and check every byte of
the adapter. The last figures and both curves are in it, so that whoever finds the run can draw it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..contract import Artifact, Summary, canonical_json, digest_of
from ..contract.parsing import read_object
from ..report import Report
from ..storage import MANIFEST, FileEntry, ObjectDamaged, ObjectMissing, Store, commit, read_manifest, verify
from ..storage.layout import ADAPTER_METRICS, ADAPTER_REPORT, artifact_prefix, result_path


class Result(Artifact):
    """The adapter that a run made, and how the run went; trainers of before did not note that."""

    summary: Summary = Summary()

    @classmethod
    def of(cls, artifact: Artifact, summary: Summary) -> Result:
        return cls(**artifact.model_dump(), summary=summary)

    @property
    def artifact(self) -> Artifact:
        return Artifact(**self.model_dump(exclude={"summary"}))


def write_result(store: Store, run_digest: str, result: Result) -> Result:
    """Put the note, once; return what is noted: another attempt's result, if that was first."""
    path, note = result_path(run_digest), canonical_json(result.to_json())
    if store.put_once(path, note):
        return result
    noted = read_result(store, run_digest)
    if noted is None:  # what was noted before is gone or damaged, so it is no result
        store.put(path, note)
    return noted or result


def read_result(store: Store, run_digest: str, report: Report | None = None) -> Result | None:
    """Return the adapter a run made, if it is all there and as it was published; None means it has to be trained."""
    try:
        data = store.read(result_path(run_digest))
    except ObjectMissing:
        return None
    try:
        result = Result.model_validate(read_object(data))
        prefix = artifact_prefix(result.digest, full=result.full)
        verify_adapter(store, prefix, result.digest)
    except (ValueError, ObjectMissing, ObjectDamaged) as error:
        if report is not None:
            report.warn("published adapter does not verify, it is trained again", run=run_digest, error=str(error))
        return None
    # The folder may have been copied to another bucket since.
    page = store.address(f"{prefix}/{ADAPTER_REPORT}") if result.report_uri is not None else None
    summary = result.summary if result.summary != Summary() else _read_figures(store, prefix)
    return result.model_copy(update={"uri": store.address(prefix), "report_uri": page, "summary": summary})


def prefix_of(store: Store, digest: str) -> str:
    """Return the folder of what was published under a digest: an adapter, or a whole model."""
    model = artifact_prefix(digest, full=True)
    return model if store.exists(f"{model}/{MANIFEST}") else artifact_prefix(digest, full=False)


def upload_once(
    store: Store, prefix: str, folder: Path, files: tuple[FileEntry, ...], document: dict[str, Any]
) -> None:
    """Upload files and commit their manifest, unless the adapter is there already and every byte of it verifies.

    It is there when an attempt ended between its manifest and its result, or another one runs at the same time: the
    weights are the same, or the digest would differ, and the records of whoever was first stand.
    """
    digest = digest_of(document["artifact"])
    for last in (False, True):
        if read_manifest(store, prefix) is None:
            for entry in files:
                store.upload(folder / entry.path, f"{prefix}/{entry.path}")
            commit(store, prefix, document)
        try:
            return verify_adapter(store, prefix, digest)
        except (ObjectDamaged, ObjectMissing):
            if last:
                raise
            store.delete([f"{prefix}/{MANIFEST}"])


def _read_figures(store: Store, prefix: str) -> Summary:
    """Return the last figures of the run that made a published adapter, as far as they are there: they change nothing.

    Trainers of before did not note them beside the run.
    """
    try:
        found = read_object(store.read(f"{prefix}/{ADAPTER_METRICS}"))
        return Summary.model_validate({name: found.get(key) for name, key in _FIGURES.items()})
    except (ValueError, ObjectMissing, ObjectDamaged):
        return Summary()


_FIGURES = {
    "step": "steps",
    "total_steps": "totalSteps",
    "loss": "trainingLoss",
    "validation_loss": "validationLoss",
    "test_loss": "testLoss",
    "base_test_loss": "baseTestLoss",
    "tokens_per_second": "tokensPerSecond",
}
"""Where metrics.json has what."""


def verify_adapter(store: Store, prefix: str, digest: str) -> None:
    """Read every file of a published adapter.

    Raises:
        ObjectMissing, ObjectDamaged: it is not all there, or not as it was published.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise ObjectMissing(f"{store.address(prefix)} has no manifest")
    if digest_of(manifest.document.get("artifact")) != digest:
        raise ObjectDamaged(f"the manifest of {store.address(prefix)} is not that of {digest}")
    verify(store, prefix, manifest)
