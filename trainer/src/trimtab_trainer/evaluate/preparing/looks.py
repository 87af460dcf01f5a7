"""Which evaluations have looked at rows: each makes the next verdict on them a little luckier. No torch.

    <output>/evaluations/looks/<digest of the rows>/<digest of the evaluation>.json     one empty object a look
    <output>/evaluations/looks/<digest of the rows>/FINAL                               by whom a final set was opened

The objects are the record: they outlive the Evaluations, need no database, and one question counts once however often
it is asked. The digest is of what rows say, whichever model is asked and in whatever order they stand.
"""

from __future__ import annotations

import hashlib
import json

from ...contract import EvaluationTask, Reason, TaskType
from ...errors import DataInvalid
from ...storage import Store
from ...storage.layout import evaluation_looks_prefix, hexadecimal
from .task_store import PreparedTask, PreparedTasks

FINAL = "FINAL"


def note_looks(
    store: Store, evaluation_digest: str, tasks: list[EvaluationTask], prepared: PreparedTasks
) -> dict[str, int]:
    """Note that an evaluation looks at the rows of its tasks; return how many did by now, this one included, by task.

    Raises:
        DataInvalid: FINAL_SET_OPENED, another evaluation has seen rows that are to be seen once.
        TrainerError: storage failed.
    """
    found = {}
    for task, about in zip(tasks, prepared.tasks, strict=True):
        prefix = evaluation_looks_prefix(rows_digest(task, about, prepared))
        own = f"{hexadecimal(evaluation_digest)}.json"
        if task.dataset.final:
            _open(store, prefix, own, task)
        store.put_once(f"{prefix}/{own}", b"{}\n")
        found[task.name] = len(_seen(store, prefix) | {own})
    return found


def rows_digest(task: EvaluationTask, about: PreparedTask, prepared: PreparedTasks) -> str:
    """Return the digest of what a task's rows say; of a Harness task that of its files."""
    if task.type is TaskType.HARNESS:
        return about.digest
    said = sorted(
        json.dumps([row.prompt, row.reference, row.choices], ensure_ascii=False) for row in prepared.rows(task.name)
    )
    return f"sha256:{hashlib.sha256(chr(10).join(said).encode()).hexdigest()}"


def _open(store: Store, prefix: str, own: str, task: EvaluationTask) -> None:
    """Open a final set, for this evaluation alone; two that come at once do not both open it."""
    seen = _seen(store, prefix)
    fresh = own in seen or not seen
    if fresh:
        store.put_once(f"{prefix}/{FINAL}", own.encode())
        fresh = store.read(f"{prefix}/{FINAL}").decode(errors="replace") == own
    if not fresh:
        raise DataInvalid(
            f"task {task.name}: its rows are final, to be seen by one evaluation; {max(len(seen - {own}), 1)} other "
            "saw them; take rows that none has seen, or remove dataset.final",
            Reason.FINAL_SET_OPENED,
        )


def _seen(store: Store, prefix: str) -> set[str]:
    return {info.path.rpartition("/")[2] for info in store.list(prefix) if info.path.endswith(".json")}
