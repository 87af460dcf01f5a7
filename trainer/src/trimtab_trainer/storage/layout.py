"""Where things lie below `<output>`: the one place that spells the paths of content addresses.

But for mirrors of a hub, `<output>/models/<digest>` and `<output>/datasets/<digest>`: the contract has those.
"""

from __future__ import annotations

import hashlib

from ..contract import HubSource

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_METRICS = "metrics.json"
ADAPTER_REPORT = "report.html"
ADAPTER_TEST_ROWS = "splits/test.jsonl"
"""Files of a published adapter that others than its publisher read."""


def hexadecimal(digest: str) -> str:
    """Return a digest without its `sha256:`, as it stands in paths (colons trouble some tools)."""
    return digest.removeprefix("sha256:")


def source_path(source: HubSource, commit: str) -> str:
    """Return the path of the note that says what a repository at a commit was mirrored as; put once."""
    folder = f"sources/{source.kind}s/{source.repository}/{commit}"
    if not source.path:
        return f"{folder}.json"
    return f"{folder}/{hashlib.sha256(source.path.encode()).hexdigest()[:16]}.json"


def rows_prefix(rows_digest: str) -> str:
    """Tokenised rows: made once for a data set and a tokenizer."""
    return f"data/rows/{hexadecimal(rows_digest)}"


def view_prefix(view_digest: str) -> str:
    """Packed sequences of each side of one split of some rows."""
    return f"data/views/{hexadecimal(view_digest)}"


def reference_prefix(reference_digest: str) -> str:
    """What a model said of a view's answers before training."""
    return f"data/references/{hexadecimal(reference_digest)}"


def data_audit_prefix(audit_digest: str) -> str:
    """What became of the rows of certain files in a view: audit.json and data.html."""
    return f"data/audits/{hexadecimal(audit_digest)}"


def run_prefix(run_digest: str) -> str:
    """Folder of what is kept of a run."""
    return f"runs/{hexadecimal(run_digest)}"


def checkpoints_prefix(run_digest: str) -> str:
    """Folder of a run's checkpoints."""
    return f"{run_prefix(run_digest)}/checkpoints"


def result_path(run_digest: str) -> str:
    """Return the path of the note that says which adapter a run made; put once."""
    return f"{run_prefix(run_digest)}/RESULT.json"


def adapter_prefix(adapter_digest: str) -> str:
    """Folder of one published adapter."""
    return f"adapters/{hexadecimal(adapter_digest)}"


def model_prefix(digest: str) -> str:
    """Folder of one published model all of whose weights were trained; beside the mirrors of base models."""
    return f"models/{hexadecimal(digest)}"


def artifact_prefix(digest: str, *, full: bool) -> str:
    """Folder of what a run published: a whole model, or an adapter."""
    return model_prefix(digest) if full else adapter_prefix(digest)


def evaluation_data_prefix(data_digest: str) -> str:
    """Rows of an evaluation's tasks as they are asked."""
    return f"evaluations/data/{hexadecimal(data_digest)}"


def evaluation_scores_prefix(scores_digest: str) -> str:
    """What one model made of one task's rows; shared by every evaluation that asks the same."""
    return f"evaluations/scores/{hexadecimal(scores_digest)}"


def evaluation_answers_prefix(answers_digest: str) -> str:
    """Which scores an evaluation's models have, for the stage that judges them."""
    return f"evaluations/answers/{hexadecimal(answers_digest)}"


def evaluation_judgements_prefix(judgements_digest: str) -> str:
    """What one judge said of one task's answers."""
    return f"evaluations/judgements/{hexadecimal(judgements_digest)}"


def evaluation_looks_prefix(rows_digest: str) -> str:
    """Which evaluations have looked at rows."""
    return f"evaluations/looks/{hexadecimal(rows_digest)}"


def evaluation_prefix(evaluation_digest: str) -> str:
    """Report, results and outcome of one evaluation."""
    return f"evaluations/{hexadecimal(evaluation_digest)}"


def sweep_prefix(name: str, uid: str) -> str:
    """Page and trials of one sweep."""
    return f"sweeps/{name}-{uid[:8]}"


def export_prefix(request_digest: str) -> str:
    """Folder of what was made of a base model and an adapter, by what it was made from."""
    return f"exports/{hexadecimal(request_digest)}"
