"""Objects of a team that trains: what runs, waits, failed, was judged and is served, with statuses as operators write
them. Valid for the real API server; a namespace is added by whoever makes them."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import Any

Body = dict[str, Any]
API = "trimtab.dev/v1alpha1"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)> {{ 7*7 }} javascript:alert(4)"


def digest(word: str) -> str:
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


def ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(type_: str, status: str, reason: str, message: str = "") -> Body:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": ago(minutes=9)}


def body(kind: str, name: str, spec: Body, status: Body | None = None, **metadata: Any) -> Body:
    made = {"apiVersion": API, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    return made if status is None else {**made, "status": status}


def run_spec(**changes: Any) -> Body:
    return {
        "baseModel": {"uri": "s3://models/smollm2-135m-instruct"},
        "dataset": {
            "training": {"uri": "s3://datasets/field-guide/train/"},
            "validation": {"fraction": 0.05},
            "test": {"fraction": 0.05},
        },
        "output": {"uri": "s3://adapters/field-guide"},
        "lora": {"rank": 16},
        "training": {"learningRate": 0.0002, "epochs": 3},
        **changes,
    }


def curve(steps: int, end: float, total: int = 200) -> Body:
    """Return a loss that falls from 3.1 towards `end`, a value each 4 steps, with a little noise."""
    places = list(range(4, steps + 1, 4))

    def loss(step: int, lift: float = 0.0) -> float:
        noise = 0.05 * math.sin(step * 1.7) + 0.03 * math.cos(step * 0.61)
        return round(end + lift + (3.1 - end) * math.exp(-4 * step / total) + noise * (1 - step / total / 2), 4)

    marks = list(range(20, steps + 1, 20))
    return {
        "steps": places,
        "loss": [loss(step) for step in places],
        "validationSteps": marks,
        "validationLoss": [round(loss(step, 0.09), 4) for step in marks],
    }


def attempt(number: int, stage: str, name: str, **told: Any) -> Body:
    return {
        "number": number,
        "stage": stage,
        "jobName": f"{name}-{stage}-{number}",
        "jobUID": f"{name}-{number}",
        **told,
    }


DATASET = {
    "digest": digest("view"),
    "rowsDigest": digest("rows"),
    "rows": 10_924,
    "validationRows": 575,
    "testRows": 575,
    "tokens": 3_480_211,
    "supervisedTokens": 1_904_377,
    "dropped": 118,
    "reportURI": "s3://adapters/field-guide/data/views/data.html",
}


def training(name: str = "field-guide-v4", step: int = 124, **metadata: Any) -> Body:
    told = curve(step, 1.02)
    loss = told["loss"][-1]
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Succeeded", "Unknown", "Training", "attempt 2 trains on 1 accelerator")],
        "progress": {
            "step": step,
            "totalSteps": 200,
            "percent": step // 2,
            "loss": loss,
            "validationLoss": told["validationLoss"][-1],
            "tokensPerSecond": 18_240.5,
            "etaSeconds": 1_260,
        },
        "curve": told,
        "baseModelDigest": digest("base"),
        "runDigest": digest(name),
        "dataset": DATASET,
        "attempts": [
            attempt(
                0,
                "prepare",
                name,
                reason="Completed",
                startTime=ago(minutes=62),
                endTime=ago(minutes=56),
                activeSeconds=350,
            ),
            attempt(
                1,
                "train",
                name,
                reason="NodeLost",
                message="node gpu-3 does not answer for 180 s",
                chargedTo="disruptions",
                startTime=ago(minutes=55),
                endTime=ago(minutes=31),
                activeSeconds=1380,
                startStep=0,
                endStep=60,
            ),
            attempt(2, "train", name, startTime=ago(minutes=27), accelerators=1, startStep=50),
        ],
        "disruptions": 1,
        "acceleratorSeconds": 3000,
        "lostAcceleratorSeconds": 240,
        "activeSeconds": 1730,
    }
    return body("FineTuneJob", name, run_spec(), status, **metadata)


def completed(name: str = "field-guide-v3", rank: int = 8, end: float = 1.12, **metadata: Any) -> Body:
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Succeeded", "True", "Completed", "the adapter of step 180 is published")],
        "progress": {"step": 200, "totalSteps": 200, "percent": 100, "loss": end, "validationLoss": end + 0.1},
        "curve": curve(200, end),
        "baseModelDigest": digest("base"),
        "runDigest": digest(f"run {name}"),
        "dataset": DATASET,
        "artifact": {
            "uri": f"s3://adapters/field-guide/adapters/{digest(name)[7:]}",
            "digest": digest(name),
            "rank": rank,
            "targetModules": ["q_proj", "v_proj"],
            "baseModelDigest": digest("base"),
            "testLoss": end + 0.08,
            "baseTestLoss": 2.41,
            "reportURI": f"s3://adapters/field-guide/adapters/{digest(name)[7:]}/report.html",
        },
        "attempts": [
            attempt(
                0,
                "prepare",
                name,
                reason="Completed",
                startTime=ago(hours=30),
                endTime=ago(hours=29.9),
                activeSeconds=340,
            ),
            attempt(
                1,
                "train",
                name,
                reason="Completed",
                startTime=ago(hours=29.9),
                endTime=ago(hours=29),
                activeSeconds=3240,
                startStep=0,
                endStep=200,
            ),
        ],
        "activeSeconds": 3580,
        "acceleratorSeconds": 3240,
    }
    spec = run_spec(lora={"rank": rank}, training={"learningRate": 0.0001, "epochs": 3})
    return body("FineTuneJob", name, spec, status, **metadata)


def failed(name: str = "chat-tone-v1", message: str = "", **metadata: Any) -> Body:
    told = message or "train/part-0003.jsonl line 7 is no JSON: unterminated string, column 118"
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Succeeded", "False", "DatasetMalformed", told)],
        "attempts": [
            attempt(
                0,
                "prepare",
                name,
                reason="DatasetMalformed",
                message=told[:160],
                chargedTo="failures",
                startTime=ago(hours=3),
                endTime=ago(hours=2.99),
                activeSeconds=21,
            )
        ],
        "failures": 1,
    }
    return body("FineTuneJob", name, run_spec(), status, **metadata)


def queued(name: str = "support-v7", **metadata: Any) -> Body:
    status = {
        "observedGeneration": 1,
        "conditions": [
            condition("Succeeded", "Unknown", "Queued", "the queue gpu-team has no accelerator free: 8 of 8 are in use")
        ],
    }
    return body("FineTuneJob", name, run_spec(), status, **metadata)


def evaluation(name: str, target: str, *, passed: bool, **metadata: Any) -> Body:
    value, high = (11.42, 11.81) if passed else (12.61, 13.02)
    verdict = (
        condition(
            "Passed",
            "True",
            "Passed",
            f"{name} is not worse than what is served: perplexity falls by 0.68, at 95 % confidence",
        )
        if passed
        else condition(
            "Passed",
            "False",
            "Regressed",
            "heldout/perplexity is worse than the baseline by 0.51, and 0.30 was allowed",
        )
    )
    results: list[Body] = [
        {
            "task": "heldout",
            "metric": "perplexity",
            "value": value,
            "low": value - 0.39,
            "high": high,
            "count": 575,
            "baseline": 12.1,
            "change": round(value - 12.1, 3),
            "passed": passed,
        },
        {
            "task": "answers",
            "metric": "rougeL",
            "value": 0.412,
            "low": 0.389,
            "high": 0.436,
            "count": 200,
            "baseline": 0.391,
            "change": 0.021,
            "passed": True,
        },
        {
            "task": "kinds",
            "metric": "f1Macro",
            "value": 0.871,
            "low": 0.848,
            "high": 0.893,
            "count": 575,
            "baseline": 0.866,
            "change": 0.005,
        },
    ]
    if not passed:
        results[0]["failed"] = [
            {
                "bound": "maximumRelativeRegression",
                "limit": 0.025,
                "estimate": 0.042,
                "reason": "Regressed",
                "rowsNeeded": 900,
            },
            {
                "bound": "maximumRelativeRegression",
                "limit": 0.025,
                "estimate": 0.06,
                "reason": "Regressed",
                "against": "Anchor",
            },
        ]
        results[0] |= {"anchor": 11.9, "anchorChange": 0.71}
    spec = {
        "target": {"fineTuneJobName": target},
        "baseline": {"rolloutName": "field-guide"},
        **({} if passed else {"anchor": {"baseModel": True}}),
        "tasks": [
            {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}},
            {
                "name": "answers",
                "type": "Generation",
                "dataset": {"split": "Test", "limit": 200},
                "metrics": ["RougeL"],
            },
            {
                "name": "kinds",
                "type": "Classification",
                "dataset": {"split": "Test"},
                "labels": ["Pod", "Job"],
                "metrics": ["F1"],
            },
        ],
        "thresholds": [
            {"metric": "heldout/perplexity", "maximum": 13.5, "maximumRelativeRegression": 0.025},
            {"metric": "answers/rougeL", "minimum": 0.36, "maximumRegression": 0.02},
        ],
    }
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Succeeded", "True", "Completed", "all tasks were asked"), verdict],
        "target": {"uri": f"s3://adapters/field-guide/adapters/{digest(target)[7:]}", "digest": digest(target)},
        "baseline": {"uri": "s3://adapters/field-guide/adapters/old", "digest": digest("field-guide-v1")},
        **({} if passed else {"anchor": {}}),
        "rows": 1350,
        "reportURI": f"s3://adapters/field-guide/evaluations/{name}/report.html",
        "results": results,
        "resultsOmitted": 4,
        "attempts": [
            attempt(
                0,
                "evaluate",
                name,
                reason="Completed",
                startTime=ago(hours=28),
                endTime=ago(hours=27.6),
                activeSeconds=1440,
            )
        ],
        "acceleratorSeconds": 1440,
        "summary": {"metric": "heldout/perplexity", "value": f"{value}", "change": f"{value - 12.1:+.3g}"},
    }
    return body("Evaluation", name, spec, status, **metadata)


def revision(name: str, state: str, pods: int, adapter: str) -> Body:
    return {
        "name": f"{adapter}@{digest(name)[7:15]}",
        "uri": f"s3://adapters/field-guide/adapters/{digest(name)[7:]}",
        "digest": digest(name),
        "state": state,
        "pods": pods,
    }


def rollout(name: str = "field-guide", *, moving: bool = False, **metadata: Any) -> Body:
    served = "field-guide-v2" if moving else "field-guide-v3"
    old = "field-guide-v1" if moving else "field-guide-v2"
    revisions = [(served, "Serving", 4), (old, "Previous", 4), ("field-guide-v0", "Retired", 0)]
    if moving:
        revisions = [("field-guide-v3", "Incoming", 1), *revisions]
    conditions = (
        [
            condition("Ready", "False", "Canary", "1 of 4 pods answers with 20 % of the requests; 38 s are left"),
            condition("Progressing", "True", "Canary", "the canary takes requests"),
            condition("Verified", "False", "Loading", "1 of 4 pods has loaded it"),
        ]
        if moving
        else [
            condition("Ready", "True", "Serving", "every pod answers with the wanted adapter"),
            condition("Progressing", "False", "Serving", "at rest"),
            condition("Verified", "True", "Serving", "every pod has proven it"),
        ]
    )
    step = {
        "digest": digest("field-guide-v3"),
        "uri": f"s3://adapters/field-guide/adapters/{digest('field-guide-v3')[7:]}",
        "phase": "Canary",
        "sinceTime": ago(seconds=22),
        "canaries": ["a"],
        "look": {"time": 0.35, "requests": 84},
    }
    status = {
        "observedGeneration": 1,
        "conditions": conditions,
        "served": {
            "digest": digest(served),
            "uri": f"s3://adapters/field-guide/adapters/{digest(served)[7:]}",
            "sinceTime": ago(days=2),
            "canary": "412 requests, 0 errors; latency 0.98 of before",
        },
        "revisions": [revision(*each, adapter=name) for each in revisions],
        "pods": {"desired": 4, "updated": 1 if moving else 4, "ready": 0 if moving else 4},
        "podReasons": [{"pod": "vllm-6d9f-x2k", "reason": "NotVerified", "message": "it loads"}] if moving else [],
        "summary": {"adapter": digest(served)[7:19], "pods": "0/4" if moving else "4/4"},
        **({"step": step} if moving else {}),
    }
    source = {"evaluationName": f"{name}-v3"} if not moving else {"follow": {"selector": {"matchLabels": {"app": "a"}}}}
    spec = {
        "adapterName": name,
        "source": source,
        "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
    }
    return body("AdapterRollout", name, spec, status, **metadata)


def sweep(name: str = "rate-search", **metadata: Any) -> Body:
    rates = [0.00002, 0.0005, 0.00011, 0.00031, 0.00008, 0.00019, 0.0009, 0.00023, 0.00014, 0.00027]
    trials = []
    for place, rate in enumerate(rates):
        rank = place % 3
        value = round(1.05 + 0.25 * (math.log10(rate) + 3.7) ** 2 + 0.04 * (2 - rank), 4)
        state: Body = (
            {"state": "Running"}
            if place == 9
            else {"state": "Bad", "reason": "OutOfMemory"}
            if place == 6
            else {"state": "Complete", "value": value}
        )
        trials.append(
            {
                "id": digest(f"trial {place}")[7:15],
                "point": [rate, rank],
                "acceleratorSeconds": 600 + 37 * place,
                **state,
            }
        )
    best = min((each for each in trials if "value" in each), key=lambda each: float(each["value"]))
    status = {
        "observedGeneration": 1,
        "conditions": [condition("Succeeded", "Unknown", "Searching", "9 of 24 trials are over, 1 runs")],
        "maxTrials": 24,
        "metric": "validationLoss",
        "best": {
            "id": best["id"],
            "fineTuneJobName": f"{name}-{best['id']}",
            "parameters": {"training.learningRate": best["point"][0], "lora.rank": [8, 16, 32][int(best["point"][1])]},
            "value": best["value"],
        },
        "importance": {"training.learningRate": 0.81, "lora.rank": 0.19},
        "trials": trials,
        "acceleratorSeconds": sum(each["acceleratorSeconds"] for each in trials),
        "summary": {"trials": "9/1/24", "best": f"{best['value']:.4g}"},
    }
    template = run_spec()
    template["dataset"] = {"training": {"uri": "s3://datasets/field-guide/train/"}, "validation": {"fraction": 0.1}}
    spec = {
        "template": {"spec": template},
        "parameters": [
            {"name": "training.learningRate", "range": {"minimum": 0.00001, "maximum": 0.001, "scale": "Log"}},
            {"name": "lora.rank", "values": [8, 16, 32]},
        ],
        "maxTrials": 24,
    }
    return body("FineTuneSweep", name, spec, status, **metadata)


def hostile(name: str = "hostile") -> Body:
    """A failed run whose every free text is a page's worst."""
    made = failed(name, HOSTILE)
    made["metadata"]["annotations"] = {"note": HOSTILE}
    made["spec"]["dataset"]["training"]["uri"] = "s3://datasets/" + HOSTILE.replace(" ", "")[:200]
    made["status"]["attempts"][0]["reason"] = "<b>Odd</b>"
    return made


def team() -> list[Body]:
    """Everything above: the day of a team."""
    return [
        training(),
        completed(),
        completed("field-guide-v2", rank=16, end=1.21),
        failed(),
        queued(),
        hostile(),
        evaluation("field-guide-v3", "field-guide-v3", passed=True),
        evaluation("field-guide-v2", "field-guide-v2", passed=False),
        rollout(),
        rollout("field-guide-next", moving=True),
        sweep(),
    ]
