"""What the command line knows of the kinds: names, columns, and what each reason means. It imports none of this.

`kubectl trimtab` is installed on laptops without the operator, so it is given a file, generated like the CRDs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trimtab_trainer.contract.evaluation import LOWER_IS_BETTER

from .crd import schema_of
from .customresource import Column, CustomResource
from .reference import nodes

STOPS = ("suspend", "paused")
"""Fields of a spec that hold an object up while they are true."""


def kind_table(resources: Sequence[CustomResource], group: str, version: str, marks: Sequence[str]) -> str:
    """Return the file of the command line, as JSON; `marks` are those of tools that keep objects as they are in git."""
    table = {
        "group": group,
        "version": version,
        "gitOpsMarks": marks,
        "lowerIsBetter": sorted(LOWER_IS_BETTER),
        "kinds": [_kind(resource) for resource in resources],
    }
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _kind(resource: CustomResource) -> dict[str, Any]:
    return {
        "name": resource.kind,
        "plural": resource.plural,
        "singular": resource.singular,
        "shortName": resource.short_name,
        "summary": resource.summary,
        "stop": next((name for name in STOPS if name in resource.spec.model_fields), None),
        "addresses": _addresses(resource),
        "columns": [_column(column) for column in resource.columns],
        "wideColumns": [_column(column) for column in resource.wide_columns],
        "reasons": {
            condition: {
                reason: {"meaning": told.meaning, "nextStep": told.next_step}
                for reason, told in sorted(reasons.items())
            }
            for condition, (_, reasons) in resource.reasons.items()
        },
    }


def _addresses(resource: CustomResource) -> dict[str, str]:
    """Return the patterns of fields that are addresses, by path."""
    return {
        path: schema["pattern"]
        for path, schema in nodes(schema_of(resource)["properties"]["spec"], "spec")
        if path.endswith(".uri") and "pattern" in schema
    }


def _column(column: Column) -> dict[str, str]:
    name, kind, path, _ = column
    return {"name": name, "type": kind, "path": path}
