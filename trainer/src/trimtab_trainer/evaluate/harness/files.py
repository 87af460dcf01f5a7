"""Tasks of lm-evaluation-harness as files in a folder: found, read and checked before weights are loaded. No torch.

A task is the YAML file whose `task:` is its name, the files it includes, and the data files it names, all below one
folder; data files are named from that folder, as the harness takes them when it is started there. Python files in it
are never read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...contract import Reason
from ...errors import SettingsInvalid
from .rules import DATASET_SUFFIXES, SPLITS, check_configuration, metric_names
from .yaml_files import inside, read_yaml, refused, task_files

LISTED = 20
PLAIN_FEATURES = frozenset({"Value", "List", "LargeList", "Sequence", "ClassLabel"})
"""What columns may be; others (Image, Audio, Video, Pdf) are read from wherever their values point to."""


@dataclass(frozen=True)
class HarnessTask:
    """A task that may be run.

    Attributes:
        name: as its YAML file says.
        configuration: keys and values for the harness, includes merged, without dataset_kwargs.
        data_files: of each split, in the task's folder.
        options: what else the reader of its data files takes (field, delimiter).
        metrics: figures of each row, the headline first, and whether less is better. Where there are several filters,
            each metric of each filter: `exact_match_strict_match`.
    """

    name: str
    configuration: dict[str, Any]
    data_files: dict[str, tuple[Path, ...]]
    options: dict[str, str]
    metrics: dict[str, bool]

    @property
    def evaluated_split(self) -> str:
        """The split whose rows are asked: test, or else validation, as the harness has it."""
        return str(self.configuration.get("test_split") or self.configuration["validation_split"])


def read_task(folder: Path, harness_task: str) -> HarnessTask:
    """Return a task of a folder.

    Raises:
        SettingsInvalid: HARNESS_TASK_NOT_FOUND, naming those that are there; HARNESS_TASK_REFUSED, naming file and key
            of what is not run here; METRIC_NOT_APPLICABLE for figures that are no means over rows.
    """
    file = _find(folder, harness_task)
    place = file.relative_to(folder).as_posix()
    config = read_yaml(file, folder)
    check_configuration(config, place)
    config["output_type"] = config.get("output_type") or "generate_until"
    config["metric_list"] = config.get("metric_list") or [{"metric": name} for name in metric_names(config)]
    source = config.pop("dataset_kwargs", None) or {}
    files = _data_files(source.get("data_files"), str(config["dataset_path"]), folder, f"{place}: data_files")
    _check_splits(config, files, place)
    options = {key: value for key, value in source.items() if key != "data_files" and value is not None}
    return HarnessTask(harness_task, config, files, options, _metrics(config, place))


def metric_key(metric: str, filter_name: str, filters: int) -> str:
    """Return the name of a figure: the metric's, and the filter's with it if there are several."""
    return metric if filters <= 1 else f"{metric}_{re.sub(r'[^A-Za-z0-9]+', '_', filter_name)}"


def _metrics(config: dict[str, Any], place: str) -> dict[str, bool]:
    filters = [each["name"] for each in config.get("filter_list") or ({"name": "none"},)]
    found: dict[str, bool] = {}
    for entry in config["metric_list"]:
        for name in filters:
            key = metric_key(entry["metric"], name, len(filters))
            if key in found:
                raise refused(f"{place}: filter_list", f"two filters make {key}; give them names of letters and digits")
            found[key] = entry.get("higher_is_better") is False
    return found


def _find(folder: Path, name: str) -> Path:
    known = task_files(folder)
    files = known.get(name, [])
    if len(files) > 1:
        places = " and ".join(file.relative_to(folder).as_posix() for file in files)
        raise refused(places, f"both say that they are {name}; give one of them another name")
    if files:
        return files[0]
    listed = ", ".join(sorted(known)[:LISTED]) + (f" and {len(known) - LISTED} more" if len(known) > LISTED else "")
    raise SettingsInvalid(
        f"no YAML file in the folder has task: {name}; "
        + (f"there are {listed}; name one of them in harnessTask" if known else "upload the task's YAML file"),
        Reason.HARNESS_TASK_NOT_FOUND,
    )


def _data_files(value: Any, kind: str, folder: Path, place: str) -> dict[str, tuple[Path, ...]]:
    if not value:
        raise refused(place, "dataset_kwargs.data_files is missing; name the data files of the folder")
    by_split = value if isinstance(value, dict) else {"train": value}  # as the datasets library calls them
    found: dict[str, tuple[Path, ...]] = {}
    for split, names in by_split.items():
        found[split] = tuple(
            _data_file(name, kind, folder, f"{place}.{split}")
            for name in (names if isinstance(names, list) else [names])
        )
    return found


def _data_file(name: Any, kind: str, folder: Path, place: str) -> Path:
    file = inside(name, folder, folder, place)
    if file.suffix not in DATASET_SUFFIXES[kind]:
        raise refused(
            place, f"{name} is not {' or '.join(DATASET_SUFFIXES[kind])}, as dataset_path: {kind} asks for; convert it"
        )
    if kind == "parquet":
        _check_columns(file, f"{place} {name}")
    return file


def _check_columns(file: Path, place: str) -> None:
    """Refuse columns that a Parquet file's metadata declares to be media: their values may name other places."""
    import pyarrow
    from pyarrow import parquet

    try:
        metadata = (parquet.read_schema(file).metadata or {}).get(b"huggingface")
        declared = json.loads(metadata) if metadata else {}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise refused(place, f"it cannot be read as Parquet ({error}); write it again") from error
    strange = sorted(_types(declared) - PLAIN_FEATURES)
    if strange:
        raise refused(place, f"it has columns of the type {', '.join(strange)}; leave them out, or write plain values")


def _types(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {str(value["_type"])} if isinstance(value.get("_type"), str) else set()
        return own.union(*map(_types, value.values()))
    return set().union(*map(_types, value)) if isinstance(value, list) else set()


def _check_splits(config: dict[str, Any], files: dict[str, tuple[Path, ...]], place: str) -> None:
    if not config.get("test_split") and not config.get("validation_split"):
        raise refused(place, "neither test_split nor validation_split says which rows to ask; write one of them")
    named = {key: config[key] for key in SPLITS if config.get(key)}
    examples = (config.get("fewshot_config") or {}).get("split")
    for key, split in (named | ({"fewshot_config.split": examples} if examples else {})).items():
        if split not in files:
            raise refused(
                f"{place}: {key}", f"data_files has no split {split}, only {', '.join(sorted(files))}; name one of them"
            )
