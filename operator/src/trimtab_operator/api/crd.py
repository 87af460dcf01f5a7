"""Writes what is generated from the models: `crds/`, the chart's copies and `docs/api.md`.

python -m trimtab_operator.api.crd --write    # make generate
python -m trimtab_operator.api.crd --check    # fails when a file is not fresh
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from .finetunejob import GROUP, VERSION
from .reference import reference
from .resources import RESOURCES, Column, Resource
from .schema import Schema, structural

GENERATED = "Generated from operator/src/trimtab_operator/api by `make generate`; do not edit."


def schema_of(resource: Resource) -> Schema:
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


def crd_of(resource: Resource) -> dict[str, Any]:
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


def generated_files() -> dict[str, str]:
    """Return every generated file, by its path from the repository's root."""
    files = {}
    for resource in RESOURCES:
        crd = crd_of(resource)
        name = f"{GROUP}_{resource.plural}.yaml"
        files[f"crds/{name}"] = f"# {GENERATED}\n{_yaml(crd)}"
        files[f"charts/trimtab/templates/crds/{name}"] = _chart_template(crd)
    return {**files, "docs/api.md": reference([(each, crd_of(each)) for each in RESOURCES], GENERATED)}


def main(arguments: list[str] | None = None) -> int:
    """Write or check the generated files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trimtab_operator.api.crd", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the files")
    action.add_argument("--check", action="store_true", help="fail when a file is not fresh")
    parser.add_argument("--root", type=Path, default=Path(), help="root of the repository (default: here)")
    options = parser.parse_args(arguments)
    stale = 0
    for path, text in generated_files().items():
        file = options.root / path
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if options.write:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(f"wrote {path}")
        else:
            print(f"{path} is not fresh: run `make generate`", file=sys.stderr)
    return 1 if options.check and stale else 0


def _described(resource: Resource, field: str, schema: Schema) -> Schema:
    return {**schema, "description": resource.model.model_fields[field].description}


def _column(column: Column) -> dict[str, Any]:
    name, kind, path, description = column
    return {"name": name, "type": kind, "jsonPath": path, "description": description}


def _chart_template(crd: dict[str, Any]) -> str:
    """Return the CRD as a template of the chart, so that `helm upgrade` upgrades it."""
    head = {key: crd[key] for key in ("apiVersion", "kind", "metadata")}
    return (
        f"{{{{- /* {GENERATED} */ -}}}}\n"
        "{{- if .Values.crds.enabled }}\n"
        f"{_yaml(head)}"
        "  labels:\n"
        '    {{- include "trimtab.labels" . | nindent 4 }}\n'
        "  {{- if .Values.crds.keep }}\n"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep\n"
        "  {{- end }}\n"
        f"{_yaml({'spec': crd['spec']})}"
        "{{- end }}\n"
    )


class _Dumper(yaml.SafeDumper):
    """Block style without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text


if __name__ == "__main__":
    sys.exit(main())
