"""Makes the rows folder of a data set: records are cleaned, tokenised and written part by part, each stored at once."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import canonical_json, digest_of
from ..errors import DataInvalid
from ..report import Report
from ..storage import FileEntry, Store, commit
from ..storage.layout import rows_prefix
from .cleaning.steps import (
    CONTROL,
    EXAMPLES,
    FINDINGS,
    FORMAT,
    IGNORED,
    NAMES,
    OVERSIZED,
    PARTED,
    UNLIKE_PROMPTS,
    VOCABULARY,
    Audit,
    Cleaner,
)
from .parts import PartWriter
from .request import ROWS_VERSION, Request
from .rows import AUDIT, SOURCES, Rows, read_rows
from .tokenising import blocks, tokenising

COUNTED = (*FINDINGS.values(), OVERSIZED, NAMES)


def make_rows(store: Store, request: Request, folder: Path, report: Report) -> dict[str, Any]:
    """Write the rows of all sources into a folder and under their content address; return their manifest.

    What of them is in the store already, because the one who made them was killed, is not made again.

    Raises:
        DataInvalid: whatever is wrong with the data.
    """
    dataset, sources, prefix = request.dataset, request.sources, rows_prefix(request.rows_digest)
    shutil.rmtree(folder, ignore_errors=True)
    ignore = frozenset(dataset.ignore_keys)
    detected = request.detected()
    report("format of the rows", format=detected.format.value, why=detected.why)
    audits: dict[str, Audit] = {}
    entries: list[FileEntry] = []
    tokenizer = request.tokenizer()
    with tokenising(tokenizer, request.tokenizer) as tokenise:
        for name, source in sources.items():
            writer = PartWriter(store, prefix, folder, name)
            seen = writer.resume(report)
            cleaner = Cleaner(detected, request.cleaning, request.columns, ignore, seen=seen, read=writer.audit.read)
            records = islice(source.records(), writer.audit.read, None)
            writer.write(blocks(records, cleaner, tokenise))
            cleaner.check(writer.audit, source.uri)
            audits[name] = audit = writer.audit
            entries.extend(writer.entries)
            ignored = {column: finding.count for column, finding in audit.ignored.items()}
            report(
                "rows tokenised", source=name, read=audit.read, kept=writer.rows, dropped=audit.dropped, ignored=ignored
            )
            if not writer.rows:
                raise DataInvalid(
                    f"none of the {audit.read} rows of {source.uri} has a token that is learned, the first is "
                    f"{audit.unsupervised.places[0]}; check the answers and the chat template"
                )
    said = {FORMAT: {"name": detected.format.value, "why": detected.why}}
    told = {name: audit.to_json() | said for name, audit in audits.items()}
    (folder / AUDIT).write_bytes(canonical_json(told))
    entry = store.upload(folder / AUDIT, f"{prefix}/{AUDIT}")
    entries.append(FileEntry(AUDIT, entry.size, entry.sha256))
    document = {
        "version": ROWS_VERSION,
        "digest": request.rows_digest,
        "content": content_digest(read_rows(folder), told),
        "told": told_of(told) | {VOCABULARY: tokenizer.vocabulary().to_json()},
        "files": [each.to_json() for each in sorted(entries)],
    }
    commit(store, prefix, document)
    return document


def content_digest(rows: Rows, audits: dict[str, Any]) -> str:
    """Return the digest of what was read and kept: the same for any order of rows and any division into files."""
    contents: dict[str, Any] = {}
    for number, name in enumerate(SOURCES):
        own = np.flatnonzero((rows.source == number) & rows.first)
        identities = rows.identities[rows.in_order(own)]
        contents[name] = hashlib.sha256(identities.tobytes()).hexdigest()
    counts = {
        name: {"rowsRead": audit["rowsRead"], **{key: audit[key]["count"] for key in COUNTED if key in audit}}
        for name, audit in audits.items()
    }
    return digest_of({"rows": contents, "counts": counts})


def told_of(audits: dict[str, Any]) -> dict[str, Any]:
    """Return of all audits together what a person is told."""
    ignored: Counter[str] = Counter()
    for audit in audits.values():
        ignored.update({column: finding["count"] for column, finding in audit[IGNORED].items()})
    together = {name: _together(audit[name] for audit in audits.values()) for name in (CONTROL, PARTED)}
    cleaned = {
        key: sum(found) for key in COUNTED if (found := [each[key]["count"] for each in audits.values() if key in each])
    }
    read = sum(audit["rowsRead"] for audit in audits.values())
    kept = sum(audit["rowsKept"] for audit in audits.values())
    return {
        IGNORED: dict(ignored),
        FORMAT: audits["training"][FORMAT],
        **together,
        **_unlike(audits),
        "rowsRead": read,
        "cleaned": read - kept,
        "findings": cleaned,
    }


def _unlike(audits: dict[str, Any]) -> dict[str, Any]:
    found = [audit[UNLIKE_PROMPTS] for audit in audits.values() if UNLIKE_PROMPTS in audit]
    return {UNLIKE_PROMPTS: _together(found)} if found else {}


def _together(findings: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how many rows of all sources have some trouble, and where the first ones stand."""
    found = list(findings)
    return {
        "count": sum(each["count"] for each in found),
        "examples": list(chain.from_iterable(each["examples"] for each in found))[:EXAMPLES],
    }
