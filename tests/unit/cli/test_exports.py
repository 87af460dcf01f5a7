"""What the command tells of an AdapterExport; it knows the kind from its table alone."""

from __future__ import annotations

from tests.unit.cli.cluster import FakeCluster, ago
from tests.unit.cli.conftest import Run


def test_an_export_is_listed_described_and_suspended_like_other_work(cluster: FakeCluster, run: Run) -> None:
    message = "sha256:8 is stored at s3://models/guide/exports/8"
    completed = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": message}
    cluster.put(
        {
            "kind": "AdapterExport",
            "metadata": {"name": "guide"},
            "spec": {"source": {"evaluationName": "demo-gate"}, "format": "GGUF"},
            "status": {
                "conditions": [{**completed, "lastTransitionTime": ago(hours=1)}],
                "artifact": {"uri": "s3://models/guide/exports/8", "sizeBytes": 271_000_000},
                "summary": {"progress": "100%", "size": "271 MB"},
            },
        }
    )
    assert run("list", "aex").out.splitlines() == [
        "NAME    STATE       FORMAT   PROGRESS   SIZE     AGE",
        "guide   Completed   GGUF     100%       271 MB   3h",
    ]
    told = run("describe", "adapterexport/guide")
    assert (told.code, told.err) == (0, "")
    assert message in told.out
    assert "The model is stored and verified." in told.out
    assert run("suspend", "adapterexport/guide").code == 1  # it has ended
