"""Values of an object by path: the little of JSONPath that columns of `kubectl get` use. It cannot raise."""

from __future__ import annotations

import re
from typing import Any

STEP = re.compile(r'\.(?P<name>\w+)|\[\?\(@\.(?P<key>\w+)=="(?P<value>[^"]*)"\)\]|\[-1:\]')


def value_at(body: Any, path: str) -> Any:
    """Return what is at a path such as `.status.conditions[?(@.type=="Ready")].reason`, or None."""
    here = body
    for step in STEP.finditer(path):
        if step["name"]:
            here = here.get(step["name"]) if isinstance(here, dict) else None
        elif not isinstance(here, list):
            return None
        elif step["key"]:
            here = next(
                (each for each in here if isinstance(each, dict) and each.get(step["key"]) == step["value"]), None
            )
        else:
            here = here[-1] if here else None
    return here


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return the values of an object by path; lists of named things by name, other lists whole."""
    if isinstance(value, dict) and value:
        found: dict[str, Any] = {}
        for name, child in value.items():
            found |= leaves(child, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        found = {}
        for each in value:
            rest = {key: child for key, child in each.items() if key != "name"}
            found |= leaves(rest, f"{path}[{each['name']}]")
        return found
    return {path: value}
