"""The `track` stage: reads what a run has published, and tells a tracker. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..contract import TrackingRecord
from ..contract.parsing import Unreadable, read_object
from ..contract.sweeps.record import words_of
from ..errors import SettingsInvalid
from ..publishing.result import prefix_of
from ..report import Report
from ..storage import ObjectDamaged, ObjectMissing, Store, open_store, read_manifest
from ..storage.layout import ADAPTER_METRICS
from .figures import told_of
from .mlflow import Mlflow
from .trackio import Trackio


def read_tracking(file: Path) -> TrackingRecord:
    """Return the record in a file, as the operator writes it.

    Raises:
        SettingsInvalid: it is none, or of another version.
    """
    try:
        return TrackingRecord.model_validate(read_object(file.read_bytes()))
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}; give the record of a run with --config") from error
    except ValueError as error:
        raise SettingsInvalid(f"{file} is no record of a run: {words_of(error)}") from error


def track(record: TrackingRecord, report: Report) -> str:
    """Tell the tracker of a run; return what there is to say of it.

    Raises:
        SettingsInvalid: tracker or output cannot be used as the record says.
        StorageFailed: one of them does not answer.
    """
    metrics: dict[str, Any] = {}
    if record.adapter is not None:
        metrics = read_metrics(open_store(record.output.uri, record.output.credentials), record.adapter, report)
    told = told_of(record, metrics)
    tracker = Mlflow(record.mlflow) if record.mlflow is not None else Trackio(record.the_trackio)
    try:
        page = tracker.tell(record, told)
    finally:
        tracker.close()
    report("tracked", page=page, metrics=len(told.metrics), parameters=len(told.parameters))
    return f"told {len(told.metrics)} values and {len(told.parameters)} parameters to {page}"


def read_metrics(store: Store, adapter: str, report: Report) -> dict[str, Any]:
    """Return metrics.json of a published adapter, nothing with a warning where it is not as its manifest says."""
    prefix = prefix_of(store, adapter)
    path = f"{prefix}/{ADAPTER_METRICS}"
    try:
        manifest = read_manifest(store, prefix)
        entries = manifest.files if manifest is not None else ()
        data = store.read(path)
        if hashlib.sha256(data).hexdigest() not in {each.sha256 for each in entries if each.path == ADAPTER_METRICS}:
            raise ObjectDamaged(f"{store.address(path)} is not what its manifest says")
        return read_object(data)
    except (ObjectMissing, ObjectDamaged, Unreadable) as error:
        report.warn("figures of the adapter cannot be read, those of the status are told", error=str(error))
        return {}
