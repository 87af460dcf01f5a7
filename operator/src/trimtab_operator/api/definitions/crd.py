"""CustomResourceDefinitions from the models."""

from __future__ import annotations

from typing import Any

from ..finetunejob import GROUP, VERSION
from .customresource import Column, CustomResource
from .schema import Schema, structural


def schema_of(resource: CustomResource) -> Schema:
    """Return the schema of the whole object."""
    root = resource.model.model_config["json_schema_extra"]
    assert isinstance(root, dict)
    return {
        "description": resource.model.__doc__,
        "type": "object",
        **root,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "apiVersion of this representation of the object."},
            "kind": {"type": "string", "description": "kind of the object."},
            "metadata": {"type": "object"},
            "spec": _described(resource, "spec", structural(resource.spec, defaults=True)),
            "status": _described(resource, "status", structural(resource.status, defaults=False)),
        },
    }


def crd_of(resource: CustomResource) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [resource.short_name],
                "categories": ["trimtab"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        *(_column(column) for column in resource.columns),
                        *({**_column(column), "priority": 1} for column in resource.wide_columns),
                    ],
                    "schema": {"openAPIV3Schema": schema_of(resource)},
                }
            ],
        },
    }


def _described(resource: CustomResource, field: str, schema: Schema) -> Schema:
    return {**schema, "description": resource.model.model_fields[field].description}


def _column(column: Column) -> dict[str, Any]:
    name, kind, path, description = column
    return {"name": name, "type": kind, "jsonPath": path, "description": description}
