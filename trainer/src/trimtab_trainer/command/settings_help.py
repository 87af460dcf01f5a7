"""Every setting of a run in words, for `--help`: made of the contract, so that none is missing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ..contract import RunConfig

WIDTH = 110


def settings_help() -> str:
    """Return the settings of the file, one after the other: path, default and meaning."""
    return "settings of the file (YAML or JSON; what has no default has to be given or may be absent):\n" + "\n".join(
        _words(path, default, description) for path, default, description in settings(RunConfig)
    )


def settings(
    model: type[BaseModel], path: str = "", default: Any = PydanticUndefined
) -> Iterator[tuple[str, str, str]]:
    """Yield path, default and description of each setting below a model."""
    for name, field in model.model_fields.items():
        at = f"{path}{field.alias or name}"
        section = _section(field.annotation)
        value = getattr(default, name, field.get_default()) if default is not PydanticUndefined else field.get_default()
        if section is not None:
            yield from settings(section, f"{at}.", value if isinstance(value, BaseModel) else PydanticUndefined)
        else:
            yield at, _default(value), field.description or ""


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field is of, if it is of one."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _default(value: Any) -> str:
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _words(path: str, default: str, description: str) -> str:
    head = f"  {path}" + (f" ({default})" if default else "")
    text = textwrap.fill(description, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6) if description else ""
    return f"{head}\n{text}" if text else head
