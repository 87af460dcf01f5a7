"""Every bound of every field, against the real API server: one object that breaks it, one that just keeps it.

The cases are derived from the CRD itself, so a new field is tested as soon as a sample has it, and a test fails until
one does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.api.reference import nodes

from tests.component.api_server import ApiServer
from tests.component.crd_samples import MINIMAL, STATUS, VARIANTS, Body, change, find

pytestmark = pytest.mark.cluster

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds/trimtab.dev_finetunejobs.yaml").read_text())
ROOT = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
NODES = {path: node for path, node in nodes(ROOT) if path.startswith(("spec", "status"))}
SAMPLES = [*VARIANTS, {"status": STATUS}]

COMPANIONS: dict[str, Body] = {
    "spec.dataset.validation.fold": {"spec.dataset.validation.folds": 100},
    "spec.training.batchSize": {"spec.training.microBatchSize": 1},
    "spec.training.microBatchSize": {"spec.training.batchSize": 65536},
    "spec.template.volumes": {"spec.template.volumeMounts": []},
    "spec.template.volumes[].name": {"spec.template.volumeMounts": []},
    "spec.template.volumeMounts[].name": {"spec.template.volumes[0].name": None},
}
"""Changes elsewhere without which a rule would refuse a value that its own bound allows; None: the same value."""

CHARACTERS = "a1/%"
"""What strings are stretched with, the first that the pattern takes."""

Case = tuple[str, Any]
"""What is checked, and the value."""


def places(path: str) -> Iterator[tuple[Body, str]]:
    """Yield the samples that have a field, with the field's path there: the first item of a list that has it."""
    for sample in SAMPLES:
        yield from ((sample, place) for place in _places(sample, path.split("."), ""))


def _places(value: Any, steps: list[str], here: str) -> Iterator[str]:
    if not steps:
        yield here
        return
    name, *rest = steps
    bare = name.rstrip("[]{}")
    if not isinstance(value, dict) or bare not in value:
        return
    here, value = f"{here}.{bare}".lstrip("."), value[bare]
    if name.endswith("[]"):
        for number, item in enumerate(value):
            yield from _places(item, rest, f"{here}[{number}]")
    elif name.endswith("{}"):
        for key, item in value.items():
            yield from _places(item, rest, f"{here}.{key}")
    else:
        yield from _places(value, rest, here)


def rejected(path: str, node: Body, value: Any) -> Iterator[Case]:
    """Yield values that break each bound of a field, and nothing else where that is possible."""
    kind = "quantity" if node.get("x-kubernetes-int-or-string") else node["type"]
    yield "type", {"object": "text", "array": {"a": "b"}, "quantity": [], "string": 1}.get(kind, "text")
    if "enum" in node:
        yield "enum", "Unheard"
    if "minimum" in node:
        yield "minimum", node["minimum"] if node.get("exclusiveMinimum") else node["minimum"] - 1
    if "maximum" in node:
        yield "maximum", node["maximum"] if node.get("exclusiveMaximum") else node["maximum"] + 1
    if "maxLength" in node:
        yield "maxLength", stretched(value, node, node["maxLength"] + 1)
    if node.get("minLength"):
        yield "minLength", str(value)[: node["minLength"] - 1]
    if "pattern" in node:
        wrong = next(text for text in (" ", "!", "/", " x") if not re.search(node["pattern"], text))
        yield "pattern", wrong * max(1, node.get("minLength", 1))
    if node.get("format") == "date-time":
        yield "date-time", "yesterday"
    if "maxItems" in node:
        yield "maxItems", items(value, node, node["maxItems"] + 1)
    if node.get("minItems"):
        yield "minItems", []
    if "maxProperties" in node:
        yield "maxProperties", keys(value, node["maxProperties"] + 1)
    if node.get("x-kubernetes-list-type") in ("set", "map"):
        yield "duplicate", [value[0], value[0]]
    for name in node.get("required", []):
        yield f"required {name}", {key: item for key, item in value.items() if key != name}


def accepted(path: str, node: Body, value: Any) -> Iterator[Case]:
    """Yield values that just keep each bound of a field."""
    for word in node.get("enum", []):
        yield "enum", word
    if "minimum" in node:
        yield "minimum", node["minimum"] + (1e-9 if node.get("exclusiveMinimum") else 0)
    if "maximum" in node:
        yield "maximum", node["maximum"] - (1e-9 if node.get("exclusiveMaximum") else 0)
    if "maxLength" in node and not node.get("format"):
        yield "maxLength", stretched(value, node, node["maxLength"])
    if "maxItems" in node:
        yield "maxItems", items(value, node, node["maxItems"])
    if "maxProperties" in node:
        yield "maxProperties", keys(value, node["maxProperties"])


def stretched(value: Any, node: Body, length: int) -> str:
    """Return a string of this length that the pattern takes, if there is one."""
    pattern = node.get("pattern", "")
    stems = ["1"] if node.get("x-kubernetes-int-or-string") else [str(value)]
    texts = [stem + character * (length - len(stem)) for stem in stems for character in CHARACTERS]
    return next((text for text in texts if re.search(pattern, text)), texts[0])[:length]


def items(value: list[Any], node: Body, count: int) -> list[Any]:
    """Return this many different items."""
    keys_of_items = node.get("x-kubernetes-list-map-keys", [])
    if not keys_of_items:
        return [value[0]] * count if isinstance(value[0], dict) else [f"a{number}" for number in range(count)]
    key = keys_of_items[0]
    return [{**value[0], key: f"{value[0][key]}{number}" if key != "number" else number} for number in range(count)]


def keys(value: Body, count: int) -> Body:
    (first, *_) = value.values()
    return {f"k{number}": first for number in range(count)}


def send(server: ApiServer, sample: Body, changes: Body) -> tuple[bool, str]:
    """Return whether the API server takes the object, and what it says."""
    body = change(sample, changes)
    if "status" in sample:
        current = server.get("/apis/trimtab.dev/v1alpha1/namespaces/default/finetunejobs/status-sample").body
        body = {**current, **body}
        url = "/apis/trimtab.dev/v1alpha1/namespaces/default/finetunejobs/status-sample/status"
        answer = server.replace(url, body, dryRun="All", fieldValidation="Strict")
    else:
        url = "/apis/trimtab.dev/v1alpha1/namespaces/default/finetunejobs"
        answer = server.create(url, body, dryRun="All", fieldValidation="Strict")
    return answer.accepted, answer.message


def changes_for(path: str, place: str, value: Any) -> Body:
    companions = {other: value if fixed is None else fixed for other, fixed in COMPANIONS.get(path, {}).items()}
    return {**companions, place: value}


@pytest.fixture(scope="module", autouse=True)
def status_sample(server: ApiServer) -> Iterator[None]:
    """An object whose status can be written."""
    url = "/apis/trimtab.dev/v1alpha1/namespaces/default/finetunejobs"
    answer = server.create(url, change(MINIMAL, {"metadata.name": "status-sample"}))
    assert answer.accepted or answer.code == 409, answer.message
    yield
    server.delete(f"{url}/status-sample")


@pytest.mark.parametrize("sample", SAMPLES, ids=["fractions", "uris", "folds", "status"])
def test_the_samples_are_accepted(server: ApiServer, sample: Body) -> None:
    ok, message = send(server, sample, {})
    assert ok, message


@pytest.mark.parametrize("path", NODES)
def test_every_bound_of(server: ApiServer, path: str) -> None:
    node = NODES[path]
    sample, place = next(places(path), (None, ""))
    assert sample is not None, f"no sample has {path}: add it to crd_samples.py"
    value = find(sample, place)
    for check, wrong in rejected(path, node, value):
        ok, message = send(server, sample, changes_for(path, place, wrong))
        assert not ok, f"{check}: accepted {wrong!r}"
        field = re.split(r"[.{\[]", place)[-1] if not place.endswith("]") else place
        assert field.rstrip("]") in message or "fieldValidation" in message, (
            f"{check}: refused for another reason: {message}"
        )
    for check, right in accepted(path, node, value):
        ok, message = send(server, sample, changes_for(path, place, right))
        assert ok, f"{check}: refused {right!r}: {message}"


def test_an_unknown_field_is_refused(server: ApiServer) -> None:
    ok, message = send(server, MINIMAL, {"spec.training": {"batchsize": 1}})
    assert not ok
    assert "batchsize" in message
