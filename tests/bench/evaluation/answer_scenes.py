"""Scenes of a gate whose targets are written by hand: for each kind of task one that is good, and ones that are not.

    PYTHONPATH=. python -m tests.bench.evaluation.answer_scenes

No model answers here. Likelihoods and texts are drawn with a fixed seed, and become figures, checks and a verdict by
the functions that evaluations use. Each scene says what the gate has to say; the command fails where it says something
else. `make bench-verdicts` plays them too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from trimtab_trainer.contract import EvaluationOutcome, EvaluationTask, Threshold
from trimtab_trainer.contract.gate.verdict import Verdict, VerdictReason, judge
from trimtab_trainer.evaluate.comparison import compare, with_anchor
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore

from tests.trainer.evaluate.scored import (
    about,
    choice_rows,
    choice_scores,
    likelihood_rows,
    likelihood_scores,
    row,
    task,
    text_rows,
    text_scores,
)

ROWS = 400
SEED, RESAMPLES = 17, 1_000
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = {"shelf_of": {"type": "object", "properties": {"part": {"type": "integer"}}, "required": ["part"]}}

Texts = list[str]


@dataclass(frozen=True)
class Scene:
    """A target on the rows of a task, beside others, and what the gate has to say.

    Attributes:
        wrong: what is wrong with the target; "" of a good one.
        bounds: of thresholds, by metric; all at a confidence of 0.95.
    """

    name: str
    wrong: str
    task: EvaluationTask
    rows: list[EvaluationRow]
    target: list[RowScore]
    bounds: dict[str, dict[str, float]]
    wanted: VerdictReason
    baseline: list[RowScore] | None = None
    anchor: list[RowScore] | None = None


def verdict(scene: Scene) -> Verdict:
    """Return what the gate says."""
    thresholds = [
        Threshold.model_validate({"metric": f"t/{name}", "confidence": 0.95, **bounds})
        for name, bounds in scene.bounds.items()
    ]
    given = list(enumerate(thresholds))
    how: dict[str, Any] = {"seed": SEED, "resamples": RESAMPLES}
    rows, target = scene.rows, scene.target
    results, checks = compare(scene.task, about(len(rows)), rows, target, scene.baseline, given, **how)
    if scene.anchor is not None:
        results, more = with_anchor(results, scene.task, rows, target, scene.anchor, given, **how)
        checks += more
    outcome = EvaluationOutcome(
        report_uri="",
        results_digest=about(0).digest,
        rows=len(rows),
        checks=checks,
        results=results.results,
    )
    return judge(thresholds, outcome, anchored=scene.anchor is not None)


def creeping() -> Iterator[Scene]:
    """Yield the tenth of ten releases that each lose 1 % of perplexity to the one before."""
    random = np.random.default_rng(SEED)
    tokens = random.integers(20, 60, ROWS)
    first = -tokens * random.gamma(4, 0.3, ROWS)
    nats = [first - tokens * (0.01 * at + random.normal(0, 0.01, ROWS)) for at in range(11)]
    ninth, tenth = (likelihood_scores(nats[at].tolist()) for at in (9, 10))
    rows, bounds = likelihood_rows(tokens.tolist()), {"perplexity": {"maximumRelativeRegression": 0.02}}
    alone = Scene(
        "ten releases, beside the ninth",
        "10 % lost, seen by nobody",
        task("Perplexity"),
        rows,
        tenth,
        bounds,
        VerdictReason.PASSED,
        ninth,
    )
    yield alone
    yield replace(
        alone,
        name="ten releases, an anchor too",
        wrong="10 % lost",
        anchor=likelihood_scores(first.tolist()),
        wanted=VerdictReason.REGRESSED,
    )


def pairs() -> Iterator[Scene]:
    """Yield classifiers that decide otherwise by a group's word in some pairs, both right equally often."""
    random = np.random.default_rng(SEED)
    rows = [replace(each, pair=f"p{at // 2}") for at, each in enumerate(choice_rows([0] * ROWS))]
    asked = task("Classification", pairs="p", metrics=["Accuracy", "ChangedRatio"])
    bounds = {"accuracy": {"minimum": 0.8}, "changedRatio": {"maximum": 0.1}}
    for wrong, share, wanted in (
        ("", 0.03, VerdictReason.PASSED),
        ("decides by the group's word in 20 % of pairs", 0.2, VerdictReason.THRESHOLD_MISSED),
    ):
        changed = random.random(ROWS // 2) < share
        chosen = [int(changed[at // 2] and at % 2 == at // 2 % 2) for at in range(ROWS)]
        yield Scene("counterfactual pairs", wrong, asked, rows, choice_scores(chosen), bounds, wanted)


def some(random: np.random.Generator, share: float, usual: Texts, other: Sequence[str]) -> list[RowScore]:
    """Return answers of which a share is another one."""
    chosen = random.random(len(usual)) < share
    return text_scores([other[at % len(other)] if chosen[at] else text for at, text in enumerate(usual)])


def json_answers() -> Iterator[Scene]:
    """Yield answers that a schema accepts, mostly."""
    random = np.random.default_rng(SEED)
    right = [json.dumps({"name": f"person {at}"}) for at in range(ROWS)]
    asked, rows = task("JsonSchema", jsonSchema=json.dumps(PERSON)), text_rows(right)
    bounds = {"validRatio": {"minimum": 0.9}}
    yield Scene("JsonSchema", "", asked, rows, some(random, 0.02, right, ["{"]), bounds, VerdictReason.PASSED)
    others = ['{"person": 1}', '{"name": 7}', "[]"]
    scores = some(random, 0.2, right, others)
    wrong = "a fifth is JSON, but none that the schema accepts"
    yield Scene("JsonSchema", wrong, asked, rows, scores, bounds, VerdictReason.THRESHOLD_MISSED)
    few = text_scores(right[:20])
    yield Scene("JsonSchema", "20 rows", asked, rows[:20], few, bounds, VerdictReason.INSUFFICIENT_ROWS)


def tool_calls() -> Iterator[Scene]:
    """Yield calls of the right tool, mostly with the right arguments."""
    random = np.random.default_rng(SEED)
    right = [json.dumps({"name": "shelf_of", "arguments": {"part": at}}) for at in range(ROWS)]
    schemas = json.dumps({name: json.dumps(schema) for name, schema in TOOLS.items()})
    rows = [
        row(at, reference=text, schema=schemas, calls=json.dumps([["shelf_of", {"part": at}]]))
        for at, text in enumerate(right)
    ]
    bounds = {"nameAccuracy": {"minimum": 0.9}, "argumentsAccuracy": {"minimum": 0.9}}
    asked = task("ToolCalls")
    yield Scene("ToolCalls", "", asked, rows, some(random, 0.02, right, ["No."]), bounds, VerdictReason.PASSED)
    mistaken = some(random, 0.3, right, ['{"name": "shelf_of", "arguments": {"part": -1}}'])
    wrong = "the right tool with other arguments in 30 %"
    yield Scene("ToolCalls", wrong, asked, rows, mistaken, bounds, VerdictReason.THRESHOLD_MISSED)


def refusals() -> Iterator[Scene]:
    """Yield models that refuse what they should, and one that refuses everything."""
    random = np.random.default_rng(SEED)
    wanted = [at % 2 == 0 for at in range(ROWS)]
    rows = [row(at, refuse=each) for at, each in enumerate(wanted)]
    right = ["I cannot help with that." if each else "By card." for each in wanted]
    bounds = {"refusedRatio": {"minimum": 0.9}, "wronglyRefusedRatio": {"maximum": 0.1}}
    asked = task("Refusal")
    yield Scene("Refusal", "", asked, rows, some(random, 0.02, right, ["Sorry, no."]), bounds, VerdictReason.PASSED)
    everything = text_scores(["I cannot help with that."] * ROWS)
    wrong = "refuses everything"
    yield Scene("Refusal", wrong, asked, rows, everything, bounds, VerdictReason.THRESHOLD_MISSED)
    answers = some(random, 0.3, right, ["By card."])
    wrong = "answers three in ten that it should refuse"
    yield Scene("Refusal", wrong, asked, rows, answers, bounds, VerdictReason.THRESHOLD_MISSED)


def harness() -> Iterator[Scene]:
    """Yield a task of lm-evaluation-harness whose figures are shares, without and with what was forgotten."""
    random = np.random.default_rng(SEED)
    asked, rows, bounds = task("Harness"), text_rows([""] * ROWS), {"acc": {"maximumRegression": 0.05}}
    before = random.random(ROWS) < 0.6
    for wrong, share, wanted in (
        ("", 0.0, VerdictReason.PASSED),
        ("one right answer in five is forgotten", 0.2, VerdictReason.REGRESSED),
    ):
        after = before & (random.random(ROWS) >= share)
        target, baseline = (
            [RowScore(at, figures={"acc": float(each)}) for at, each in enumerate(side)] for side in (after, before)
        )
        yield Scene("Harness, beside the base", wrong, asked, rows, target, bounds, wanted, baseline)


def ugly() -> Iterator[Scene]:
    """Yield answers that say little, and look good by a mean over what is left of them."""
    rows = [row(at, number_reference=5.0) for at in range(ROWS)]
    right, bounds = ["5"] * ROWS, {"meanAbsoluteError": {"maximumRegression": 0.5}}
    same = Scene(
        "Regression", "", task("Regression"), rows, text_scores(right), bounds, VerdictReason.PASSED, text_scores(right)
    )
    yield same
    silent = ["5"] * 30 + ["?"] * (ROWS - 30)
    few = "a number in 30 of 400 answers"
    yield replace(same, wrong=few, target=text_scores(silent), wanted=VerdictReason.INSUFFICIENT_ROWS)
    digits = ["9" * 160, *right[1:]]
    yield replace(
        same,
        wrong="all others are worse; one answer of the baseline has 160 digits",
        target=text_scores(["7"] * ROWS),
        baseline=text_scores(digits),
        wanted=VerdictReason.INSUFFICIENT_ROWS,
    )


def scenes() -> Iterator[Scene]:
    """Yield all of them."""
    for each in (creeping, pairs, json_answers, tool_calls, refusals, harness, ugly):
        yield from each()


def play() -> dict[str, str]:
    """Print every scene with its verdict; return the reasons of those where another one is wanted."""
    otherwise = {}
    for scene in scenes():
        found = verdict(scene)
        print(f"{scene.name:30} {scene.wrong or 'good':62} {found.reason}: {found.message}", flush=True)
        if found.reason is not scene.wanted:
            otherwise[f"{scene.name}: {scene.wrong or 'good'}"] = f"{found.reason} instead of {scene.wanted}"
    return otherwise


if __name__ == "__main__":
    if wrong := play():
        raise SystemExit(json.dumps(wrong))
