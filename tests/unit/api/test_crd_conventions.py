"""The conventions of the Kubernetes API, checked on the generated CRDs as a linter would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_operator.api.definitions.reference import fields, nodes
from trimtab_operator.generate import CUSTOM_RESOURCES

ROOT = Path(__file__).parents[3]
CRDS = {
    path.name: yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in sorted((ROOT / "crds").glob("*.yaml"))
}

CONDITION_FIELDS = {"type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"}
ABBREVIATIONS = re.compile(
    r"^(cfg|conf|num|cnt|msg|ns|svc|ts|idx|ctx|max|min)[A-Z]|(Cfg|Conf|Num|Cnt|Msg|Svc|Idx|Ctx|Secs|Ms)$"
)
CORE_NAMES = {"maxSkew", "minDomains"}
"""core/v1's own names."""
SUMMARY = {each.kind: each.summary for each in CUSTOM_RESOURCES}
STATES_OF_PARTS = {"status.final[].state", "status.revisions[].state", "status.step.phase", "status.trials[].state"}
"""What a part of an object is in, where the object itself says it by conditions."""


@pytest.fixture(params=list(CRDS.values()), ids=list(CRDS))
def crd(request: pytest.FixtureRequest) -> dict[str, Any]:
    document: dict[str, Any] = request.param
    return document


@pytest.fixture
def version(crd: dict[str, Any]) -> dict[str, Any]:
    (only,) = crd["spec"]["versions"]
    assert isinstance(only, dict)
    return only


@pytest.fixture
def schema(version: dict[str, Any]) -> dict[str, Any]:
    root = version["schema"]["openAPIV3Schema"]
    assert isinstance(root, dict)
    return root


def test_there_is_a_crd_of_every_kind() -> None:
    assert [crd["spec"]["names"]["kind"] for crd in CRDS.values()] == sorted(each.kind for each in CUSTOM_RESOURCES)


def test_names_are_distinctive(crd: dict[str, Any]) -> None:
    names = crd["spec"]["names"]
    assert names["categories"] == ["trimtab"]
    assert all(name not in ("job", "jobs", "ft") for name in names["shortNames"])


def test_the_status_is_a_subresource(version: dict[str, Any]) -> None:
    assert version["subresources"] == {"status": {}}


def test_the_state_is_the_first_column_and_the_message_is_wide(crd: dict[str, Any], version: dict[str, Any]) -> None:
    columns = version["additionalPrinterColumns"]
    summary = SUMMARY[crd["spec"]["names"]["kind"]]
    state = ("State", f'.status.conditions[?(@.type=="{summary}")].reason')
    of_a_record = ("Subject", ".spec.subject.name")
    is_a_record = crd["spec"]["names"]["kind"] == "Review"  # which is in no state, but says something about another
    assert (columns[0]["name"], columns[0]["jsonPath"]) == (of_a_record if is_a_record else state)
    assert next(column["name"] for column in columns if column.get("priority")) == "Message"
    assert all(column["description"] for column in columns)


def test_every_column_points_at_a_field(version: dict[str, Any], schema: dict[str, Any]) -> None:
    paths = {path for path, _, _ in fields(schema)} | {"metadata.creationTimestamp"}
    for column in version["additionalPrinterColumns"]:
        assert re.sub(r"\[[^]]*\]", "[]", column["jsonPath"]).removeprefix(".") in paths


VALUES_OF_OTHER_FIELDS = ("spec.parameters[].values[]", "status.best.parameters{}")
"""Of a sweep: what they may be is said by the field that a parameter names, and checked by the operator."""


def test_nothing_escapes_the_schema(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        assert "x-kubernetes-preserve-unknown-fields" not in node or path in VALUES_OF_OTHER_FIELDS, path
        assert "x-kubernetes-embedded-resource" not in node, path
        assert "nullable" not in node, path
        assert (
            node.get("type") != "object"
            or path in ("", "metadata")
            or {"properties", "additionalProperties"} & set(node)
        ), f"{path}: an object without fields"


def test_there_is_no_phase(schema: dict[str, Any]) -> None:
    found = {path for path, _, _ in fields(schema) if path.rpartition(".")[2] in ("phase", "state")}
    assert found <= STATES_OF_PARTS


def test_every_description_begins_with_the_name_of_its_field(schema: dict[str, Any]) -> None:
    for path, node, _ in fields(schema):
        name = path.rpartition(".")[2]
        if path == "metadata":
            continue
        assert re.match(rf"{name}\b", node["description"]), f"{path}: {node['description']!r}"
        assert node["description"].endswith("."), f"{path}: {node['description']!r}"


def test_every_string_list_and_map_has_a_bound(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        if path in ("apiVersion", "kind", "metadata"):
            continue
        if node.get("type") == "string" or node.get("x-kubernetes-int-or-string"):
            assert "enum" in node or "maxLength" in node, f"{path} has no maxLength"
        elif node.get("type") == "array":
            assert "maxItems" in node, f"{path} has no maxItems"
        elif "additionalProperties" in node:
            assert "maxProperties" in node, f"{path} has no maxProperties"


def test_every_list_has_a_type_and_its_keys_exist(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        if node.get("type") != "array":
            continue
        kind = node.get("x-kubernetes-list-type")
        assert kind in ("atomic", "set", "map"), f"{path} has no list type"
        if kind == "map":
            assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path
        if kind == "set":
            assert node["items"]["type"] == "string", path


def test_every_number_says_how_large_it_may_be(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        if node.get("type") == "integer":
            assert node["format"] in ("int32", "int64"), path
            assert "minimum" in node, f"{path} has no minimum"
        if node.get("type") in ("integer", "number") and path.startswith("spec"):
            assert {"minimum", "maximum"} <= set(node), f"{path} is not bounded"


def test_a_field_is_required_or_has_a_default_but_not_both(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        for name in node.get("required", []):
            assert "default" not in node["properties"][name], f"{path}.{name}"


def test_no_default_inside_list_items_or_status(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        if "[]" in path or path.startswith("status"):
            assert "default" not in node, f"{path}: a GitOps tool would never be in sync"


def test_the_status_is_optional_throughout(schema: dict[str, Any]) -> None:
    assert "status" not in schema["required"]
    assert "required" not in schema["properties"]["status"]


def test_conditions_are_those_of_metav1(schema: dict[str, Any]) -> None:
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["properties"]) == CONDITION_FIELDS
    assert set(conditions["items"]["required"]) == CONDITION_FIELDS - {"observedGeneration"}
    assert "observedGeneration" in schema["properties"]["status"]["properties"]


def test_names_are_camel_case_and_plain(schema: dict[str, Any]) -> None:
    for path, node, _ in fields(schema):
        name = path.rpartition(".")[2]
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*", name) or name == "ephemeral-storage", path  # core's own name
        assert (
            not ABBREVIATIONS.search(name)
            or name
            in CORE_NAMES | {"maxSteps", "maxSequenceLength", "maxNewTokens", "maxTokens", "maxPodsAtOnce", "maxTrials"}
            or name.startswith("maxGradientNorm")
        ), f"{path} is an abbreviation"
        assert node.get("type") != "boolean" or not re.match(r"is[A-Z]", name), path
        assert not name.endswith(("Timestamp", "Ref")) or "valueFrom" in path, path
        if node.get("format") == "date-time":
            assert name.endswith(("Time", "time")), path


def test_enum_values_are_words_in_camel_case(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        if path in ("status.attempts[].chargedTo", "status.results[].failed[].bound"):
            continue  # names of other fields
        if path == "spec.objective.metric":
            continue  # names of figures
        if path.endswith("tasks[].bleuTokenizer"):
            continue  # sacrebleu's names
        for value in node.get("enum", []):
            if node["type"] == "boolean":
                continue
            assert re.fullmatch(r"([A-Z][A-Za-z0-9]*)?", value), f"{path}: {value}"


def test_every_rule_has_a_message_of_its_own(schema: dict[str, Any]) -> None:
    for path, node in nodes(schema):
        rules = node.get("x-kubernetes-validations", [])
        assert len({rule["message"] for rule in rules}) == len(rules), path
        assert all(set(rule) == {"rule", "message"} for rule in rules), path


def test_immutable_fields_cannot_be_slipped_around_by_removing_them(schema: dict[str, Any]) -> None:
    """A transition rule at an optional field is skipped when the field comes or goes: it must stand at its parent."""
    for path, node in nodes(schema):
        for rule in node.get("x-kubernetes-validations", []):
            if "oldSelf" in rule["rule"]:
                assert path in ("spec", "spec.template.spec"), path  # sections that are always there
                field = re.match(r"self\.(\w+) == oldSelf", rule["rule"])
                always_there = field is not None and field[1] in node["required"]
                whole = rule["rule"] == "self == oldSelf"
                assert whole or always_there or rule["rule"].startswith("has("), path


def test_client_side_apply_has_room_for_the_crd(crd: dict[str, Any]) -> None:
    applied = json.dumps(crd, separators=(",", ":"))  # as kubectl writes it into the annotation
    assert len(applied) < 200_000, "the last-applied annotation holds 262 144 bytes"
