"""What one judge said of one task's answers, in object storage under the digest of all that was asked. No torch.

    <output>/evaluations/judgements/<digest>/judgements-*.jsonl    and MANIFEST.json last
    <output>/evaluations/judgements/<digest>/part-*.jsonl          until then: what was said so far

The digest is of the judge and of every word that it was asked, so a task that was judged is not judged again, and who
goes on where another was killed asks what was not answered. An endpoint may say something else when it is asked once
more: what was stored first counts.
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
from ...storage import ObjectDamaged, ObjectMissing, Store, fetch, keep, name_by_hash
from ...storage.layout import evaluation_judgements_prefix, hexadecimal
from .judgements import Judgement

VERSION = "trimtab.dev/judgements/v1"
PART, PART_ENDS = "part-", ".jsonl"


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
    file.write_bytes(_lines(judgements))
    name_by_hash(file)

    def stored() -> list[Judgement] | None:
        found = read_judgements(store, digest, folder, report)
        return found if found is not None and len(found) == len(judgements) else None

    kept = keep(store, prefix, {"version": VERSION, "digest": digest, "judge": judge}, stored, made)
    store.delete([info.path for info in store.list(f"{prefix}/{PART}")])
    return kept


def write_part(store: Store, digest: str, judgements: Sequence[Judgement]) -> None:
    """Store some of a task's judgements, for whoever goes on."""
    if judgements:
        data = _lines(judgements)
        name = f"{PART}{hashlib.sha256(data).hexdigest()}{PART_ENDS}"
        store.put(f"{evaluation_judgements_prefix(digest)}/{name}", data)


def read_parts(
    store: Store, digest: str, asked: Sequence[Judgement], report: Report
) -> dict[tuple[int, str], Judgement]:
    """Return what was stored of some questions before all were answered, by place; what does not verify is left out.

    Raises:
        TrainerError: storage cannot be read.
    """
    prompts, found = {each.place: each.prompt for each in asked}, dict[tuple[int, str], Judgement]()
    for info in store.list(f"{evaluation_judgements_prefix(digest)}/{PART}"):
        try:
            data = store.read(info.path)
            if not info.path.endswith(f"{PART}{hashlib.sha256(data).hexdigest()}{PART_ENDS}"):
                raise ObjectDamaged(f"{store.address(info.path)} is not as it was written")
            part = [Judgement.of(json.loads(line)) for line in data.splitlines()]
        except (ObjectMissing, ObjectDamaged, ValueError, KeyError, TypeError) as error:
            report.warn("some stored judgements do not verify, the judge is asked again", error=str(error))
            continue
        for each in part:
            if prompts.get(each.place) == each.prompt:
                found.setdefault(each.place, each)
    return found


def _lines(judgements: Sequence[Judgement]) -> bytes:
    # ASCII: a text may hold what other programs take for the end of a line.
    lines = (json.dumps(each.to_json(), sort_keys=True, separators=(",", ":")) for each in judgements)
    return "".join(f"{line}\n" for line in lines).encode()
