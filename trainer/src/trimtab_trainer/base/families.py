"""Which model classes transformers has for each `model_type`, read without torch.

The tables stand in a module that imports torch where torch is installed, so they are read from its source: they are
literals, but for those that begin with all of another. transformers is pinned, and a test holds them against its own.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TEXT = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
WITH_OTHERS = "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"


@cache
def classes(table: str) -> Mapping[str, object]:
    """Return the class names of a table by `model_type`."""
    found: dict[str, object] = {}
    for entry in _tables()[table].elts:
        if isinstance(entry, ast.Starred):
            (other,) = (node.id for node in ast.walk(entry) if isinstance(node, ast.Name) and node.id in _tables())
            found |= classes(other)
        else:
            kind, name = ast.literal_eval(entry)
            found[kind] = name
    return found


@cache
def _tables() -> Mapping[str, ast.List]:
    package = importlib.util.find_spec("transformers")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent / "models/auto/modeling_auto.py"
    return {
        node.targets[0].id: node.value.args[0]
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and node.value.args
        and isinstance(node.value.args[0], ast.List)
    }
