"""Writes what is generated from the list of kinds: `crds/`, the chart's copies and permissions, what the command line
knows of them, and `docs/api.md`.

python -m trimtab_operator.generate --write    # make generate
python -m trimtab_operator.generate --check    # fails when a file is not fresh
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from .api import GROUP, VERSION
from .api.definitions.crd import crd_of
from .api.definitions.kindtable import kind_table
from .api.definitions.reference import reference
from .domain.gitops import MARKS
from .domain.kinds import KINDS
from .domain.review.policies import SPECS

GENERATED = "Generated from operator/src/trimtab_operator/api by `make generate`; do not edit."
CUSTOM_RESOURCES = tuple(kind.crd for kind in KINDS.values())


def generated_files() -> dict[str, str]:
    """Return every generated file, by its path from the repository's root."""
    files = {}
    for resource in CUSTOM_RESOURCES:
        crd = crd_of(resource)
        name = f"{GROUP}_{resource.plural}.yaml"
        files[f"crds/{name}"] = f"# {GENERATED}\n{_yaml(crd)}"
        files[f"charts/trimtab/templates/crds/{name}"] = _chart_template(crd)
    files["charts/trimtab/templates/_kinds.tpl"] = _kinds()
    files["charts/trimtab/templates/_policies.tpl"] = _template("trimtab.policies", _policies())
    files["cli/src/trimtab/kinds.json"] = kind_table(CUSTOM_RESOURCES, GROUP, VERSION, MARKS)
    return {**files, "docs/api.md": reference([(each, crd_of(each)) for each in CUSTOM_RESOURCES], GENERATED)}


def main(arguments: list[str] | None = None) -> int:
    """Write or check the generated files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trimtab_operator.generate", description=__doc__)
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


def _kinds() -> str:
    """Return the list of kinds for the chart's roles; the operator deletes those that end, by their TTL."""
    made = {name for kind in KINDS.values() for name in kind.makes}
    listed = [
        {
            "singular": kind.crd.singular,
            "plural": kind.crd.plural,
            "verbs": [
                *("get", "list", "watch"),
                *(["create", "patch"] if kind.name in made else []),
                *(["delete"] if kind.ends else []),
            ],
            "writers": kind.crd.writers,
        }
        for kind in KINDS.values()
    ]
    return _template("trimtab.kinds", listed)


def _policies() -> list[dict[str, Any]]:
    """Return the admission policies for the chart, which gives them their names."""
    return [{"policy": policy.value, "spec": spec} for policy, spec in SPECS.items()]


def _template(name: str, value: Any) -> str:
    body = json.dumps(value, indent=2)
    return f'{{{{- /* {GENERATED} */ -}}}}\n{{{{- define "{name}" -}}}}\n{body}\n{{{{- end }}}}\n'


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
