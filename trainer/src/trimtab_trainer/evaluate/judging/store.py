"""What one judge said of one task's answers, in object storage under the digest of all that was asked. No torch.

    <output>/evaluations/judgements/<digest>/judgements-*.jsonl    and MANIFEST.json last

The digest is of the judge and of every word that it was asked, so a task that was judged is not judged again. An
endpoint may say something else when it is asked once more: what was stored first counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...contract import digest_of
from ...report import Report
from ...storage import (
    MANIFEST,
    FileEntry,
    ObjectDamaged,
    ObjectMissing,
    Store,
    commit,
    fetch,
    read_manifest,
    upload_folder,
)
from ...storage.layout import evaluation_judgements_prefix, hexadecimal
from .judgements import Judgement

VERSION = "trimtab.dev/judgements/v1"


def judgements_digest(judge: dict[str, Any], asked: Sequence[Judgement]) -> str:
    """Return the content address of what a judge says to some questions."""
    words = hashlib.sha256()
    for each in asked:
        words.update(json.dumps([each.number, each.slot, each.prompt.text, each.prompt.options]).encode() + b"\n")
    return digest_of({"version": VERSION, "judge": judge, "asked": f"sha256:{words.hexdigest()}"})


def read_judgements(store: Store, digest: str, folder: Path, report: Report) -> list[Judgement] | None:
    """Return judgements that are stored and verify; None means that the judge is to be asked.

    Raises:
        TrainerError: storage cannot be read.
    """
    target = folder / hexadecimal(digest)
    try:
        manifest = fetch(store, evaluation_judgements_prefix(digest), target)
        if manifest is None:
            return None
        (entry,) = manifest.files
        return [Judgement.of(json.loads(line)) for line in (target / entry.path).read_text().splitlines()]
    except (ObjectMissing, ObjectDamaged, ValueError, KeyError, TypeError) as error:
        report.warn("stored judgements do not verify, the judge is asked again", judgements=digest, error=str(error))
        return None


def write_judgements(  # noqa: PLR0917 all of them in the order that they are needed
    store: Store, digest: str, judge: dict[str, Any], judgements: list[Judgement], folder: Path, report: Report
) -> list[Judgement]:
    """Store judgements, manifest last and once; return those that are stored: another attempt's, if it was first.

    Raises:
        ObjectDamaged: what is stored does not stay as it was written.
        TrainerError: storage failed; nothing half-written is visible.
    """
    prefix = evaluation_judgements_prefix(digest)
    made = folder / f"made-{hexadecimal(digest)}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    file = made / "judgements.jsonl"
    # ASCII: a text may hold what other programs take for the end of a line.
    lines = [json.dumps(each.to_json(), sort_keys=True, separators=(",", ":")) for each in judgements]
    file.write_text("".join(f"{line}\n" for line in lines))
    file.rename(made / f"judgements-{FileEntry.read(file, file.name).sha256[:16]}.jsonl")
    for _ in range(2):
        if not _has_manifest(store, prefix):
            entries = upload_folder(store, made, prefix)
            document = {"version": VERSION, "digest": digest, "judge": judge}
            commit(store, prefix, {**document, "files": [entry.to_json() for entry in entries]})
        stored = read_judgements(store, digest, folder, report)
        if stored is not None and len(stored) == len(judgements):
            return stored
        store.delete([f"{prefix}/{MANIFEST}"])
    raise ObjectDamaged(f"{store.address(prefix)} is not as it was written; check the object storage")


def _has_manifest(store: Store, prefix: str) -> bool:
    try:
        return read_manifest(store, prefix) is not None
    except ObjectDamaged:
        store.delete([f"{prefix}/{MANIFEST}"])
        return False
