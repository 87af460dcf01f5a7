"""Tasks that lm-evaluation-harness brings, by name: read from a catalogue, their data from a copy of their data set.

The catalogue is made of the pinned harness's own YAML files, by `deploy.harness_tasks`; what would run Python is in it
by name and reason alone. A task and the data files that it asks become a folder as people write them, so whatever comes
after treats both alike. No torch, no lm_eval.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from ...contract import EvaluationTask, HubSource, Reason
from ...errors import DataInvalid, SettingsInvalid
from .rules import DATASET_SUFFIXES, MEANS, SPLITS, check_configuration, metric_names

CATALOGUE = "builtin.json.xz"
DATA = "data"
TASK_FILE = "task.yaml"
PLAIN_KINDS = ("parquet", "json", "csv")
"""How data files may be written, the first that has all splits is taken."""
ALIKE = 8


@dataclass(frozen=True)
class Builtin:
    """A task of the harness.

    Attributes:
        name: as the harness has it.
        configuration: of its YAML, includes merged; its dataset_path is a repository of a hub.
        left_out: metrics of its YAML that are no means over rows.
    """

    name: str
    configuration: dict[str, Any]
    left_out: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """The repository of the hub that has its data, `org/name`."""
        return str(self.configuration["dataset_path"])

    @property
    def subset(self) -> str | None:
        """The part of that data set, which a hub calls its configuration."""
        found: str | None = self.configuration.get("dataset_name")
        return found

    @property
    def splits(self) -> frozenset[str]:
        """The splits that it reads, to ask and for examples."""
        return splits_of(self.configuration)


def splits_of(configuration: dict[str, Any]) -> frozenset[str]:
    """Return the splits that a configuration names."""
    examples = (configuration.get("fewshot_config") or {}).get("split")
    named = {configuration[key] for key in SPLITS if configuration.get(key)}
    return frozenset(named | ({examples} if examples else set()))


@cache
def catalogue() -> dict[str, Any]:
    """Return what is known of the harness's tasks.

    Keys: `version` of the harness; `tasks`, their configurations by name; `leftOut`, metrics by task; `refused`,
    reasons by the name of a task, a group or a tag.
    """
    data = resources.files(__package__).joinpath(CATALOGUE).read_bytes()
    found: dict[str, Any] = json.loads(lzma.decompress(data))
    return found


def builtin_task(name: str) -> Builtin:
    """Return a task of the harness.

    Raises:
        SettingsInvalid: HARNESS_TASK_NOT_FOUND, with names that are alike; HARNESS_TASK_REFUSED, with the reason.
    """
    known = catalogue()
    if name in known["tasks"]:
        return Builtin(name, known["tasks"][name], tuple(known["leftOut"].get(name, ())))
    if name in known["refused"]:
        raise SettingsInvalid(
            f"builtin {name}: {known['refused'][name]}; write it as a YAML file of your own without that, and name it "
            "by harnessTask",
            Reason.HARNESS_TASK_REFUSED,
        )
    alike = sorted(each for each in known["tasks"] if name.lower().split("_")[0] in each.lower())[:ALIKE]
    raise SettingsInvalid(
        f"builtin {name} is no task of lm-evaluation-harness {known['version']}; "
        + (f"there are {', '.join(alike)}" if alike else "the documentation lists them"),
        Reason.HARNESS_TASK_NOT_FOUND,
    )


def check_source(task: EvaluationTask, source: HubSource) -> None:
    """Refuse a repository that is not the one that a builtin task asks, before anything of it is fetched.

    Raises:
        SettingsInvalid: as `builtin_task`; HARNESS_TASK_REFUSED for another repository.
    """
    if task.builtin is None:
        return
    found = builtin_task(task.builtin)
    if source.repository != found.dataset:
        raise SettingsInvalid(
            f"task {task.name}: builtin {found.name} asks rows of {found.dataset}, and dataset.uri names "
            f"{source.repository}; write hf://datasets/{found.dataset}@<revision>",
            Reason.HARNESS_TASK_REFUSED,
        )
    parts = ("", f"{found.subset}/") if found.subset else ("",)
    if source.path not in parts and (found.subset or not source.path.endswith("/")):
        allowed = f"nothing or {found.subset}/" if found.subset else "nothing or a folder, which ends with '/'"
        raise SettingsInvalid(
            f"task {task.name}: dataset.uri names {source.path} of {source.repository}, but builtin {found.name} asks "
            f"{found.subset or 'the whole data set'}; write {allowed} behind the revision",
            Reason.HARNESS_TASK_REFUSED,
        )


# -- data files --------------------------------------------------------------------------------------------------------


def data_files(found: Builtin, paths: Iterable[str], place: str) -> tuple[str, dict[str, list[str]]]:
    """Return how the data files of a task are written, and those of each of its splits.

    A data set lies as hubs have it: a folder for each subset (none where there is but one), in it `test.parquet`,
    `test-00000-of-00001.parquet` or `test/...`, with `data/` before it or without.

    Args:
        found: the task.
        paths: of the files that are there.
        place: where they are, for people.

    Raises:
        DataInvalid: DATASET_NOT_FOUND, the subset or a split is not there.
    """
    splits = found.splits
    below = _of_subset(found, sorted(paths), splits, place)
    best: dict[str, list[str]] = {}
    for kind in PLAIN_KINDS:
        named = {
            split: [
                path
                for path, inner in below.items()
                if _is_of(split, inner) and inner.endswith(tuple(DATASET_SUFFIXES[kind]))
            ]
            for split in splits
        }
        there = {split: files for split, files in named.items() if files}
        if len(there) == len(splits):
            return kind, there
        best = max(best, there, key=len)
    missing = ", ".join(sorted(splits - set(best)))
    raise DataInvalid(
        f"builtin {found.name}: there are no files of the split {missing} at {place}, such as {min(splits)}.parquet or "
        f"{min(splits)}/0000.parquet{f' in {found.subset}/' if found.subset else ''}; many hubs keep a copy that lies "
        "so at the revision refs/convert/parquet",
        Reason.DATASET_NOT_FOUND,
    )


def _of_subset(found: Builtin, paths: list[str], splits: frozenset[str], place: str) -> dict[str, str]:
    """Return the files of the task's subset, with the rest of their path in it."""
    folders = {path.partition("/")[0] for path in paths if "/" in path}
    subset = found.subset
    if subset is not None and subset in folders:
        pass
    elif folders <= {DATA, *splits, *_USUAL}:
        return {path: path for path in paths}
    elif subset is None and ("default" in folders or len(folders) == 1):
        subset = "default" if "default" in folders else min(folders)
    else:
        raise DataInvalid(
            f"builtin {found.name} asks "
            + (f"the subset {subset}" if subset else "a data set of one subset")
            + f", and {place} has the folders {', '.join(sorted(folders)[:ALIKE])}; many hubs keep a copy with a "
            "folder for each subset at the revision refs/convert/parquet",
            Reason.DATASET_NOT_FOUND,
        )
    return {path: path.removeprefix(f"{subset}/") for path in paths if path.startswith(f"{subset}/")}


_USUAL = ("train", "validation", "test")


def _is_of(split: str, path: str) -> bool:
    own = re.escape(split)
    return re.fullmatch(rf"(data/)?{own}(-\d{{5}}-of-\d{{5}}[^/]*|/[^/]+)?\.[a-z]+", path) is not None


def written(found: Builtin, kind: str, files: dict[str, list[str]]) -> str:
    """Return the YAML file of a task whose data lie beside it below `data/`."""
    beside = {split: [f"{DATA}/{path}" for path in each] for split, each in sorted(files.items())}
    config = {**found.configuration, "task": found.name, "dataset_path": kind}
    config["dataset_kwargs"] = {"data_files": beside}
    config["metadata"] = {"lm_eval": catalogue()["version"], "dataset": found.dataset, "subset": found.subset}
    text: str = yaml.safe_dump(config, sort_keys=True, allow_unicode=True)
    return text


# -- the catalogue's entries -------------------------------------------------------------------------------------------

NO_PART = ("tag", "task_alias", "should_decontaminate", "doc_to_decontamination_query", "metadata")
"""Keys that change nothing of what is asked or counted where a task is run alone and no corpus is looked for."""


def entry(configuration: dict[str, Any], place: str) -> Builtin:
    """Return what the catalogue keeps of a YAML file, includes merged.

    Args:
        configuration: as `read_yaml` gives it.
        place: the file, for people.

    Raises:
        SettingsInvalid: it cannot be run here.
    """
    config = {key: value for key, value in configuration.items() if key not in NO_PART and value is not None}
    name, source = str(config["task"]), dict(config.pop("dataset_kwargs", {}))
    source.pop("trust_remote_code", None)  # no code of a repository is run by anybody any more
    if source or "/" not in str(config.get("dataset_path")):
        told = ", ".join(sorted(source)) or f"dataset_path {config.get('dataset_path')}"
        raise SettingsInvalid(
            f"{place}: its data are no plain repository of a hub ({told})", Reason.HARNESS_TASK_REFUSED
        )
    if "dataset_name" in config:
        config["dataset_name"] = str(config["dataset_name"])
    left_out = _without_other_figures(config)
    check_configuration({**config, "dataset_path": "json"}, place)
    if not config.get("test_split") and not config.get("validation_split"):
        raise SettingsInvalid(f"{place}: it names no split to ask", Reason.HARNESS_TASK_REFUSED)
    return Builtin(name, config, left_out)


def _without_other_figures(config: dict[str, Any]) -> tuple[str, ...]:
    """Leave metrics that are no means over rows out of a configuration, where others remain; return their names."""
    names = metric_names(config)
    means = MEANS.get(str(config.get("output_type", "generate_until")), ())
    listed = config.get("metric_list") or [{"metric": name} for name in names]
    kept = [each for each in listed if each.get("metric") in means and each.get("aggregation", "mean") == "mean"]
    if kept and len(kept) < len(listed):
        config["metric_list"] = kept
        return tuple(str(each.get("metric")) for each in listed if each not in kept)
    return ()
