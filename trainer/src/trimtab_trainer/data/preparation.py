"""Makes rows from files and a view from rows, each once: what its content address has already is left alone."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import canonical_json, digest_of
from ..errors import DataInvalid
from ..report import Report
from ..storage import ObjectDamaged, ObjectMissing, Store, fetch, store_folder, whole
from ..storage.layout import data_audit_prefix, hexadecimal, rows_prefix, view_prefix
from .choosing.balance import balanced
from .choosing.figures import audit_of
from .choosing.heldout import said
from .choosing.notices import check_dropped, notices_of
from .choosing.selection import LEAKED, TOO_LONG, Selection, select
from .cleaning.overlap import asked_text
from .fitting import as_used
from .making import make_rows
from .page import render
from .request import VIEW_VERSION, Request
from .rows import AUDIT, Rows, read_rows
from .view import CHAT_TEMPLATE, SIDES, TEST_ROWS, TRAIN_CLUSTERS, TRAIN_ROWS, write_side

AUDIT_VERSION = "trimtab.dev/data-audit/v1"
PAGE = "data.html"
GZIP_LEVEL = 3


@dataclass(frozen=True)
class PreparedView:
    """A view that is in place, the figures of its manifest, and where the page of its audit lies."""

    rows_digest: str
    digest: str
    summary: dict[str, Any]
    page: str


def prepare_view(store: Store, request: Request, scratch: Path, report: Report) -> PreparedView:
    """Return the view that is asked for, making what is missing.

    Raises:
        DataInvalid: whatever is wrong with the data.
    """
    rows_digest = request.rows_digest
    folder = scratch / "rows" / hexadecimal(rows_digest)
    manifest = whole(store, rows_prefix(rows_digest))
    about = manifest.document if manifest is not None else _make_rows(store, request, folder, report)
    view_digest = request.view_digest(about["content"])
    audit_digest = _audit_digest(rows_digest, view_digest)
    page = page_uri(store, rows_digest, view_digest)
    view, audit = whole(store, view_prefix(view_digest)), whole(store, data_audit_prefix(audit_digest))
    if view is not None and audit is not None:
        report("view is there already", view=view_digest, rows=rows_digest)
        return PreparedView(rows_digest, view_digest, view.document["summary"] | about["told"], page)

    if not folder.exists() and not _fetched(store, rows_prefix(rows_digest), folder, report):
        about = _make_rows(store, request, folder, report)
    made = _Making(request, read_rows(folder, request.columns.counted), about["told"], scratch)
    summary = made.summary if view is None else view.document["summary"]
    if view is None:
        view_folder = scratch / "made-views" / hexadecimal(view_digest)
        summary = made.write_view(view_folder)
        document = {
            "version": VIEW_VERSION,
            "digest": view_digest,
            "rows": about["content"],
            "choices": request.choices,
            "summary": summary,
        }
        store_folder(store, view_folder, view_prefix(view_digest), document)
        report("view is in place", view=view_digest)
    audit_folder = scratch / "made-audits" / hexadecimal(audit_digest)
    made.write_audit(audit_folder, view_digest, summary, json.loads((folder / AUDIT).read_bytes()))
    store_folder(
        store, audit_folder, data_audit_prefix(audit_digest), {"version": AUDIT_VERSION, "digest": audit_digest}
    )
    report("audit is in place", page=page)
    return PreparedView(rows_digest, view_digest, summary | about["told"], page)


def page_uri(store: Store, rows_digest: str, view_digest: str) -> str:
    """Return where the page of a view of rows lies."""
    return store.address(f"{data_audit_prefix(_audit_digest(rows_digest, view_digest))}/{PAGE}")


def _audit_digest(rows_digest: str, view_digest: str) -> str:
    return digest_of({"version": AUDIT_VERSION, "rows": rows_digest, "view": view_digest})


def _make_rows(store: Store, request: Request, folder: Path, report: Report) -> dict[str, Any]:
    about = make_rows(store, request, folder, report)
    report("rows are in place", rows=request.rows_digest)
    return about


def _fetched(store: Store, prefix: str, folder: Path, report: Report) -> bool:
    """Download rows that are in storage; damaged or missing files mean that they are made again."""
    try:
        return fetch(store, prefix, folder) is not None
    except (ObjectMissing, ObjectDamaged) as error:
        report.warn("stored rows do not verify, they are made again", prefix=prefix, error=str(error))
        shutil.rmtree(folder, ignore_errors=True)
        return False


class _Making:
    """Makes a view and its audit from rows."""

    def __init__(self, request: Request, rows: Rows, told: dict[str, Any], scratch: Path) -> None:
        self._request, self._rows, self._told = request, rows, told
        asked = _asked(request) if request.asked else None
        self._selection = select(rows, request.dataset, request.training, asked, scratch / "bands")
        self.summary = _summary(self._selection, told, request.training.method.answers)
        check_dropped(rows, self._selection, self.summary, told, request)

    def write_view(self, folder: Path) -> dict[str, Any]:
        """Write a view's files; return the summary of its manifest."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows, request, selection = self._rows, self._request, self._selection
        summary = dict(self.summary)
        for side in SIDES:
            fitted, weights = selection.sides[side], None
            if side == "train" and request.dataset.balance is not None:
                balance = balanced(rows, fitted, request.dataset.balance, request.training.method.answers)
                fitted, weights, summary["balance"] = balance.fitted, balance.weights, balance.done
            summary[side] = write_side(folder, side, rows, fitted, request.training, weights=weights)
            if side == "validation" and len(fitted.rows):
                summary[side] |= said(rows, fitted, request.training.loss_on).to_json()
            if len(fitted.rows) and not summary[side]["supervisedTokens"]:
                raise DataInvalid(f"no token of the {side} side is learned; check the answers")
        summary["largestToken"] = rows.largest_token
        summary["trainClusters"] = {"path": TRAIN_CLUSTERS, "count": self._write_clusters(folder / TRAIN_CLUSTERS)}
        self._write_train(folder / TRAIN_ROWS)
        self._write_test(folder / TEST_ROWS)
        if request.chat_template is not None:
            (folder / CHAT_TEMPLATE).write_text(request.chat_template)
        return summary | {"notices": notices_of(rows, selection, summary, self._told, request)}

    def write_audit(self, folder: Path, view_digest: str, summary: dict[str, Any], findings: dict[str, Any]) -> None:
        """Write audit.json and data.html; `findings` is audit.json of the rows."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        request, selection = self._request, self._selection
        rows = as_used(self._rows, selection.sides.values(), request.training.loss_on)
        audit = audit_of(rows, selection, request, self._told, summary) | {"view": view_digest}
        (folder / AUDIT).write_bytes(canonical_json(audit))
        (folder / PAGE).write_text(render(audit, findings, rows, selection, request))

    def _write_clusters(self, file: Path) -> int:
        chosen = np.unique(
            np.concatenate((self._selection.sides["train"].rows, self._selection.sides["train"].dropped))
        )
        keys = np.concatenate((self._rows.answers[chosen], self._rows.groups[chosen]))
        names = sorted({key.tobytes().hex() for key in keys[keys.any(axis=1)]})
        file.write_text("".join(f"{name}\n" for name in names))
        return len(names)

    def _write_train(self, file: Path) -> None:
        """Write the rows that are trained on; the same rows give the same bytes."""
        with file.open("wb") as opened, gzip.GzipFile("", "wb", GZIP_LEVEL, opened, mtime=0) as zipped:
            zipped.writelines(self._lines("train"))

    def _write_test(self, file: Path) -> None:
        lines = [*self._lines("test")]
        if lines:
            with file.open("wb") as opened:
                opened.writelines(lines)

    def _lines(self, name: str) -> Iterator[bytes]:
        side = self._selection.sides[name]
        chosen = self._rows.in_order(self._rows.heads(np.concatenate((side.rows, side.dropped))))
        return (self._rows.line(row) for row in chosen.tolist())


def _summary(selection: Selection, told: dict[str, Any], answers: int) -> dict[str, Any]:
    dropped = {reason: len(rows) // answers for reason, rows in selection.dropped.items()}
    return {
        "cleaned": told["cleaned"],
        "leaked": dropped[LEAKED],
        "droppedFor": dropped,
        "dropped": told["cleaned"] + sum(dropped.values()),
        "tooLong": dropped[TOO_LONG],
    }


def _asked(request: Request) -> Iterator[str]:
    return (asked_text(record.value) for source in request.asked for record in source.records())
