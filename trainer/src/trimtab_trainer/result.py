"""RESULT.json: the note beside a run that says which adapter it made, so that the same run is never trained twice.

`publish` writes it once the adapter's manifest is in place; `prepare` reads it and checks every byte of the adapter.
"""

from __future__ import annotations

import json
from pathlib import Path

from .contract import Artifact, canonical_json, digest_of
from .report import Report
from .storage import ObjectDamaged, ObjectMissing, Store, fetch
from .storage.layout import adapter_prefix, hexadecimal, result_path


def write_result(store: Store, run_digest: str, artifact: Artifact) -> bool:
    """Put the note, once; False if another attempt was first."""
    return store.put_once(result_path(run_digest), canonical_json(artifact.to_json()))


def read_result(store: Store, run_digest: str, scratch: Path, report: Report) -> Artifact | None:
    """Return the adapter a run made, if it is all there and as it was published; None means it has to be trained."""
    try:
        data = store.read(result_path(run_digest))
    except ObjectMissing:
        return None
    try:
        artifact = Artifact.model_validate(json.loads(data))
        prefix = adapter_prefix(artifact.digest)
        manifest = fetch(store, prefix, scratch / "adapters" / hexadecimal(artifact.digest))
        if manifest is None:
            raise ObjectMissing(f"{store.address(prefix)} has no manifest")
        if digest_of(manifest.document.get("artifact")) != artifact.digest:
            raise ObjectDamaged(f"the manifest of {store.address(prefix)} is not that of {artifact.digest}")
    except (ValueError, ObjectMissing, ObjectDamaged) as error:
        report.warn("published adapter does not verify, it will be trained again", run=run_digest, error=str(error))
        return None
    # The folder may have been copied to another bucket since.
    return artifact.model_copy(update={"uri": store.address(prefix)})
