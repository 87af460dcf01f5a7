"""deploy/kustomize/references.yaml knows every name of another object that the resources hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
REFERENCES = yaml.safe_load((ROOT / "deploy/kustomize/references.yaml").read_text())
NAMES_OF_NO_OBJECT = {
    "spec/template/schedulerName",
    "spec/template/volumes/name",
    "spec/template/volumeMounts/name",
    "spec/template/env/name",
    "spec/template/resourceClaims/name",
    "spec/template/resources/claims/name",
    "spec/template/prepareResources/claims/name",
    "spec/tasks/name",
    "spec/objective/evaluation/tasks/name",
    "spec/final/evaluation/tasks/name",
    "spec/adapterName",
    "spec/parameters/name",
}

OF_TRIALS = "spec/template/spec/"
"""Where a FineTuneJob's spec is in a sweep."""

Body = dict[str, Any]


def strings(schema: Body, path: str) -> Iterator[str]:
    """Yield the path of every string of a schema, as kustomize writes it: lists add nothing."""
    schema = schema.get("items", schema)
    for name, child in schema.get("properties", {}).items():
        yield from strings(child, f"{path}/{name}")
    if schema.get("type") == "string":
        yield path


FIELDS = {
    (crd["spec"]["names"]["kind"], path)
    for crd in (yaml.load(file.read_text(), Loader=yaml.CSafeLoader) for file in (ROOT / "crds").glob("*.yaml"))
    for path in strings(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec")
}


def told(*specs: Body) -> set[tuple[str, str]]:
    assert all(spec["group"] == "trimtab.dev" for spec in specs)
    return {(spec["kind"], spec["path"]) for spec in specs}


def test_every_name_of_another_object_is_told() -> None:
    named = {
        (kind, path)
        for kind, path in FIELDS
        if path.lower().endswith("name") and path.replace(OF_TRIALS, "spec/") not in NAMES_OF_NO_OBJECT
    }
    assert told(*(spec for each in REFERENCES["nameReference"] for spec in each["fieldSpecs"])) == named


def test_every_image_is_told() -> None:
    named = {(kind, path) for kind, path in FIELDS if path.lower().endswith("image")}
    assert told(*REFERENCES["images"]) == named
