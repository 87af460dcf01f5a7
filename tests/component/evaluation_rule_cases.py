"""Cases of the CEL rules of Evaluations."""

from __future__ import annotations

from typing import Any

from trimtab_operator.api.evaluation import ANCHORED_TO_ITSELF, SAME_ANCHOR
from trimtab_trainer.contract import METRICS_OF
from trimtab_trainer.contract.evaluation import (
    ANCHOR_ALONE,
    CHANGED_ALONE,
    GENERATING,
    NO_ANCHOR,
    NO_BLEU,
    NO_COMPARISON,
    NO_HARNESS_ON_A_HUB,
    NO_JUDGE,
    NO_ODDS,
    NO_PAIR,
    NO_SCORES_OF_PAIRS,
    OF_GROUPS,
    OF_PAIRED_ROWS,
    OF_TURNS,
    ONE_HARNESS_TASK,
    ONE_PLACE,
    PAIRS_OF_PREFERENCE,
    REFUSALS_OF_SPLIT,
    SCHEMA_OF_SPLIT,
    UNQUANTIZED_ENGINE,
    WHOLE_PAIRS,
)
from trimtab_trainer.contract.judging import MEASURED_BLIND, OF_RUBRICS

from tests.component.crd_samples import DIGEST, Body
from tests.component.evaluation_samples import FULL, HELD_OUT, OTHER_DIGEST
from tests.component.rule_cases import (
    CHANGES_OF_NO_RESULT,
    GPUS,
    ONE_EACH,
    ONE_GPU,
    SHARED,
    Case,
    Rule,
    asks,
    immutable,
)

URI = "s3://datasets/questions/"
HUB = "hf://datasets/org/questions@main"
LABELS = ["yes", "no"]
ARTIFACT = {"uri": "s3://adapters/out/adapters/0", "digest": DIGEST}
OTHER_ARTIFACT = {"uri": "s3://adapters/out/adapters/1", "digest": OTHER_DIGEST}
MODEL_AND_OUTPUT: Body = {"spec.baseModel": {"uri": "s3://models/base"}, "spec.output": {"uri": "s3://adapters/out"}}
BASE_MODEL: Body = {
    **MODEL_AND_OUTPUT,
    "spec.target": {"baseModel": True},
    "spec.tasks": [{**HELD_OUT, "dataset": {"uri": URI}}],
}
BASELINE: Body = {"spec.baseline": {"baseModel": True}}
ANCHORED: Body = {**BASELINE, "spec.anchor": {"artifact": ARTIFACT}}


JUDGING: Body = {"instructions": "Prefer what is right."}
ENDPOINT: Body = {"endpoint": {"url": "http://judge:8000/v1", "model": "judge"}}


def judged(**fields: Any) -> Body:
    """Return the change to one Judge task with these settings."""
    return task("Judge", judging={**JUDGING, **fields})


def task(kind: str, **fields: Any) -> Body:
    """Return the change to one task of this type, complete but for what `fields` set."""
    needed: dict[str, Body] = {
        "Classification": {"labels": LABELS},
        "Harness": {"harnessTask": "arc_easy"},
        "Regex": {"pattern": "[0-9]"},
        "Judge": {"judging": JUDGING},
    }
    whole = {"name": "a", "type": kind, "dataset": {"uri": URI}, **needed.get(kind, {}), **fields}
    judged: Body = {"spec.judge": ENDPOINT, **BASELINE} if kind == "Judge" else {}
    return {**judged, "spec.tasks": [{key: value for key, value in whole.items() if value is not None}]}


def threshold(**fields: Any) -> Body:
    return {"spec.thresholds": [{"metric": "heldout/perplexity", **fields}]}


def only(field: str, value: Any, *types: str, **beside: Any) -> dict[Rule, Case]:
    """Return the case of a field that some types of tasks do not have."""
    allowed = "".join(f" or {each}" for each in types).removeprefix(" or ")
    return {
        ("spec.tasks[]", f"{field} is for the type {allowed}"): Case(
            refused=[task(kind, **{field: value}, **beside) for kind in METRICS_OF if kind not in types],
            passed=[
                task(
                    kind,
                    **{field: value},
                    **beside,
                    **({"predictBy": "Generation"} if kind == "Classification" else {}),
                )
                for kind in types
            ]
            if field != "predictBy"
            else [task(kind, predictBy=value) for kind in types],
        )
    }


_TASK_CASES: dict[Rule, Case] = {
    ("spec.tasks[]", "a Classification task needs labels"): Case(
        refused=[task("Classification", labels=None)], passed=[task("Classification"), task("MultipleChoice")]
    ),
    ("spec.tasks[]", ONE_HARNESS_TASK): Case(
        refused=[task("Harness", harnessTask=None), task("Harness", builtin="gsm8k")],
        passed=[task("Harness"), task("Harness", harnessTask=None, builtin="gsm8k")],
    ),
    ("spec.tasks[]", NO_HARNESS_ON_A_HUB): Case(
        refused=[task("Harness", dataset={"uri": HUB})],
        passed=[
            task("Harness"),
            task("Perplexity", dataset={"uri": HUB}),
            task("Harness", harnessTask=None, builtin="gsm8k", dataset={"uri": HUB}),
        ],
    ),
    ("spec", ONE_PLACE): Case(
        refused=[
            {
                "spec.tasks": [
                    {"name": "a", "type": "Perplexity", "dataset": {"uri": HUB}},
                    {"name": "b", "type": "Perplexity", "dataset": {"uri": URI}},
                ]
            }
        ],
        passed=[
            {"spec.tasks": [{"name": each, "type": "Perplexity", "dataset": {"uri": uri}} for each in ("a", "b")]}
            for uri in (HUB, URI)
        ],
    ),
    ("spec.tasks[]", "a Harness task needs dataset.uri"): Case(
        refused=[task("Harness", dataset={"split": "Test"})], passed=[task("Harness")]
    ),
    **only("labels", LABELS, "Classification"),
    **only("predictBy", "Likelihood", "Classification"),
    **only("maxNewTokens", 8, *GENERATING),
    **only("stop", ["\n"], *GENERATING),
    **only("temperature", 0.5, "Generation"),
    **only("topP", 0.5, "Generation", temperature=0.5),
    **only("bleuTokenizer", "Char", "Generation"),
    ("spec.tasks[]", NO_BLEU): Case(
        refused=[task("Generation", metrics=["ChrF"], bleuTokenizer="13a")],
        passed=[
            task("Generation", metrics=["ChrF", "BLEU"], bleuTokenizer="13a"),
            task("Generation", bleuTokenizer="Intl"),
        ],
    ),
    **only("turns", "Each", *OF_TURNS),
    **only("jsonSchema", "{}", "JsonSchema"),
    **only("pattern", "a", "Regex", "Refusal"),
    ("spec.tasks[]", REFUSALS_OF_SPLIT): Case(
        refused=[task("Refusal", dataset={"split": "Test"})],
        passed=[task("Refusal"), task("Refusal", pattern="^No"), task("Regex", dataset={"split": "Test"})],
    ),
    **only("judging", JUDGING, "Judge"),
    ("spec.tasks[]", "a Judge task needs judging"): Case(
        refused=[task("Judge", judging=None)], passed=[task("Judge"), task("Regex")]
    ),
    ("spec.tasks[]", NO_SCORES_OF_PAIRS): Case(
        refused=[
            {**judged(), **task("Judge", metrics=["JudgeScore"])},
            task("Judge", judging={**JUDGING, "mode": "Rubric"}, metrics=["WinRate"]),
            task("Judge", judging={**JUDGING, "mode": "Rubric"}, metrics=["JudgeScore", "InconsistentRatio"]),
        ],
        passed=[
            task("Judge", metrics=["WinRate", "InconsistentRatio", "Agreement"]),
            task("Judge", judging={**JUDGING, "mode": "Rubric"}, metrics=["JudgeScore", "UnreadableRatio"]),
        ],
    ),
    ("spec.tasks[].judging", OF_RUBRICS): Case(
        refused=[judged(minimumScore=1), judged(maximumScore=9, mode="Pairwise")],
        passed=[judged(minimumScore=1, mode="Rubric"), judged(mode="Pairwise")],
    ),
    ("spec.tasks[].judging", "minimumScore must be below maximumScore"): Case(
        refused=[
            judged(mode="Rubric", minimumScore=5),
            judged(mode="Rubric", maximumScore=1),
            judged(mode="Rubric", minimumScore=3, maximumScore=3),
        ],
        passed=[judged(mode="Rubric", minimumScore=0, maximumScore=1), judged(mode="Rubric", minimumScore=4)],
    ),
    ("spec.tasks[].judging", MEASURED_BLIND): Case(
        refused=[judged(minimumAgreement=0.8, showReference=True)],
        passed=[judged(minimumAgreement=0.8), judged(showReference=True)],
    ),
    ("spec.judge", "exactly one of endpoint and model must be set"): Case(
        refused=[
            {"spec.judge": {}},
            {"spec.judge": {**ENDPOINT, "model": {"uri": "s3://models/judge", "digest": DIGEST}}},
        ],
        passed=[{"spec.judge": ENDPOINT}, {"spec.judge": {"model": {"uri": "s3://models/judge", "digest": DIGEST}}}],
    ),
    ("spec", NO_JUDGE): Case(
        refused=[{key: value for key, value in task("Judge").items() if key != "spec.judge"}],
        passed=[task("Judge"), task("Regex")],
    ),
    ("spec", NO_PAIR): Case(
        refused=[
            {key: value for key, value in each.items() if key != "spec.baseline"}
            for each in (judged(), judged(mode="Pairwise"))
        ],
        passed=[{key: value for key, value in judged(mode="Rubric").items() if key != "spec.baseline"}, judged()],
    ),
    ("spec.tasks[]", "a Regex task needs pattern"): Case(
        refused=[task("Regex", pattern=None)], passed=[task("Regex"), task("JsonSchema")]
    ),
    ("spec.tasks[]", SCHEMA_OF_SPLIT): Case(
        refused=[task("JsonSchema", dataset={"split": "Test"})],
        passed=[
            task("JsonSchema", dataset={"split": "Test"}, jsonSchema="{}"),
            task("JsonSchema"),
            task("Regex", dataset={"split": "Test"}),
        ],
    ),
    **only("harnessTask", "arc_easy", "Harness"),
    **only("pairs", "pair", *OF_PAIRED_ROWS),
    ("spec.tasks[]", CHANGED_ALONE): Case(
        refused=[
            task("Generation", metrics=["ChangedRatio"]),
            task("Classification", pairs="pair", metrics=["Accuracy"]),
        ],
        passed=[
            task("Classification", pairs="pair", metrics=["Accuracy", "ChangedRatio"]),
            task("Generation", pairs="pair"),
        ],
    ),
    ("spec.tasks[]", WHOLE_PAIRS): Case(
        refused=[
            task("Generation", pairs="pair", dataset={"split": "Test"}),
            task("Generation", pairs="pair", dataset={"uri": URI, "limit": 10}),
            task("Generation", pairs="pair", temperature=0.5),
            task("Generation", pairs="pair", turns="Each"),
        ],
        passed=[task("Generation", pairs="pair", temperature=0), task("Generation", turns="Each")],
    ),
    **only("builtin", "gsm8k", "Harness", harnessTask=None),
    **only("fewShot", 1, "Harness"),
    ("spec.tasks[]", "maxNewTokens and stop of a Classification task need predictBy: Generation"): Case(
        refused=[
            task("Classification", maxNewTokens=8),
            task("Classification", stop=["\n"]),
            task("Classification", maxNewTokens=8, predictBy="Likelihood"),
        ],
        passed=[task("Classification", maxNewTokens=8, stop=["\n"], predictBy="Generation")],
    ),
    ("spec.tasks[]", PAIRS_OF_PREFERENCE): Case(
        refused=[
            task("Preference", dataset={"uri": URI, "format": "Messages"}),
            task("Preference", dataset={"uri": URI, "format": "UnpairedPreference"}),
            task("Perplexity", dataset={"uri": URI, "format": "Preference"}),
        ],
        passed=[
            task("Preference"),
            task("Preference", dataset={"split": "Test"}),
            task("Preference", dataset={"uri": URI, "format": "Preference"}),
            task("Perplexity", dataset={"uri": URI, "format": "Messages"}),
        ],
    ),
    ("spec.tasks[]", "a MultipleChoice task needs dataset.uri: rows that training held out have no choices"): Case(
        refused=[task("MultipleChoice", dataset={"split": "Test"})], passed=[task("MultipleChoice")]
    ),
    (
        "spec.tasks[]",
        "groupBy of the split Test can only be group, the column that training keeps; use dataset.uri",
    ): Case(
        refused=[task("Generation", dataset={"split": "Test"}, groupBy="kind")],
        passed=[
            task("Generation", dataset={"split": "Test"}, groupBy="group"),
            *(task(kind, groupBy="kind") for kind in METRICS_OF),
        ],
    ),
    ("spec.tasks[]", "topP needs a temperature above 0: without one nothing is sampled"): Case(
        refused=[task("Generation", topP=0.5), task("Generation", topP=0.5, temperature=0)],
        passed=[task("Generation", topP=0.5, temperature=0.1), task("Generation", temperature=0)],
    ),
    (
        "spec.tasks[]",
        "BrierScore and CalibrationError need predictBy: Likelihood: a generated label has no probability",
    ): Case(
        refused=[
            task("Classification", predictBy="Generation", metrics=[each])
            for each in ("BrierScore", "CalibrationError")
        ],
        passed=[
            task("Classification", metrics=["BrierScore", "CalibrationError"]),
            task("Classification", predictBy="Likelihood", metrics=["BrierScore"]),
            task("Classification", predictBy="Generation", metrics=["Accuracy"]),
            task("MultipleChoice", metrics=["CalibrationError"]),
        ],
    ),
    ("spec.tasks[]", "metrics must not repeat a value"): Case(
        refused=[task("Generation", metrics=["BLEU", "ChrF", "BLEU"])],
        passed=[task("Generation", metrics=["BLEU", "ChrF"])],
    ),
    ("spec.tasks[]", "metrics of a Harness task are those of its YAML file; remove metrics"): Case(
        refused=[task("Harness", metrics=["Accuracy"])], passed=[task("Harness")]
    ),
    ("spec.tasks[]", "a Harness task reads the columns that its YAML file names; remove ignoreKeys"): Case(
        refused=[task("Harness", dataset={"uri": URI, "ignoreKeys": ["images"]})],
        passed=[task("Harness"), task("Perplexity", dataset={"split": "Test", "ignoreKeys": ["images"]})],
    ),
    **{
        ("spec.tasks[]", f"metrics of a {kind} task are {', '.join(metrics)}"): Case(
            refused=[
                task(kind, metrics=[metrics[0], "Perplexity" if kind != "Perplexity" else "BLEU"]),
                task(kind, metrics=["Accuracy" if kind in ("Perplexity", "Regression", "Generation") else "BLEU"]),
            ],
            # Of a judge some are of another mode.
            passed=[
                task(
                    kind,
                    metrics=[each for each in metrics if each != "JudgeScore"],
                    **({"pairs": "pair"} if "ChangedRatio" in metrics else {}),
                ),
                task(kind),
            ],
        )
        for kind, metrics in METRICS_OF.items()
        if metrics
    },
    ("spec.tasks[].dataset", "exactly one of split and uri must be set"): Case(
        refused=[
            task("Perplexity", dataset={"limit": 1}),
            task("Perplexity", dataset={"split": "Test", "uri": URI}),
        ],
        passed=[task("Perplexity", dataset={"split": "Test"}), task("Perplexity", dataset={"uri": URI})],
    ),
    ("spec.tasks[].dataset", "format is for uri; the format of the split is known"): Case(
        refused=[task("Perplexity", dataset={"split": "Test", "format": "Auto"})],
        passed=[task("Perplexity", dataset={"uri": URI, "format": "Auto"})],
    ),
}

ODDS = {"metric": "a/accuracy", "maximumOddsGap": 0.1, "minimumGroupRows": 20}

_THRESHOLD_CASES: dict[Rule, Case] = {
    (
        "spec.thresholds[]",
        "a threshold needs one of minimum, maximum, maximumRegression, maximumRelativeRegression, maximumGroupGap, "
        "maximumWorseRatio, maximumGroupRegression, maximumOddsGap",
    ): Case(
        refused=[threshold(), threshold(confidence=0.9)],
        passed=[threshold(minimum=0), threshold(maximum=0)]
        + [{**BASELINE, **threshold(**{f"maximum{kind}Regression": 0})} for kind in ("", "Relative")],
    ),
    ("spec.thresholds[]", OF_GROUPS): Case(
        refused=[threshold(minimum=0, minimumGroupRows=2)],
        passed=[{"spec.tasks[0].groupBy": "group", **threshold(maximumGroupGap=0, minimumGroupRows=2)}],
    ),
    ("spec.thresholds[]", "worseBy belongs to maximumWorseRatio"): Case(
        refused=[threshold(minimum=0, worseBy=0.5)],
        passed=[{**BASELINE, **threshold(maximumWorseRatio=0.1, worseBy=0.5)}],
    ),
    ("spec.thresholds[]", NO_COMPARISON): Case(
        refused=[
            {**ANCHORED, **threshold(minimum=0, against="Anchor")},
            threshold(minimum=0, against="Baseline"),
            {
                "spec.tasks[0].groupBy": "group",
                **ANCHORED,
                **threshold(maximumGroupGap=0.1, against="Baseline"),
            },
        ],
        passed=[
            {**ANCHORED, **threshold(maximumRegression=0, against="Anchor")},
            {**ANCHORED, **threshold(maximumWorseRatio=0.1, minimum=0, against="Baseline")},
        ],
    ),
    ("spec", NO_ANCHOR): Case(
        refused=[{**BASELINE, **threshold(maximumRegression=0, against=each)} for each in ("Anchor", "Baseline")],
        passed=[
            {**ANCHORED, **threshold(maximumRegression=0, against="Anchor")},
            {**BASELINE, **threshold(maximumRegression=0)},
        ],
    ),
    ("spec.thresholds[]", "minimum must not be above maximum"): Case(
        refused=[threshold(minimum=1, maximum=0.5)],
        passed=[threshold(minimum=1, maximum=1), threshold(minimum=-1, maximum=0.5)],
    ),
    (
        "spec",
        "maximumRegression, maximumRelativeRegression, maximumWorseRatio and maximumGroupRegression need baseline",
    ): Case(
        refused=[
            threshold(maximumRegression=0),
            threshold(maximumRelativeRegression=0.1, minimum=0),
            threshold(maximumWorseRatio=0.1),
            {"spec.tasks[0].groupBy": "group", **threshold(maximumGroupRegression=0.1)},
        ],
        passed=[
            {**BASELINE, **threshold(maximumRegression=0)},
            {**BASELINE, **threshold(maximumRelativeRegression=0.1)},
            {**BASELINE, **threshold(maximumWorseRatio=0.1)},
            {"spec.baseline": {"rolloutName": "a"}, **threshold(maximumRegression=0)},
            threshold(minimum=0),
            {},
        ],
    ),
    ("spec", "the first part of every threshold's metric must be the name of a task"): Case(
        refused=[
            {"spec.thresholds": [{"metric": f"{name}/perplexity", "minimum": 0}]}
            for name in ("heldou", "heldoutt", "other", "eldout")
        ],
        passed=[threshold(minimum=0), {"spec.thresholds": []}],
    ),
    ("spec", NO_ODDS): Case(
        refused=[
            {**task("Classification", labels=["x", "y"]), "spec.thresholds": [ODDS]},
            {**task("Harness", groupBy="kind"), "spec.thresholds": [ODDS]},
        ],
        passed=[{**task("Classification", labels=["x", "y"], groupBy="kind"), "spec.thresholds": [ODDS]}],
    ),
    ("spec", "maximumGroupGap and maximumGroupRegression need groupBy in their task"): Case(
        refused=[
            threshold(maximumGroupGap=0.1),
            {**BASELINE, **threshold(maximumGroupRegression=0.1)},
            {
                "spec.tasks": [HELD_OUT, {**HELD_OUT, "name": "other", "groupBy": "group"}],
                **threshold(maximumGroupGap=0.1),
            },
        ],
        passed=[
            {"spec.tasks[0].groupBy": "group", **threshold(maximumGroupGap=0.1)},
            {**task("Harness", groupBy="kind"), "spec.thresholds": [{"metric": "a/acc", "maximumGroupGap": 0.1}]},
            threshold(minimum=0),
        ],
    ),
}

_MODEL_CASES: dict[Rule, Case] = {
    ("spec.target", "exactly one of fineTuneJobName, artifact and baseModel must be set"): Case(
        refused=[
            {"spec.target": {}},
            {"spec.target": {"fineTuneJobName": "a", "baseModel": True}},
            {**MODEL_AND_OUTPUT, "spec.target": {"artifact": ARTIFACT, "baseModel": True}},
            {**MODEL_AND_OUTPUT, "spec.target": {"fineTuneJobName": "a", "artifact": ARTIFACT}},
        ],
        passed=[
            {"spec.target": {"fineTuneJobName": "a"}},
            {**MODEL_AND_OUTPUT, "spec.target": {"artifact": ARTIFACT}},
            BASE_MODEL,
        ],
    ),
    ("spec.baseline", "exactly one of artifact, baseModel and rolloutName must be set"): Case(
        refused=[
            {"spec.baseline": {}},
            {"spec.baseline": {"artifact": ARTIFACT, "baseModel": True}},
            {"spec.baseline": {"artifact": ARTIFACT, "rolloutName": "a"}},
            {"spec.baseline": {"rolloutName": "a", "baseModel": True}},
        ],
        passed=[{"spec.baseline": {"artifact": ARTIFACT}}, BASELINE, {"spec.baseline": {"rolloutName": "a"}}],
    ),
    ("spec.anchor", "exactly one of artifact and baseModel must be set"): Case(
        refused=[
            {**BASELINE, "spec.anchor": {}},
            {"spec.baseline": {"rolloutName": "a"}, "spec.anchor": {"artifact": ARTIFACT, "baseModel": True}},
        ],
        passed=[ANCHORED, {"spec.baseline": {"rolloutName": "a"}, "spec.anchor": {"baseModel": True}}],
    ),
    ("spec", ANCHOR_ALONE): Case(
        refused=[{"spec.anchor": {"artifact": ARTIFACT}}, {"spec.anchor": {"baseModel": True}}], passed=[ANCHORED]
    ),
    ("spec", SAME_ANCHOR): Case(
        refused=[
            {**BASELINE, "spec.anchor": {"baseModel": True}},
            {
                "spec.baseline": {"artifact": ARTIFACT},
                "spec.anchor": {"artifact": {**OTHER_ARTIFACT, "digest": DIGEST}},
            },
        ],
        passed=[
            ANCHORED,
            {"spec.baseline": {"artifact": ARTIFACT}, "spec.anchor": {"baseModel": True}},
            {"spec.baseline": {"artifact": ARTIFACT}, "spec.anchor": {"artifact": OTHER_ARTIFACT}},
            {"spec.baseline": {"rolloutName": "a"}, "spec.anchor": {"artifact": ARTIFACT}},
        ],
    ),
    ("spec", "baseModel and output are needed where target.fineTuneJobName does not give them"): Case(
        refused=[
            {"spec.target": {"artifact": ARTIFACT}},
            {"spec.target": {"artifact": ARTIFACT}, "spec.baseModel": MODEL_AND_OUTPUT["spec.baseModel"]},
            {**BASE_MODEL, "spec.output": ...},
        ],
        passed=[{**MODEL_AND_OUTPUT, "spec.target": {"artifact": ARTIFACT}}, MODEL_AND_OUTPUT, {}],
    ),
    ("spec", "dataset.split is of an adapter's data; the target baseModel needs dataset.uri in every task"): Case(
        refused=[
            {**BASE_MODEL, "spec.tasks": [HELD_OUT]},
            {**BASE_MODEL, "spec.tasks": [*task("Generation")["spec.tasks"], HELD_OUT]},
        ],
        passed=[BASE_MODEL, {**MODEL_AND_OUTPUT, "spec.target": {"artifact": ARTIFACT}}],
    ),
    ("spec", ANCHORED_TO_ITSELF): Case(
        refused=[
            {
                **BASE_MODEL,
                "spec.baseline": {"artifact": ARTIFACT},
                "spec.anchor": {"baseModel": True},
            },
            {
                **MODEL_AND_OUTPUT,
                "spec.target": {"artifact": ARTIFACT},
                "spec.baseline": {"baseModel": True},
                "spec.anchor": {"artifact": {**OTHER_ARTIFACT, "digest": DIGEST}},
            },
        ],
        passed=[
            {
                **MODEL_AND_OUTPUT,
                "spec.target": {"artifact": ARTIFACT},
                "spec.baseline": {"baseModel": True},
                "spec.anchor": {"artifact": {**OTHER_ARTIFACT, "digest": OTHER_DIGEST}},
            },
            {**BASE_MODEL, "spec.baseline": {"artifact": ARTIFACT}, "spec.anchor": {"artifact": {**OTHER_ARTIFACT}}},
        ],
    ),
    ("spec", "target and baseline must differ: both are the base model"): Case(
        refused=[{**BASE_MODEL, **BASELINE}],
        passed=[
            {**BASE_MODEL, "spec.baseline": {"artifact": ARTIFACT}},
            {**BASE_MODEL, "spec.baseline": {"rolloutName": "a"}},
            BASELINE,
        ],
    ),
    ("spec", "target and baseline must differ: both are the same artifact"): Case(
        refused=[
            {
                **MODEL_AND_OUTPUT,
                "spec.target": {"artifact": ARTIFACT},
                "spec.baseline": {"artifact": {**OTHER_ARTIFACT, "digest": DIGEST}},
            }
        ],
        passed=[
            {
                **MODEL_AND_OUTPUT,
                "spec.target": {"artifact": ARTIFACT},
                "spec.baseline": {"artifact": {**ARTIFACT, "digest": OTHER_DIGEST}},
            },
            {"spec.baseline": {"artifact": ARTIFACT}},
        ],
    ),
    ("spec", "quantization is for the precision AsTrained"): Case(
        refused=[{"spec.quantization": {}, "spec.precision": "AsServed"}],
        passed=[{"spec.quantization": {}}, {"spec.precision": "AsServed"}],
    ),
    ("spec", UNQUANTIZED_ENGINE): Case(
        refused=[{"spec.engine": "Vllm"}, {"spec.engine": "Vllm", "spec.precision": "AsTrained"}],
        passed=[{"spec.engine": "Vllm", "spec.precision": "AsServed"}, {"spec.engine": "Transformers"}],
    ),
}

_UPDATES: dict[str, Case] = {
    "target": Case(
        refused=[
            {"spec.target.fineTuneJobName": "other"},
            {"spec.target": {"artifact": ARTIFACT}, **MODEL_AND_OUTPUT},
        ],
        passed=[],
    ),
    "baseModel": Case(
        given=FULL,
        refused=[{"spec.baseModel.uri": "s3://models/other"}, {"spec.baseModel.digest": ...}],
        passed=[{"spec.baseModel.secretName": "other"}, {"spec.target.artifact.secretName": "other"}],
    ),
    "baseline": Case(
        refused=[BASELINE, {"spec.baseline": {"artifact": ARTIFACT}}, {"spec.baseline": {"rolloutName": "a"}}],
        passed=[],
    ),
    "anchor": Case(
        given=FULL,
        refused=[{"spec.anchor": ...}, {"spec.anchor": {"baseModel": True}, "spec.baseline": {"artifact": ARTIFACT}}],
        passed=[{"spec.anchor.artifact.secretName": "other"}],
    ),
    "tasks": Case(
        given=FULL,
        refused=[
            {"spec.tasks[1].groupBy": "group"},
            {"spec.tasks[2].topP": ...},
            {"spec.tasks[2].metrics": ["ExactMatch", "RougeL", "TokenF1", "BLEU", "ChrF", "TruncatedRatio"]},
            {"spec.tasks[2].metrics": ...},
            {"spec.tasks[0].dataset.uri": "s3://datasets/other/"},
            {"spec.tasks": [FULL["spec"]["tasks"][number] for number in (1, 0, *range(2, len(FULL["spec"]["tasks"])))]},
            {"spec.tasks": FULL["spec"]["tasks"][:3]},
        ],
        passed=[],
    ),
    "thresholds": Case(
        given=FULL,
        refused=[
            {"spec.thresholds": ...},
            {"spec.thresholds": []},
            {"spec.thresholds[0].minimum": 0.2},
            {"spec.thresholds[0].minimum": ...},
            {"spec.thresholds[0].confidence": ...},
            {"spec.thresholds[1].minimum": 0},
        ],
        passed=[],
    ),
    "engine": Case(
        refused=[{"spec.engine": "Vllm"}],
        passed=[{"spec.engine": "Transformers"}],
    ),
    "precision": Case(refused=[{"spec.precision": "AsServed"}], passed=[{"spec.precision": "AsTrained"}]),
    "quantization": Case(
        given=FULL, refused=[{"spec.quantization": ...}, {"spec.quantization.type": "None"}], passed=[]
    ),
    "output": Case(
        given=FULL,
        refused=[{"spec.output.uri": "s3://adapters/other"}],
        passed=[{"spec.output.secretName": "other"}, {"spec.output.secretName": ...}],
    ),
    "judge": Case(
        given=FULL,
        refused=[
            {"spec.judge.endpoint.url": "http://other:8000/v1"},
            {"spec.judge.endpoint.model": "other"},
            {"spec.judge": {"model": {"uri": "s3://models/judge", "digest": DIGEST}}},
        ],
        passed=[{"spec.judge.endpoint.secretName": "other"}, {"spec.judge.endpoint.secretName": ...}],
    ),
    "maximumTrainedOnRatio": Case(refused=[{"spec.maximumTrainedOnRatio": 1}], passed=[]),
    "resamples": Case(refused=[{"spec.resamples": 100}], passed=[{"spec.resamples": 10_000}]),
    "seed": Case(refused=[{"spec.seed": 18}], passed=[{"spec.seed": ...}]),
}

EVALUATION_CASES: dict[Rule, Case] = {
    **SHARED,
    **_TASK_CASES,
    **_THRESHOLD_CASES,
    **_MODEL_CASES,
    ("spec", ONE_GPU): Case(
        refused=[
            asks("resources", **{side: {name: count}})
            for side in ("limits", "requests")
            for name in GPUS
            for count in (2, "1k")
        ],
        passed=[asks("resources", **{side: each}) for side in ("limits", "requests") for each in ONE_EACH],
    ),
    **immutable(
        "Evaluation",
        _UPDATES,
        dict.fromkeys(("target", "baseModel", "baseline", "anchor", "output", "judge"), "secretName"),
        [
            *CHANGES_OF_NO_RESULT,
            {"spec.datasetSecretName": "other"},
            {"spec.datasetSecretName": ...},
            {"spec.batchSize": 4},
            {"spec.batchSize": ...},
        ],
    ),
}
