"""What one model made of one task, in object storage under the digest of all that decides it. No torch.

    <output>/evaluations/scores/<digest>/{scores-*.jsonl,rows-*.jsonl}    and MANIFEST.json last

Scores are written as a task finishes. An evaluation that was killed goes on at the next task, and evaluations that ask
a model the same (a baseline is asked again and again) share the answers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract import EvaluationTask, QuantizationSettings, TaskType, digest_of
from ...contract.evaluation import EVALUATION_VERSION
from ...contract.settings import QuantizationType
from ...report import Report
from ...storage import ObjectDamaged, ObjectMissing, Store, fetch, keep, name_by_hash
from ...storage.layout import evaluation_scores_prefix, hexadecimal
from ..rows import EvaluationRow, RowScore, read_lines, write_lines


@dataclass(frozen=True)
class ScoresKey:
    """One task and one model: everything that decides the scores.

    Attributes:
        task: digest of the rows as they are asked, and how.
        base_model: its digest.
        adapter: its digest; None is the base model alone.
        quantization: of the base model; only what is in force counts.
        compute_type: of the matrix products, as torch names it, such as bfloat16.
        seed: of what is drawn; None where nothing is.
        generated: answers were written, whose tokens are counted.
        timed: of answers that are timed the evaluation and the machine: nobody else shares their seconds.
        engine: name and version of what wrote the answers, where that is not our own loop.
    """

    task: str
    base_model: str
    adapter: str | None
    quantization: QuantizationSettings
    compute_type: str
    seed: int | None
    generated: bool = False
    timed: dict[str, str] | None = None
    engine: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object; the batch size, the device and names are no part of it."""
        scheme: dict[str, Any] = {"type": self.quantization.type.value}
        if self.quantization.type is not QuantizationType.NONE:
            scheme["doubleQuantization"] = self.quantization.double_quantization
        return {
            "contract": EVALUATION_VERSION,
            "task": self.task,
            "baseModel": self.base_model,
            "adapter": self.adapter,
            "quantization": scheme,
            "computeType": self.compute_type,
            "seed": self.seed,
            # What was written before tokens were counted lies elsewhere.
            **({"counted": "tokens"} if self.generated else {}),
            **({"timed": self.timed} if self.timed is not None else {}),
            **({"engine": self.engine} if self.engine is not None else {}),
        }

    @property
    def digest(self) -> str:
        """Return the content address of the scores."""
        return digest_of(self.to_json())


@dataclass(frozen=True)
class TaskScores:
    """What a model made of a task.

    Attributes:
        rows: of a Harness task, whose rows are known only when it has been run.
        scores: one a row, in their order.
        lower_is_better: of a Harness task, its metrics in their order.
    """

    scores: list[RowScore]
    rows: list[EvaluationRow] | None = None
    lower_is_better: dict[str, bool] | None = None


def seed_of(task: EvaluationTask, seed: int) -> int | None:
    """Return the seed if it changes the answers to a task."""
    drawn = bool(task.temperature) or task.type is TaskType.HARNESS
    return seed if drawn else None


def read_scores(store: Store, digest: str, folder: Path, report: Report) -> TaskScores | None:
    """Return the scores if they are stored and every byte of them verifies; None means that they are to be made.

    Raises:
        TrainerError: storage cannot be read.
    """
    prefix = evaluation_scores_prefix(digest)
    target = folder / hexadecimal(digest)
    try:
        manifest = fetch(store, prefix, target)
        if manifest is None:
            return None
        files = {entry.path.partition("-")[0]: target / entry.path for entry in manifest.files}
        return TaskScores(
            scores=read_lines(files["scores"], RowScore),
            rows=read_lines(files["rows"], EvaluationRow) if "rows" in files else None,
            lower_is_better=dict(manifest.document["lowerIsBetter"]) if "lowerIsBetter" in manifest.document else None,
        )
    except (ObjectMissing, ObjectDamaged, ValueError, KeyError, TypeError) as error:
        report.warn("stored scores do not verify, they are made again", scores=digest, error=str(error))
        return None


def write_scores(store: Store, key: ScoresKey, scores: TaskScores, folder: Path, report: Report) -> TaskScores:
    """Store the scores, manifest last and once; return those that are stored: another attempt's, if it was first.

    Raises:
        ObjectDamaged: what is stored does not stay as it was written.
        TrainerError: storage failed; nothing half-written is visible.
    """
    made = folder / f"made-{key.digest.removeprefix('sha256:')}"
    shutil.rmtree(made, ignore_errors=True)
    _write(made, "scores", scores.scores)
    if scores.rows is not None:
        _write(made, "rows", scores.rows)
    document: dict[str, Any] = {"asked": key.to_json(), "digest": key.digest}
    if scores.lower_is_better is not None:
        # A list, for canonical JSON would sort the metrics.
        document["lowerIsBetter"] = [[name, less] for name, less in scores.lower_is_better.items()]

    def stored() -> TaskScores | None:
        found = read_scores(store, key.digest, folder, report)
        return found if found is not None and len(found.scores) == len(scores.scores) else None

    return keep(store, evaluation_scores_prefix(key.digest), document, stored, made)


def _write(folder: Path, name: str, lines: list[RowScore] | list[EvaluationRow]) -> None:
    file = folder / f"{name}.jsonl"
    write_lines(file, lines)
    name_by_hash(file)
