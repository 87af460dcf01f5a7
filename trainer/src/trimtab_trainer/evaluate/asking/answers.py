"""What an evaluation's models answered, for the stage that judges it without any model. No torch.

    <output>/evaluations/answers/<digest>/MANIFEST.json

It names the scores of every side and task, which lie where `score_store` has put them, and tells of the models what
results say of them. The digest is of all that, so what was handed over stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract import digest_of
from ...errors import AnswersMissing
from ...report import Report
from ...storage import ObjectDamaged, Store, keep, read_manifest
from ...storage.layout import evaluation_answers_prefix
from ..results import EvaluatedModel
from .score_store import TaskScores, read_scores

VERSION = "trimtab.dev/answers/v1"


@dataclass(frozen=True)
class Answers:
    """What models answered.

    Attributes:
        scores: of every side and task, by role and name.
        stored: the digests under which these lie in storage, likewise.
        models: by role.
        lineage: what decided the answers.
    """

    scores: dict[tuple[str, str], TaskScores]
    stored: dict[tuple[str, str], str]
    models: dict[str, EvaluatedModel]
    lineage: dict[str, Any]


def write_answers(store: Store, evaluation_digest: str, answers: Answers) -> str:
    """Put down which scores are an evaluation's; return the digest by which `read_answers` finds them.

    Raises:
        TrainerError: storage failed.
    """
    document = {
        "version": VERSION,
        "evaluation": evaluation_digest,
        "scores": [[role, task, digest] for (role, task), digest in sorted(answers.stored.items())],
        "models": {role: model.to_json() for role, model in answers.models.items()},
        "lineage": answers.lineage,
    }
    digest = digest_of(document)
    keep(store, evaluation_answers_prefix(digest), document, lambda: _document(store, digest))
    return digest


def read_answers(store: Store, answers_digest: str, folder: Path, report: Report) -> Answers:
    """Return answers with their scores, all verified.

    Raises:
        AnswersMissing: something of them is not there, or not as it was written: the models are to be asked again.
        TrainerError: storage cannot be read.
    """
    document = _document(store, answers_digest)
    if document is None:
        where = store.address(evaluation_answers_prefix(answers_digest))
        raise AnswersMissing(f"{where} is not there, or not as it was written; the models are asked again")
    stored = {(role, task): digest for role, task, digest in document["scores"]}
    scores = {}
    for (role, task), digest in stored.items():
        found = read_scores(store, digest, folder, report)
        if found is None:
            raise AnswersMissing(f"the answers of the {role} to task {task} are not there; the models are asked again")
        scores[role, task] = found
    models = {role: EvaluatedModel.model_validate(model) for role, model in document["models"].items()}
    return Answers(scores, stored, models, document["lineage"])


def _document(store: Store, digest: str) -> dict[str, Any] | None:
    """Return what answers have in their manifest, None if it is not there or not as it was written."""
    try:
        manifest = read_manifest(store, evaluation_answers_prefix(digest))
    except ObjectDamaged:
        return None
    if manifest is None:
        return None
    document = {name: value for name, value in manifest.document.items() if name != "files"}
    return document if digest_of(document) == digest else None
