"""Makes rows from files and a view from rows, each once: what its content address has already is left alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import Reason, StoredDataset, TrainingSettings, canonical_json, digest_of
from ..errors import DataInvalid
from ..report import Report
from ..storage import FileEntry, ObjectDamaged, ObjectMissing, Store, fetch, store_folder, whole
from ..storage.layout import hexadecimal, rows_prefix, view_prefix
from .cleaning import CONTROL, EXAMPLES, FORMAT, IGNORED, PARTED, VOCABULARY, Audit, clean
from .clusters import connect
from .formats import resolve
from .rows import SOURCES, RowsWriter, join_rows, read_audit, read_lines, read_rows, write_audit
from .source import Source
from .split import Sides, split
from .tokens import RowTokenizer
from .view import CHAT_TEMPLATE, SIDES, TEST_ROWS, TRAIN_CLUSTERS, write_side

ROWS_VERSION = "trimtab.dev/rows/v2"
VIEW_VERSION = "trimtab.dev/view/v1"
TOKENS = "tokens.json"


@dataclass(frozen=True)
class PreparedView:
    """A view that is in place, and the figures of its manifest."""

    rows_digest: str
    digest: str
    summary: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What a view is to be made of; `tokenizer` is called only when rows have to be tokenised.

    `chat_template` is the one to use instead of the base model's, which `tokenizer` has by then.
    """

    sources: dict[str, Source]
    tokenizer_files: tuple[FileEntry, ...]
    tokenizer: Callable[[], RowTokenizer]
    dataset: StoredDataset
    training: TrainingSettings
    chat_template: str | None = None


def prepare_view(store: Store, request: Request, scratch: Path, report: Report) -> PreparedView:
    """Return the view that is asked for, making what is missing.

    Raises:
        DataInvalid: whatever is wrong with the data.
    """
    dataset, training = request.dataset, request.training
    rows_digest = digest_of(
        {
            "version": ROWS_VERSION,
            "format": dataset.format.value,
            "sources": {name: [entry.to_json() for entry in source.files] for name, source in request.sources.items()},
            "tokenizer": [entry.to_json() for entry in sorted(request.tokenizer_files)],
            "ignoreKeys": sorted(dataset.ignore_keys),
            "chatTemplate": request.chat_template,
        }
    )
    view_digest = digest_of({"version": VIEW_VERSION, "rows": rows_digest, **_choices(dataset, training)})
    manifest = whole(store, view_prefix(view_digest))
    if manifest is not None:
        report("view is there already", view=view_digest, rows=rows_digest)
        return PreparedView(rows_digest, view_digest, manifest.document["summary"])

    folder = scratch / "rows" / hexadecimal(rows_digest)
    if not _fetched(store, rows_prefix(rows_digest), folder, report):
        _make_rows(folder, request, report)
        store_folder(store, folder, rows_prefix(rows_digest), {"version": ROWS_VERSION, "digest": rows_digest})
        report("rows are in place", rows=rows_digest)
    view_folder = scratch / "made-views" / hexadecimal(view_digest)
    audits = read_audit(folder)
    summary = _make_view(view_folder, folder, dataset, training) | _told(audits)
    summary[VOCABULARY] = json.loads((folder / TOKENS).read_bytes())
    if request.chat_template is not None:
        (view_folder / CHAT_TEMPLATE).write_text(request.chat_template)
    store_folder(
        store,
        view_folder,
        view_prefix(view_digest),
        {
            "version": VIEW_VERSION,
            "digest": view_digest,
            "rows": rows_digest,
            "choices": _choices(dataset, training),
            "summary": summary,
        },
    )
    report("view is in place", view=view_digest)
    return PreparedView(rows_digest, view_digest, summary)


def _choices(dataset: StoredDataset, training: TrainingSettings) -> dict[str, Any]:
    """Return what makes one view differ from another of the same rows; uris are in the rows' digest by content."""
    validation = dataset.validation.to_json() if dataset.validation else None
    test = dataset.test.to_json() if dataset.test else None
    for side in (validation, test):
        if side is not None and "uri" in side:
            side["uri"] = "its own"
    return {
        "validation": validation,
        "test": test,
        "splitSeed": dataset.split_seed,
        "maxSequenceLength": training.max_sequence_length,
        "packing": training.packing,
        "lossOn": training.loss_on.value,
    }


def _make_rows(folder: Path, request: Request, report: Report) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, sources, ignore = request.tokenizer(), request.sources, frozenset(request.dataset.ignore_keys)
    audits = {}
    detected = resolve(request.dataset.format, sources["training"].records(), ignore)
    report("format of the rows", format=detected.format.value, why=detected.why)
    for name, source in sources.items():
        audit = audits[name] = Audit()
        writer = RowsWriter(folder, name)
        writer.write(tokenizer.tokenise(clean(source.records(), detected, audit, source.uri, ignore)), audit)
        ignored = {column: finding.count for column, finding in audit.ignored.items()}
        report("rows tokenised", source=name, read=audit.read, kept=writer.rows, dropped=audit.dropped, ignored=ignored)
        if not writer.rows:
            raise DataInvalid(
                f"none of the {audit.read} rows of {source.uri} has a token that is learned, the first is "
                f"{audit.unsupervised.places[0]}; check the answers and the base model's chat template"
            )
    write_audit(folder, audits, detected)
    (folder / TOKENS).write_bytes(canonical_json(tokenizer.vocabulary().to_json()))


def _told(audits: dict[str, Any]) -> dict[str, Any]:
    """Return of all audits together what a person is told."""
    ignored: Counter[str] = Counter()
    for audit in audits.values():
        ignored.update({column: finding["count"] for column, finding in audit[IGNORED].items()})
    together = {name: _together(audit[name] for audit in audits.values()) for name in (CONTROL, PARTED)}
    return {IGNORED: dict(ignored), FORMAT: audits["training"][FORMAT], **together}


def _together(findings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how many rows of all sources have some trouble, and where the first ones stand."""
    found = list(findings)
    return {
        "count": sum(each["count"] for each in found),
        "examples": list(chain.from_iterable(each["examples"] for each in found))[:EXAMPLES],
    }


def _make_view(folder: Path, rows_folder: Path, dataset: StoredDataset, training: TrainingSettings) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = [read_rows(rows_folder, name) for name in SOURCES]
    rows = join_rows(parts)
    clusters = connect((key.tobytes() for key in rows.answers), (key.tobytes() for key in rows.groups))
    source = np.repeat(np.arange(len(SOURCES), dtype=np.int8), [len(part) for part in parts])
    sides = split(clusters, source, dataset)
    summary: dict[str, Any] = {}
    for side, chosen in zip(SIDES, (sides.training, sides.validation, sides.test), strict=True):
        summary[side] = write_side(folder, side, rows, chosen, training)
        if len(chosen) and not summary[side]["rows"]:
            lengths = np.diff(rows.offsets)[chosen]
            raise DataInvalid(
                f"all {len(chosen)} rows of the {side} side are longer than training.maxSequenceLength = "
                f"{training.max_sequence_length} tokens: the shortest has {lengths.min()}, the median "
                f"{int(np.median(lengths))}, the longest {lengths.max()}; raise it, or shorten the rows",
                Reason.DATASET_EMPTY,
            )
        if len(chosen) and not summary[side]["supervisedTokens"]:
            raise DataInvalid(f"no token of the {side} side is learned; check the answers")
    summary["largestToken"] = int(rows.tokens.max())
    kept = np.concatenate((rows.answers[sides.training], rows.groups[sides.training]))
    keys = sorted({key.tobytes().hex() for key in kept[kept.any(axis=1)]})
    (folder / TRAIN_CLUSTERS).write_text("".join(f"{key}\n" for key in keys))
    if len(sides.test):
        held_out = np.isin(np.arange(len(rows)), sides.test)[rows.first]
        lines = chain.from_iterable(read_lines(rows_folder, name) for name in SOURCES)
        with (folder / TEST_ROWS).open("wb") as file:
            file.writelines(compress(lines, held_out))
    return _summary(summary, read_audit(rows_folder), sides, len(keys))


def _summary(figures: dict[str, Any], audits: dict[str, Any], sides: Sides, clusters: int) -> dict[str, Any]:
    cleaned = sum(audit["rowsRead"] - audit["rowsKept"] for audit in audits.values())
    too_long = sum(figures[side]["tooLong"] for side in SIDES)
    return {
        **figures,
        "cleaned": cleaned,
        "leaked": sides.leaked,
        "dropped": cleaned + sides.leaked + too_long,
        "trainClusters": {"path": TRAIN_CLUSTERS, "count": clusters},
    }


def _fetched(store: Store, prefix: str, folder: Path, report: Report) -> bool:
    """Download rows that are in storage; damaged or missing files mean that they are made again."""
    if whole(store, prefix) is None:
        return False
    try:
        return fetch(store, prefix, folder) is not None
    except (ObjectMissing, ObjectDamaged) as error:
        report.warn("stored rows do not verify, they are made again", prefix=prefix, error=str(error))
        return False
