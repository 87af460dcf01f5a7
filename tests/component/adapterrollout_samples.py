"""AdapterRollouts that are accepted and, together, use every field."""

from __future__ import annotations

from typing import Any

from tests.component.crd_samples import DIGEST, TIME, Body, change

REVISION = f"field-guide@{DIGEST.removeprefix('sha256:')[:8]}"
URI = "s3://adapters/out/adapters/0"


def adapterrollout(spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterRollout",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


MINIMAL = adapterrollout(
    {
        "adapterName": "field-guide",
        "source": {"evaluationName": "sample"},
        "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
    }
)

FULL = adapterrollout(
    {
        "adapterName": "field-guide",
        "source": {"artifact": {"uri": URI, "digest": DIGEST}},
        "serving": {
            "selector": {"matchLabels": {"app": "vllm", "trimtab.dev/stage": "serve"}},
            "port": 8082,
        },
        "strategy": {
            "canaryPods": 2,
            "canaryWeight": 50,
            "canarySeconds": 300,
            "maxPodsAtOnce": 4,
            "drainSeconds": 60,
            "analysis": {"minimumRequests": 100, "maximumErrorRatioIncrease": 0.01, "maximumLatencyRatio": 1.2},
            "approvals": {
                "required": 2,
                "from": {"groups": ["leads", "safety"]},
                "notByAuthorOfTheJob": True,
                "before": "Canary",
            },
        },
        "probe": {
            "kind": "Chat",
            "prompt": "What is a Pod?",
            "maxTokens": 16,
            "contains": "Pod",
            "differsFromBase": False,
        },
        "revisionHistoryLimit": 3,
        "paused": True,
    }
)

_FOLLOW = {"follow": {"selector": {"matchLabels": {"app": "field-guide"}}, "requireThresholds": True}}
VARIANTS: dict[str, Body] = {
    "artifact": FULL,
    "evaluation": change(FULL, {"spec.source": {"evaluationName": "sample"}}),
    "follow": change(FULL, {"spec.source": _FOLLOW}),
}
"""Together these have every field of the spec."""

ROLLOUT_STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": kind,
            "status": status,
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": reason,
            "message": message,
        }
        for kind, status, reason, message in (
            ("Ready", "False", "PodNotUpdated", "behind"),
            ("Progressing", "True", "PodNotUpdated", "behind"),
            ("Verified", "True", "Serving", "proven"),
        )
    ],
    "served": {"digest": DIGEST, "uri": URI, "generation": 1, "sinceTime": TIME, "passedTime": TIME, "canary": "told"},
    "revisions": [
        {"name": REVISION, "uri": URI, "digest": DIGEST, "state": "Serving", "pods": 1, "approvedBy": ["alice"]}
    ],
    "pods": {"desired": 2, "updated": 2, "ready": 1},
    "podReasons": [{"pod": "vllm-0", "reason": "EngineDown", "message": "connection refused"}],
    "podReasonsOmitted": 1,
    "rejected": [{"digest": DIGEST, "reason": "ErrorRatio", "generation": 1, "message": "worse"}],
    "step": {
        "digest": DIGEST,
        "uri": URI,
        "generation": 1,
        "phase": "Canary",
        "sinceTime": TIME,
        "beganTime": TIME,
        "passedTime": TIME,
        "canaries": ["a"],
        "marks": [
            {
                "pod": "a",
                "instance": "1",
                "revision": REVISION,
                "requests": 3,
                "errors": 1,
                "disconnected": 1,
                "running": 2,
                "times": [2, -0.5, 1.5] * 4,
            }
        ],
        "look": {"time": 0.25, "requests": 20},
        "held": "190 of 200 requests have not ended",
    },
    "approval": {"digest": DIGEST, "required": 2, "approvedBy": ["alice"], "sinceTime": TIME},
    "sequence": [0, 1],
    "summary": {"adapter": "000000000000", "pods": "1/2"},
}
