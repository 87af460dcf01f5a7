"""The models of AdapterRollout: what they take, what they refuse, and that a CRD can be made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from trimtab_operator.api.adapterrollout import AdapterRollout, AdapterRolloutSpec, AdapterRolloutStatus
from trimtab_operator.api.definitions.schema import structural

DIGEST = "sha256:" + "a" * 64
ARTIFACT = {"uri": "s3://adapters/guide/adapters/a", "digest": DIGEST}


def spec(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "adapterName": "field-guide",
        "source": {"evaluationName": "field-guide-v3"},
        "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
    }
    return {**given, **changes}


def test_what_is_left_out_is_as_the_design_says() -> None:
    made = AdapterRolloutSpec.model_validate(spec())
    assert made.serving.port == 8081
    assert made.strategy.to_json() == {
        "canaryPods": 1,
        "canaryWeight": 100,
        "canarySeconds": 60,
        "maxPodsAtOnce": 0,
        "drainSeconds": 30,
        "analysis": {"minimumRequests": 20, "maximumErrorRatioIncrease": 0.02, "maximumLatencyRatio": 1.5},
    }
    assert (made.revision_history_limit, made.paused) == (5, False)


REFUSED: dict[str, dict[str, Any]] = {
    "no source": spec(source={}),
    "two sources": spec(source={"evaluationName": "x", "artifact": ARTIFACT}),
    "an artifact without its digest": spec(source={"artifact": {"uri": ARTIFACT["uri"]}}),
    "an artifact that agents cannot read": spec(source={"artifact": {**ARTIFACT, "uri": "https://example.org/a"}}),
    "a selector that selects everything": spec(serving={"selector": {"matchLabels": {}}}),
    "a name that no engine would take": spec(adapterName="Field Guide"),
    "the name of a revision": spec(adapterName="field-guide@0a1b2c3d"),
    **{
        f"the name {name!r}": spec(adapterName=name)
        for name in (
            *("", "../field-guide", "field..guide", "team/../guide", "team//guide", "/guide", "guide/", "./guide"),
            *(
                ".guide",
                "-guide",
                "guide-",
                "guide.",
                "a/-b",
                "a/.b",
                "team\\guide",
                "gu\nide",
                "guide\n",
                "é",
                "a%2Fb",
            ),
            *("a" * 97, "a?b", "a#b", 'a"b', "a b", "a@b"),
        )
    },
    "pods of another stage": spec(serving={"selector": {"matchLabels": {"trimtab.dev/stage": "train"}}}),
    "a key that no label has": spec(serving={"selector": {"matchLabels": {"app name": "vllm"}}}),
    "a value that no label has": spec(serving={"selector": {"matchLabels": {"app": "v l l m"}}}),
    "a share of requests without a time": spec(strategy={"canaryWeight": 50, "canarySeconds": 0}),
    "a canary without requests": spec(strategy={"canaryWeight": 0}),
    "a rollout without a canary": spec(strategy={"canaryPods": 0}),
    "an unknown field": spec(canary=1),
}


@pytest.mark.parametrize("given", REFUSED.values(), ids=REFUSED)
def test_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdapterRolloutSpec.model_validate(given)


SERVED_NAMES = (
    *("field-guide", "a", "team.guide", "Org/My_Model-v1.2", "meta-llama/Llama-3.3-70B-Instruct", "Qwen2.5_7B"),
    *("ft:smol:org:id", "a/b/c", "_private", "v1", "A" * 96),
)


@pytest.mark.parametrize("name", SERVED_NAMES)
def test_a_name_is_what_served_models_are_called(name: str) -> None:
    made = AdapterRolloutSpec.model_validate(spec(adapterName=name))
    revision = {"name": f"{made.adapter_name}@{'a' * 8}", "uri": ARTIFACT["uri"], "digest": DIGEST, "state": "Serving"}
    status = AdapterRolloutStatus.model_validate({"revisions": [revision]})
    assert status.revisions[0].name == f"{name}@aaaaaaaa"


def test_what_was_written_is_read_back() -> None:
    metadata = {"name": "field-guide", "namespace": "team", "uid": "u", "managedFields": []}
    status = {"served": {"digest": DIGEST, "uri": ARTIFACT["uri"], "generation": 3}, "sequence": [1, 7]}
    made = AdapterRollout.parse({"metadata": metadata, "spec": spec(), "status": status})
    again = AdapterRollout.parse({"metadata": metadata, "spec": spec(), "status": made.status.to_json()})
    assert again == made
    assert again.status.sequence == [1, 7]


def test_what_people_see_is_derived_from_the_rest_once_there_is_something() -> None:
    assert AdapterRolloutStatus().to_json().get("summary") is None
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Moving",
        "message": "",
        "lastTransitionTime": "2026-01-05T11:30:00Z",
    }
    body = {
        "conditions": [condition],
        "served": {"digest": DIGEST, "uri": ARTIFACT["uri"]},
        "pods": {"desired": 3, "updated": 3, "ready": 2},
    }
    written = AdapterRolloutStatus.model_validate(body).to_json()
    assert written["summary"] == {"adapter": "aaaaaaaaaaaa", "pods": "2/3"}
    assert AdapterRolloutStatus.model_validate(written).to_json() == written


@pytest.mark.parametrize("model", [AdapterRolloutSpec, AdapterRolloutStatus])
def test_its_schema_is_structural_and_everything_in_it_is_bounded(model: type[Any]) -> None:
    for path, node in nodes(structural(model, defaults=model is AdapterRolloutSpec)):
        assert node.get("description"), path
        if node.get("type") == "array":
            assert "maxItems" in node, path
            assert "x-kubernetes-list-type" in node, path
        if node.get("type") == "string" and node.get("format") != "date-time":
            assert "maxLength" in node or "enum" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every field of a schema with its path."""
    for name, child in node.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
