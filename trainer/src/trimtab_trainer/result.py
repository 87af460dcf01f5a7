"""RESULT.json: the note beside a run that says which adapter it made, so that the same run is never trained twice.

`publish` writes it once the adapter's manifest is in place; `prepare` and `train` read it and check every byte of the
adapter.
"""

from __future__ import annotations

from .contract import Artifact, canonical_json, digest_of
from .contract.parsing import Unreadable, read_object
from .report import Report
from .storage import ObjectDamaged, ObjectMissing, Store, read_manifest, verify
from .storage.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_prefix, result_path
from .storage.tensor_header import LENGTH_BYTES, header_length, read_header


def write_result(store: Store, run_digest: str, artifact: Artifact) -> Artifact:
    """Put the note, once; return the adapter that is noted: another attempt's, if that was first."""
    path = result_path(run_digest)
    if store.put_once(path, canonical_json(artifact.to_json())):
        return artifact
    noted = read_result(store, run_digest)
    if noted is None:  # what was noted before is gone or damaged, so it is no result
        store.put(path, canonical_json(artifact.to_json()))
    return noted or artifact


def read_result(store: Store, run_digest: str, report: Report | None = None) -> Artifact | None:
    """Return the adapter a run made, if it is all there and as it was published; None means it has to be trained."""
    try:
        data = store.read(result_path(run_digest))
    except ObjectMissing:
        return None
    try:
        artifact = Artifact.model_validate(read_object(data))
        prefix = adapter_prefix(artifact.digest)
        verify_adapter(store, prefix, artifact.digest)
    except (ValueError, ObjectMissing, ObjectDamaged) as error:
        if report is not None:
            report.warn("published adapter does not verify, it is trained again", run=run_digest, error=str(error))
        return None
    # The folder may have been copied to another bucket since.
    return artifact.model_copy(update={"uri": store.address(prefix)})


def verify_adapter(store: Store, prefix: str, digest: str) -> None:
    """Read every file of a published adapter.

    Raises:
        ObjectMissing, ObjectDamaged: it is not all there, not as it was published, or none that can be loaded.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise ObjectMissing(f"{store.address(prefix)} has no manifest")
    if digest_of(manifest.document.get("artifact")) != digest:
        raise ObjectDamaged(f"the manifest of {store.address(prefix)} is not that of {digest}")
    verify(store, prefix, manifest)
    for entry in manifest.files:
        path = f"{prefix}/{entry.path}"
        try:
            if entry.path == ADAPTER_CONFIG:
                read_object(store.read(path))
            if entry.path == ADAPTER_WEIGHTS:
                length = header_length(store.start(path, LENGTH_BYTES), entry.size)
                begin = LENGTH_BYTES + length
                read_header(store.start(path, begin)[LENGTH_BYTES:], entry.size - begin)
        except Unreadable as error:
            raise ObjectDamaged(f"{store.address(path)} is none of an adapter: {error}; publish it again") from error
