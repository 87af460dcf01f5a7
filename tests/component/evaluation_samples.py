"""Evaluations that are accepted and, together, use every field."""

from __future__ import annotations

from typing import Any

from tests.component.crd_samples import DIGEST, STATUS, TEMPLATE, TIME, Body, change

OTHER_DIGEST = "sha256:" + "1" * 64
THIRD_DIGEST = "sha256:" + "2" * 64


def evaluation(spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


HELD_OUT = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
OWN_ROWS = {
    "uri": "s3://datasets/questions/",
    "format": "Messages",
    "ignoreKeys": ["images"],
    "limit": 100,
    "final": True,
}

MINIMAL = evaluation({"target": {"fineTuneJobName": "sample"}, "tasks": [HELD_OUT]})

FULL = evaluation(
    {
        "target": {
            "artifact": {"uri": "s3://adapters/out/adapters/0", "digest": DIGEST, "secretName": "object-storage"}
        },
        "baseModel": {"uri": "s3://models/base", "digest": DIGEST, "secretName": "object-storage"},
        "baseline": {"baseModel": True},
        "anchor": {
            "artifact": {"uri": "s3://adapters/out/adapters/2", "digest": THIRD_DIGEST, "secretName": "object-storage"}
        },
        "tasks": [
            {"name": "plain", "type": "Perplexity", "dataset": {"uri": "s3://datasets/questions/"}},
            HELD_OUT,
            {
                "name": "answers",
                "type": "Generation",
                "dataset": OWN_ROWS,
                "metrics": [
                    *("RougeL", "ExactMatch", "TokenF1", "BLEU", "ChrF"),
                    *("TruncatedRatio", "TokensPerAnswer", "SecondsPerAnswer"),
                ],
                "bleuTokenizer": "Zh",
                "groupBy": "apiGroup",
                "maxNewTokens": 96,
                "stop": ["\n\n"],
                "temperature": 0.7,
                "topP": 0.9,
            },
            {
                "name": "kinds",
                "type": "Classification",
                "dataset": {key: value for key, value in OWN_ROWS.items() if key != "limit"},
                "labels": ["yes", "no"],
                "pairs": "pair",
                "groupBy": "apiGroup",
                "predictBy": "Generation",
            },
            {
                "name": "calls",
                "type": "ToolCalls",
                "dataset": OWN_ROWS,
                "turns": "Each",
                "metrics": ["ValidRatio", "NameAccuracy", "ArgumentsAccuracy", "TokensPerAnswer", "SecondsPerAnswer"],
            },
            {
                "name": "extracted",
                "type": "JsonSchema",
                "dataset": OWN_ROWS,
                "jsonSchema": '{"type": "object"}',
            },
            {"name": "refusing", "type": "Refusal", "dataset": OWN_ROWS, "pattern": "^No"},
            {
                "name": "preferred",
                "type": "Judge",
                "dataset": OWN_ROWS,
                "judging": {
                    "mode": "Rubric",
                    "instructions": "A good answer is right and short.",
                    "minimumScore": 0,
                    "maximumScore": 10,
                    "minimumAgreement": 0.8,
                },
            },
            {
                "name": "compared",
                "type": "Judge",
                "dataset": OWN_ROWS,
                "judging": {"instructions": "Prefer the answer that is right.", "showReference": True},
            },
            {"name": "dated", "type": "Regex", "dataset": OWN_ROWS, "pattern": "^[0-9]{4}", "metrics": ["MatchRatio"]},
            {
                "name": "choices",
                "type": "Harness",
                "dataset": {"uri": "s3://datasets/harness/"},
                "harnessTask": "arc_easy",
                "fewShot": 2,
            },
            {
                "name": "sums",
                "type": "Harness",
                "dataset": {"uri": "s3://datasets/gsm8k/", "limit": 200},
                "builtin": "gsm8k",
            },
        ],
        "thresholds": [
            {"metric": "answers/rougeL", "minimum": 0.3, "maximumRegression": 0.02, "confidence": 0.95},
            {"metric": "heldout/perplexity", "maximum": 12, "maximumRelativeRegression": 0.05},
            {
                "metric": "answers/tokenF1",
                "maximumGroupGap": 0.1,
                "minimumGroupRows": 50,
                "maximumWorseRatio": 0.1,
                "worseBy": 0.2,
                "maximumGroupRegression": 0.05,
                "against": "Anchor",
            },
            {"metric": "kinds/accuracy", "maximumOddsGap": 0.1, "minimumGroupRows": 20},
        ],
        "judge": {
            "endpoint": {"url": "http://vllm.judges:8000/v1", "model": "judge", "secretName": "judge"},
        },
        "precision": "AsTrained",
        "engine": "Transformers",
        "quantization": {"type": "NF4", "doubleQuantization": False, "computeType": "Float32"},
        "datasetSecretName": "object-storage",
        "output": {"uri": "s3://adapters/out", "secretName": "object-storage"},
        "maximumTrainedOnRatio": 0.1,
        "resamples": 1000,
        "seed": 1,
        "batchSize": 8,
        "retries": {"onFailure": 0, "onDisruption": 1},
        "suspend": True,
        "activeDeadlineSeconds": 3600,
        "ttlSecondsAfterFinished": 60,
        "template": TEMPLATE,
    }
)

_JUDGE = {"uri": "s3://models/judge", "digest": DIGEST, "secretName": "object-storage"}
_ARTIFACT = {"uri": "s3://adapters/out/adapters/1", "digest": OTHER_DIGEST, "secretName": "object-storage"}
VARIANTS: dict[str, Body] = {
    "artifact": FULL,
    "job": change(
        FULL,
        {
            "spec.target": {"fineTuneJobName": "sample"},
            "spec.baseline": {"artifact": _ARTIFACT},
            "spec.anchor": {"baseModel": True},
        },
    ),
    "judged here": change(FULL, {"spec.judge": {"model": _JUDGE}}),
    "served": change(FULL, {"spec.target": {"fineTuneJobName": "sample"}, "spec.baseline": {"rolloutName": "guide"}}),
    "base model": change(
        FULL,
        {
            "spec.target": {"baseModel": True},
            "spec.baseline": {"artifact": _ARTIFACT},
            "spec.tasks[1].dataset": {"uri": "s3://datasets/questions/"},
        },
    ),
}
"""Together these have every field of the spec."""

EVALUATION_STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [
        {**STATUS["conditions"][0], "status": "True", "reason": "Completed"},
        {**STATUS["conditions"][0], "type": "Passed", "status": "False", "reason": "Regressed", "message": "worse"},
    ],
    "startTime": TIME,
    "completionTime": TIME,
    "progress": {"tasksDone": 1, "tasks": 2, "percent": 50},
    "target": {"uri": "s3://adapters/out/adapters/0", "digest": DIGEST},
    "baseline": {"uri": "s3://adapters/out/adapters/1", "digest": OTHER_DIGEST},
    "anchor": {"uri": "s3://adapters/out/adapters/2", "digest": THIRD_DIGEST},
    "resolved": {
        "baseModel": {"uri": "s3://models/base", "digest": DIGEST, "secretName": "object-storage"},
        "datasetSecretName": "object-storage",
        "output": {"uri": "s3://adapters/out", "secretName": "object-storage"},
        "targetSecretName": "object-storage",
        "baselineSecretName": "object-storage",
    },
    "baseModelDigest": DIGEST,
    "dataDigest": DIGEST,
    "evaluationDigest": DIGEST,
    "judgeReady": True,
    "answersDigest": DIGEST,
    "rows": 100,
    "looks": 3,
    "reportURI": "s3://adapters/out/evaluations/0/report.html",
    "results": [
        {
            "task": "heldout",
            "metric": "perplexity",
            "value": 20.181,
            "low": 19.5,
            "high": 21.5,
            "count": 43,
            "baseline": 55.681,
            "change": -35.5,
            "anchor": 19.8,
            "anchorChange": 0.381,
            "passed": False,
            "failed": [
                {
                    "bound": "maximum",
                    "limit": 12,
                    "estimate": 20.181,
                    "reason": "ThresholdMissed",
                    "rowsNeeded": 90,
                    "clustersNeeded": 9,
                },
                {
                    "bound": "maximumRegression",
                    "limit": 0,
                    "estimate": 0.381,
                    "reason": "Regressed",
                    "against": "Anchor",
                },
            ],
        }
    ],
    "resultsOmitted": 1,
    "images": {"evaluate": "example.com/trainer:1"},
    "mirrored": STATUS["mirrored"],
    "failures": 0,
    "disruptions": 0,
    "activeSeconds": 1,
    "acceleratorSeconds": 1,
    "lostAcceleratorSeconds": 1,
    "attempts": [{**STATUS["attempts"][0], "stage": "evaluate", "jobName": "sample-evaluate-0"}],
    "summary": {"progress": "50%", "metric": "heldout/perplexity", "value": "20.18", "change": "-35.5"},
}
