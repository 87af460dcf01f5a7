"""Which tasks of the pinned lm-evaluation-harness run here, and why others do not: the catalogue, and its page.

`python -m deploy.harness_tasks --write` reads the YAML files that the installed harness brings, without running any
Python of theirs, and writes the catalogue that the trainer finds tasks in and docs/harness-tasks.md. Without --write it
only says whether both are those of the installed harness.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import lzma
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.evaluate.harness import builtin
from trimtab_trainer.evaluate.harness.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/harness-tasks.md"
CATALOGUE = Path(builtin.__file__).with_name(builtin.CATALOGUE)
CODE = "its YAML names Python code, which is not run"
GROUP = "it is a group of tasks; name one of them"
NAMED = 6
PAGE_TEXT = """\
# Tasks of lm-evaluation-harness by name

<!-- made by python -m deploy.harness_tasks --write -->

An Evaluation's task with `builtin: <name>` is a task of lm-evaluation-harness {version}, with the data that
`dataset.uri` names: the repository below at a revision, `hf://datasets/openai/gsm8k@main`, or a copy of it in object
storage. [The user guide](user-guide/evaluations.md#tasks-of-lm-evaluation-harness-by-name) says how. {run:,} tasks run;
{refused:,} names are refused, by the mirror or the prepare stage:

| names | why they are refused |
|---|---|
{reasons}

A metric that is no mean over rows (a perplexity of words, a corpus' F1) is left out where others remain, as in
{left_out} of them.

`python -m deploy.harness_tasks --write` makes the table of the harness's own files. Of a folder with more than {named}
tasks the first are named.

| folder | tasks that run | data | refused |
|---|---|---|---|
{rows}
"""


def harness_folder() -> Path:
    """Return the folder of the installed harness's tasks; nothing of it is imported."""
    found = importlib.util.find_spec("lm_eval")
    if found is None or found.origin is None:
        raise SystemExit("lm-evaluation-harness is not installed; run `make .venv/.installed`")
    return Path(found.origin).parent / "tasks"


def task_files(folder: Path) -> list[Path]:
    """Return the YAML files in the order in which the harness reads them: of two tasks of a name the first counts."""
    return sorted(folder.glob("**/*.yaml"), key=lambda path: path.as_posix())


def names_of(file: Path) -> list[str]:
    """Return the tasks or groups that a file's own lines name, without reading it as YAML."""
    found = re.findall(r"^(?:task|group) *: *[\"']?([\w.%-]+)[\"']? *(?:#.*)?$", file.read_text(), re.MULTILINE)
    return [str(each) for each in found]


def reason(error: SettingsInvalid) -> str:
    """Return why a task is refused, without the place and the advice to people who wrote it."""
    words = str(error)
    if "would run code" in words:
        return CODE
    return re.sub(r"^\S+?\.yaml(?: line \d+)?: ", "", words).partition(";")[0]


def catalogued(folder: Path, files: Iterable[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the catalogue of these files, and the folder of each name in it."""
    tasks: dict[str, Any] = {}
    left_out: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    places: dict[str, str] = {}
    for file in files:
        place = file.relative_to(folder)
        try:
            read = read_yaml(file, folder)
            name = read.get("group") or read.get("task")
            if not isinstance(name, str):
                continue
            if name in places:
                continue
            places[name] = place.parts[0]
            if read.get("group") or not isinstance(read.get("task"), str):
                refused[name] = GROUP
                continue
            found = builtin.entry(read, place.name)
            tasks[name] = found.configuration
            if found.left_out:
                left_out[name] = list(found.left_out)
        except SettingsInvalid as error:
            for name in names_of(file):
                if places.setdefault(name, place.parts[0]) == place.parts[0] and name not in tasks:
                    refused.setdefault(name, reason(error))
    version = importlib.metadata.version("lm_eval")
    return {"version": version, "tasks": tasks, "leftOut": left_out, "refused": refused}, places


def page(found: dict[str, Any], places: dict[str, str]) -> str:
    """Return the page: a row for each folder of the harness."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name, place in places.items():
        folders[place].append(name)
    counted = Counter(found["refused"].values())
    rows = [_row(folder, sorted(names), found) for folder, names in sorted(folders.items())]
    reasons = [f"| {count:,} | {_cell(why)} |" for why, count in sorted(counted.items(), key=lambda each: -each[1])]
    return PAGE_TEXT.format(
        version=found["version"],
        run=len(found["tasks"]),
        refused=len(found["refused"]),
        left_out=len(found["leftOut"]),
        named=NAMED,
        reasons="\n".join(reasons),
        rows="\n".join(rows),
    )


def _row(folder: str, names: list[str], found: dict[str, Any]) -> str:
    runs = [name for name in names if name in found["tasks"]]
    data = sorted({str(found["tasks"][name]["dataset_path"]) for name in runs})
    why = Counter(found["refused"][name] for name in names if name in found["refused"])
    told = [f"{count}: {_cell(each)}" for each, count in sorted(why.items(), key=lambda each: (-each[1], each[0]))]
    return f"| {folder} | {_some(runs)} | {_some(data)} | {'<br>'.join(told) or 'none'} |"


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true")
    write = options.parse_args().write
    folder = harness_folder()
    found, places = catalogued(folder, task_files(folder))
    text = page(found, places)
    if write:
        CATALOGUE.write_bytes(lzma.compress(json.dumps(found, sort_keys=True).encode(), preset=9))
        PAGE.write_text(text)
        print(f"{len(found['tasks'])} tasks run, {len(found['refused'])} names are refused")
        return 0
    same = CATALOGUE.is_file() and json.loads(lzma.decompress(CATALOGUE.read_bytes())) == found
    if not same or PAGE.read_text() != text:
        print("the catalogue is not that of the installed harness; run python -m deploy.harness_tasks --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
