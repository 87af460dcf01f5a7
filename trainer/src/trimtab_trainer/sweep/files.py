"""The files of a search: sweep.html and trials.jsonl as they are written, and what a folder says of its runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..contract.curve import Curve
from ..contract.digest import canonical_json
from ..contract.parsing import Unreadable, finite, read_object
from ..contract.sweeps.record import MAXIMUM_RECORDED, RecordedTrial, SweepRecord, read_lines, words_of
from ..contract.sweeps.settings import MAXIMUM_PARAMETERS, TrialState
from ..errors import SettingsInvalid
from ..publishing.result import prefix_of
from ..storage import Store
from ..storage.layout import ADAPTER_METRICS

PAGE, LINES = "sweep.html", "trials.jsonl"
ADAPTERS, MODELS = "adapters/", "models/"


def write(record: SweepRecord, put: Callable[[str, bytes], None]) -> None:
    """Write both files; the page last, so that whoever sees it finds the trials beside it."""
    from .page import render

    put(LINES, record.lines().encode())
    put(PAGE, render(record).encode())


def read_record(file: Path) -> SweepRecord:
    """Return the record in a file, as the operator writes it.

    Raises:
        SettingsInvalid: it is none, or of another version.
    """
    try:
        return SweepRecord.model_validate(read_object(file.read_bytes()))
    except OSError as error:
        raise SettingsInvalid(f"{file}: {error.strerror}; give the record of a sweep with --config") from error
    except ValueError as error:
        raise SettingsInvalid(f"{file} is no record of a sweep: {words_of(error)}") from error


def read_place(store: Store) -> SweepRecord:
    """Return what a place says of a search: its trials.jsonl, or else the adapters that were published there.

    Raises:
        SettingsInvalid: it has neither, or a file that is none; the message names it.
    """
    if store.exists(LINES):
        where = store.address(LINES)
        try:
            objective, trials = read_lines(io.BytesIO(store.read(LINES)), where)
        except Unreadable as error:
            raise SettingsInvalid(str(error)) from error
        return SweepRecord(objective=objective, trials=trials)
    suffix = f"/{ADAPTER_METRICS}"
    every = (each.path for folder in (ADAPTERS, MODELS) for each in store.list(folder))
    found = [path for path in every if path.endswith(suffix) and path.count("/") == 2]
    if not found:
        raise SettingsInvalid(
            f"{store.uri} has no {LINES}, and no {ADAPTERS}*{suffix} or {MODELS}*{suffix}; give the folder of a sweep, "
            "or the output of some runs"
        )
    if len(found) > MAXIMUM_RECORDED:
        raise SettingsInvalid(
            f"{store.uri} has {len(found):,} adapters and models, and at most {MAXIMUM_RECORDED:,} are compared"
        )
    runs = [(path.split("/")[1], _metrics(store, path)) for path in found]
    differing = _differing([each for _, each in runs])
    trials = [
        RecordedTrial(
            id=digest[:8],
            name=digest[:12],
            parameters=parameters,
            state=TrialState.COMPLETE.value,
            value=finite(metrics.get("validationLoss")),
            accelerator_seconds=finite((metrics.get("cost") or {}).get("acceleratorSeconds")),
            curve=curve_of(metrics),
        )
        for (digest, metrics), parameters in zip(runs, differing, strict=True)
    ]
    return SweepRecord(trials=trials, order="of their digests")


def published(store: Store, digest: str) -> dict[str, Any]:
    """Return metrics.json of a published adapter.

    Raises:
        SettingsInvalid: it is no JSON object.
    """
    return _metrics(store, f"{prefix_of(store, digest)}/{ADAPTER_METRICS}")


def _metrics(store: Store, path: str) -> dict[str, Any]:
    try:
        return read_object(store.read(path))
    except Unreadable as error:
        raise SettingsInvalid(f"{store.address(path)}: {error}; delete what is there, or publish it again") from error


def curve_of(metrics: Mapping[str, Any]) -> Curve | None:
    """Return the curves in metrics.json, thinned as in a status; None where there are none that can be drawn."""
    try:
        training, validation = (
            [(int(point["step"]), float(point["loss"])) for point in metrics.get(side) or ()]
            for side in ("curve", "evaluations")
        )
        return Curve.of(training, validation)
    except (TypeError, ValueError, KeyError):
        return None


def _differing(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each run the settings in which it differs from another, by their paths."""
    flat = []
    for metrics in runs:
        settings = metrics.get("settings")
        found = dict(_leaves(settings)) if isinstance(settings, dict) else {}
        for name, digest in (("baseModel", "baseModelDigest"), ("dataset", "dataDigest")):
            if isinstance(metrics.get(digest), str):
                found[name] = metrics[digest].removeprefix("sha256:")[:12]
        flat.append(found)
    names = sorted({name for each in flat for name in each})
    differ = [name for name in names if len({canonical_json(each.get(name)) for each in flat}) > 1]
    return [{name: each.get(name) for name in differ[:MAXIMUM_PARAMETERS]} for each in flat]


def _leaves(value: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, each in value.items():
        where = f"{path}.{key}" if path else key
        found += _leaves(each, where) if isinstance(each, dict) else [(where, each)]
    return found
