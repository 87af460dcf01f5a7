"""Cases of the CEL rules of AdapterRollouts."""

from __future__ import annotations

from tests.component.adapterrollout_samples import FULL, URI
from tests.component.crd_samples import DIGEST, Body
from tests.component.rule_cases import NAME_RULE, SHARED, Case, Rule

ARTIFACT = {"artifact": {"uri": URI, "digest": DIGEST}}
PODS = "spec.serving.selector.matchLabels"
STAGE = "trimtab.dev/stage"


def follow(labels: Body) -> Body:
    return {"spec.source": {"follow": {"selector": {"matchLabels": labels}}}}


def pods(labels: Body) -> Body:
    return {PODS: labels}


LABEL_KEYS = ("app", "A_b.c-d", "example.com/team", "app.kubernetes.io/name", "k" * 63, f"{'a' * 253}/{'k' * 63}")
OTHER_KEYS = ("app name", "-app", "app/", "/app", "a/b/c", "Example.com/team", "k" * 64)


def keys_of(place: str) -> dict[Rule, Case]:
    """Return the cases of the labels that select."""
    changes = follow if place.startswith("spec.source") else pods
    return {
        (place, "a key must have at most 317 characters"): Case(
            refused=[changes({f"{'a' * 316}/k": "a"})], passed=[changes({f"{'a' * 253}/{'k' * 63}": "a"})]
        ),
        (place, "a key must be that of a label: a name, or prefix/name"): Case(
            refused=[changes({key: "a"}) for key in OTHER_KEYS], passed=[changes({key: "a"}) for key in LABEL_KEYS]
        ),
    }


ADAPTERROLLOUT_CASES: dict[Rule, Case] = {
    NAME_RULE: SHARED[NAME_RULE],
    ("spec", "adapterName is immutable: clients ask for it"): Case(
        refused=[{"spec.adapterName": "other"}],
        passed=[
            {},
            {"metadata.labels": {"team": "b"}},
            {"spec.source": ARTIFACT},
            {"spec.source": {"evaluationName": "other"}},
            follow({"app": "field-guide"}),
            pods({"app": "other"}),
            {"spec.serving.port": 9000},
            {"spec.strategy": FULL["spec"]["strategy"]},
            {"spec.probe": FULL["spec"]["probe"]},
            {"spec.revisionHistoryLimit": 0},
            {"spec.paused": True},
        ],
    ),
    ("spec.source", "exactly one of evaluationName, artifact and follow must be set"): Case(
        refused=[
            {"spec.source": {}},
            {"spec.source": {"evaluationName": "a", **ARTIFACT}},
            {"spec.source": {**follow({"app": "a"})["spec.source"], "evaluationName": "a"}},
            {"spec.source": {**follow({"app": "a"})["spec.source"], **ARTIFACT}},
        ],
        passed=[{"spec.source": {"evaluationName": "a"}}, {"spec.source": ARTIFACT}, follow({"app": "a"})],
    ),
    **keys_of("spec.source.follow.selector.matchLabels"),
    **keys_of(PODS),
    (
        "spec.serving",
        "only pods with the label trimtab.dev/stage: serve are looked at; remove the key, or set it so",
    ): Case(
        refused=[pods({STAGE: "train"}), pods({"app": "vllm", STAGE: ""})],
        passed=[pods({STAGE: "serve"}), pods({"app": "vllm", STAGE: "serve"}), pods({"stage": "train"})],
    ),
    (
        "spec.strategy",
        "canaryWeight below 100 needs canarySeconds above 0: without them no canary takes requests",
    ): Case(
        refused=[
            {"spec.strategy": {"canarySeconds": 0, "canaryWeight": 99}},
            {"spec.strategy": {"canarySeconds": 0, "canaryWeight": 1}},
        ],
        passed=[
            {"spec.strategy": {"canarySeconds": 0}},
            {"spec.strategy": {"canarySeconds": 1, "canaryWeight": 1}},
            {"spec.strategy": {"canaryWeight": 50}},
        ],
    ),
}
