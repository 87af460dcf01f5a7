"""YAML files of lm-evaluation-harness tasks, read without running anything in them. No torch, no lm_eval.

That tool's own loader imports Python for `!function`, and Python's unsafe loader for other tags. Here a tag that YAML
itself does not define is refused, values are strings, numbers, booleans, lists and mappings, and `include` names files
of the same folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from ...contract import Reason
from ...errors import SettingsInvalid

SUFFIXES = (".yaml", ".yml")
MAXIMUM_BYTES = 1 << 20
MAXIMUM_VALUES = 100_000
"""Of one file, aliases counted as often as they are used: a few lines of them can stand for billions of values."""
INCLUDE_DEPTH = 8


def refused(place: str, trouble: str) -> SettingsInvalid:
    """Return the refusal of a task for what stands at a place: a file, or a file and its line or key."""
    return SettingsInvalid(f"{place}: {trouble}", Reason.HARNESS_TASK_REFUSED)


class _PlainLoader(yaml.SafeLoader):
    """Knows the tags of YAML alone."""


def _refuse_tag(loader: _PlainLoader, node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    value = node.value if isinstance(node, yaml.ScalarNode) else ""
    raise refused(
        f"{loader.name} line {line}",
        f"{f'{node.tag} {value}'.strip()} would run code of the task; write a Jinja template or plain values instead",
    )


_PlainLoader.add_constructor(None, _refuse_tag)


def task_files(folder: Path) -> dict[str, list[Path]]:
    """Return the YAML files of a folder by the name of their task or group, all below it; files without are left out.

    Only the structure is looked at, no value is constructed: a file that is not asked for may hold what it likes.
    """
    found: dict[str, list[Path]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()):
        for name in _names(file):
            found.setdefault(name, []).append(file)
    return found


def _names(file: Path) -> list[str]:
    try:
        node = yaml.compose(_text(file, file.name), Loader=_PlainLoader)
    except (yaml.YAMLError, SettingsInvalid, RecursionError):
        return []
    if not isinstance(node, yaml.MappingNode):
        return []
    values = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    return [str(values[key].value) for key in ("task", "group") if isinstance(values.get(key), yaml.ScalarNode)]


def read_yaml(file: Path, folder: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, with the files that it includes merged below its own keys.

    Raises:
        SettingsInvalid: HARNESS_TASK_REFUSED, with file and line.
    """
    return _read(file, folder.resolve(), ())


def _read(file: Path, folder: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    file = file.resolve()
    place = file.relative_to(folder).as_posix()
    text = _text(file, place)
    loader = _PlainLoader(text)
    loader.name = place
    try:
        value = loader.get_single_data()
        own = _Values(place).plain(value, "")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        trouble = getattr(error, "problem", None) or str(error)
        raise refused(place + line, f"this is not YAML ({trouble}); correct it") from error
    except (RecursionError, ValueError) as error:  # ValueError: a date of 31 February, an integer of a million digits
        raise refused(place, f"its values cannot be read ({error}); write them plainly") from error
    finally:
        loader.dispose()
    if not isinstance(own, dict):
        raise refused(place, "a task is a mapping of keys to values; write one")
    merged: dict[str, Any] = {}
    includes = own.pop("include", [])
    for name in includes if isinstance(includes, list) else [includes]:
        target = inside(name, file.parent, folder, f"{place}: include")
        if target in (*including, file) or len(including) >= INCLUDE_DEPTH:
            raise refused(f"{place}: include", f"{name} includes itself, or too deeply; write its keys here")
        merged |= _read(target, folder, (*including, file))
    return merged | own


def _text(file: Path, place: str) -> str:
    if file.stat().st_size > MAXIMUM_BYTES:
        raise refused(place, f"it is larger than {MAXIMUM_BYTES >> 20} MiB; put data into data files")
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise refused(place, f"it is not UTF-8 ({error}); write it again as UTF-8") from error


def inside(name: Any, start: Path, folder: Path, place: str) -> Path:
    """Return the file of a relative name, counted from `start`, if it is there and in the folder, links followed.

    Raises:
        SettingsInvalid: HARNESS_TASK_REFUSED.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise refused(place, f"{name!r} is no file name; name a file of the task's folder")
    target = (start / name).resolve()
    if Path(name).is_absolute() or "://" in name or "::" in name or not target.is_relative_to(folder.resolve()):
        raise refused(place, f"{name} is outside of the task's folder; copy it into the folder and name it from there")
    if not target.is_file():
        raise refused(place, f"{name} is not in the task's folder; upload it, or correct its name")
    return target


class _Values:
    """Turns what a loader gave into values that JSON knows, copied, up to a bound."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._left = MAXIMUM_VALUES

    def plain(self, value: Any, key: str) -> Any:
        """Return the value; `key` says where it stands."""
        self._left -= 1
        if self._left < 0:
            raise refused(self._place, f"it holds more than {MAXIMUM_VALUES} values; put data into data files")
        if isinstance(value, dict):
            strange = next((each for each in value if not isinstance(each, str)), None)
            if strange is not None:
                raise refused(self._at(key), f"the key {strange!r} is not a string; write it in quotes")
            return {each: self.plain(item, f"{key}.{each}".lstrip(".")) for each, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
        if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise refused(self._at(key), f"{value!r} is neither text nor a number; write it in quotes")

    def _at(self, key: str) -> str:
        return f"{self._place}: {key}" if key else self._place
