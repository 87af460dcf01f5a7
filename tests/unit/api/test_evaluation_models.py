"""Evaluations as values: what `kubectl get` prints of them, and how large their status may become."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from string import ascii_lowercase
from typing import Any

import pytest
from trimtab_operator.api import AttemptStatus, Condition, Evaluation, EvaluationProgress, EvaluationStatus, ModelStatus
from trimtab_operator.api.evaluation_status import EvaluationSources
from trimtab_operator.api.status.conditions import MESSAGE_LENGTH
from trimtab_operator.api.work import ATTEMPT_MESSAGE_LENGTH, EARLIER_MESSAGE_LENGTH, MirroredStatus
from trimtab_operator.domain.evaluation.results import note_outcome
from trimtab_trainer.contract import BOUNDS, PACKED_OUTCOME_BYTES, Check, EvaluationOutcome, Result
from trimtab_trainer.contract.evaluation import FIGURE_LENGTH, GAPS, OF_COMPARISON

from tests.component.crd_samples import DIGEST, TIME, Body, change
from tests.component.evaluation_rule_cases import EVALUATION_CASES
from tests.component.evaluation_samples import EVALUATION_STATUS, FULL, MINIMAL, VARIANTS
from tests.component.rule_cases import Case

METADATA = {"namespace": "default", "uid": "0"}
OBJECT = "s3://adapters/" + "a" * 120


def parsed(body: Body) -> Any:
    return Evaluation.parse({**body, "metadata": {**body["metadata"], **METADATA}})


def largest_status() -> EvaluationStatus:
    conditions = [
        Condition(
            type=kind,
            status="False",
            observed_generation=12,
            last_transition_time=TIME,
            reason="InsufficientRows",
            message="m" * MESSAGE_LENGTH,
        )
        for kind in ("Succeeded", "Passed")
    ]
    source = {"uri": OBJECT, "secretName": "object-storage"}
    return EvaluationStatus(
        observed_generation=12,
        conditions=conditions,
        start_time=TIME,
        completion_time=TIME,
        progress=EvaluationProgress(tasks_done=100, tasks=100, percent=100),
        target=ModelStatus(uri=OBJECT, digest=DIGEST),
        baseline=ModelStatus(uri=OBJECT, digest=DIGEST),
        anchor=ModelStatus(uri=OBJECT, digest=DIGEST),
        resolved=EvaluationSources.model_validate(
            {
                "baseModel": {**source, "digest": DIGEST},
                "datasetSecretName": "object-storage",
                "output": source,
                "targetSecretName": "object-storage",
            }
        ),
        mirrored=[
            MirroredStatus(uri="hf://organisation/model@main", commit="0" * 40, digest=DIGEST, license="apache-2.0")
        ],
        looks=1_000_000,
        base_model_digest=DIGEST,
        data_digest=DIGEST,
        evaluation_digest=DIGEST,
        judge_ready=True,
        answers_digest=DIGEST,
        rows=1_000_000,
        report_uri=OBJECT + "/evaluations/" + "0" * 64 + "/report.html",
        results=[],
        results_omitted=200,
        images={
            "prepare": "registry.example.com/team/" + "p" * 100,
            "evaluate": "registry.example.com/" + "t" * 100,
            "judge": "registry.example.com/" + "t" * 100,
        },
        failures=10,
        disruptions=100,
        active_seconds=31_536_000,
        accelerator_seconds=31_536_000,
        lost_accelerator_seconds=31_536_000,
        attempts=[
            AttemptStatus(
                number=number,
                stage="evaluate",
                job_name="n" * 63,
                job_uid="00000000-0000-0000-0000-000000000000",
                reason="HarnessTaskNotFound",
                message="m" * (ATTEMPT_MESSAGE_LENGTH if number == 9 else EARLIER_MESSAGE_LENGTH),
                charged_to="disruptions",
                start_time=TIME,
                end_time=TIME,
                active_seconds=31_536_000,
                start_step=50,
                end_step=100,
            )
            for number in range(10)
        ],
    )


def size(status: EvaluationStatus) -> int:
    return len(json.dumps(status.to_json(), separators=(",", ":")))


def large_outcome(tasks: int = 50, groups: int = 500, *, anchored: bool = False) -> EvaluationOutcome:
    """Return what an evaluation of this many tasks may find: 32 thresholds, each with all of its bounds failed."""
    random_figures = random.Random(5)
    figure = random_figures.random
    names = [f"held-out-rows-of-api-group-{number}" for number in range(tasks)]
    names_of_groups = ["".join(random_figures.choices(ascii_lowercase, k=100)) for _ in range(groups)]
    clusters = random.Random(6).sample(range(1_000_000), 32)
    metrics = ("rougeL", "exactMatch", "tokenF1", "bleu", "chrF")
    results = [
        Result(
            task=name,
            metric=metric,
            value=figure(),
            low=figure(),
            high=figure(),
            count=random_figures.randrange(1_000_000),
            baseline=figure(),
            change=-figure(),
            change_low=-figure(),
            change_high=-figure(),
            **(
                {each: figure() for each in ("anchor", "anchor_change", "anchor_change_low", "anchor_change_high")}
                if anchored
                else {}
            ),
        )
        for metric in metrics
        for name in names
    ]
    checks = [
        Check.model_validate(
            {
                "threshold": number,
                "bound": bound,
                "against": against,
                "estimate": figure(),
                **(
                    {
                        "low": figure(),
                        "figure": "".join(random_figures.choices(ascii_lowercase, k=FIGURE_LENGTH)),
                        "worst": names_of_groups[random_figures.randrange(groups)],
                        "best": names_of_groups[random_figures.randrange(groups)],
                    }
                    if bound in GAPS
                    else {
                        "p_pass": figure(),
                        "p_fail": figure(),
                        "rows_needed": random_figures.randrange(1_000_000),
                        "clusters": clusters[number],
                    }
                ),
            }
        )
        for number in range(32)
        for bound in BOUNDS
        for against in (("Baseline", "Anchor") if anchored and bound in OF_COMPARISON else ("Baseline",))
    ]
    return EvaluationOutcome(
        report_uri=f"{OBJECT}/evaluations/{DIGEST}/report.html",
        results_digest=DIGEST,
        rows=1_000_000,
        results=results,
        checks=checks,
    )


def test_the_largest_status_stays_below_10_kilobytes() -> None:
    """Attempts and conditions at their bounds, 32 thresholds that all fail: results get the room that is left."""
    status = largest_status()
    assert set(EvaluationStatus.model_fields) == status.model_fields_set, "a new field belongs into this test"
    outcome = large_outcome()
    metrics = [f"{each.task}/{each.metric}" for each in outcome.results[:32]]
    bounds = {"minimum": 2, "maximum": 3, "maximumRegression": 0, "maximumGroupGap": 0}
    evaluation = parsed(
        change(FULL, {"spec.thresholds": [{"metric": metric, **bounds, "confidence": 0.95} for metric in metrics]})
    )
    for attempts in (10, 1):
        fewer = status.model_copy(update={"attempts": status.attempts[:attempts]})
        noted = note_outcome(evaluation, fewer, outcome, datetime(2026, 11, 24, tzinfo=UTC))
        assert len(noted.results) + noted.results_omitted == len(outcome.results)
        full = noted.model_copy(update={"conditions": status.conditions})
        assert size(full) < 10_000
    assert len(noted.results) > 4, "in the usual case there is room for more than the headline"
    assert all(result.failed for result in noted.results)


@pytest.mark.parametrize(("groups", "anchored"), [(2, False), (500, False), (500, True)])
def test_the_largest_outcome_fits_a_termination_message(groups: int, anchored: bool) -> None:
    """The facts that the verdict needs are whole: results are left out first, then names of groups."""
    outcome = large_outcome(groups=groups, anchored=anchored)
    packed = outcome.pack(PACKED_OUTCOME_BYTES)
    assert len(packed) <= PACKED_OUTCOME_BYTES
    unpacked = EvaluationOutcome.unpack(packed)
    assert unpacked.omitted + len(unpacked.results) == len(outcome.results)
    assert [(each.threshold, each.bound, each.against) for each in unpacked.checks] == [
        (each.threshold, each.bound, each.against) for each in outcome.checks
    ]
    for theirs, ours in zip(unpacked.checks, outcome.checks, strict=True):
        # With every bound of 32 thresholds set few digits fit; they are rounded in the direction that refuses.
        assert theirs.estimate == pytest.approx(ours.estimate, rel=1e-2 if anchored else 1e-3)
        if ours.bound in GAPS:
            assert (theirs.p_pass, theirs.rows_needed) == (None, None)
            continue
        assert theirs.p_pass == pytest.approx(ours.p_pass, rel=0.1)
        assert theirs.rows_needed == (None if anchored else pytest.approx(ours.rows_needed, rel=0.5))


def test_clusters_make_room_where_no_rows_are_known_to_decide() -> None:
    outcome = large_outcome(groups=2, anchored=True)
    checks = [each.model_copy(update={"rows_needed": None}) for each in outcome.checks]
    packed = outcome.model_copy(update={"checks": checks}).pack(PACKED_OUTCOME_BYTES)
    assert len(packed) <= PACKED_OUTCOME_BYTES
    assert {each.clusters for each in EvaluationOutcome.unpack(packed).checks} == {None}


def test_an_outcome_of_the_usual_size_keeps_everything() -> None:
    outcome = large_outcome(tasks=6)
    usual = outcome.model_copy(update={"results": outcome.results[:12], "checks": outcome.checks[:10]})
    unpacked = EvaluationOutcome.unpack(usual.pack(PACKED_OUTCOME_BYTES))
    assert unpacked.omitted == 0
    assert [(each.task, each.metric, each.count) for each in unpacked.results] == [
        (each.task, each.metric, each.count) for each in usual.results
    ]
    assert unpacked.results[0].value == pytest.approx(usual.results[0].value, rel=1e-5)
    assert unpacked.checks[4].worst == (usual.checks[4].worst or "")[:64]
    assert unpacked.checks[7].figure == (usual.checks[7].figure or "")[:64]


def test_text_that_is_no_outcome_is_refused() -> None:
    for text in ("", "text", "Wp@9q", "{}"):
        with pytest.raises(ValueError, match="no outcome of an evaluation"):
            EvaluationOutcome.unpack(text)


@pytest.mark.parametrize("sample", [MINIMAL, *VARIANTS.values()], ids=["minimal", *VARIANTS])
def test_a_sample_is_parsed_and_its_summary_left_out(sample: Body) -> None:
    evaluation = parsed({**sample, "status": EVALUATION_STATUS})
    assert evaluation.status.to_json() == EVALUATION_STATUS
    evaluation.spec.check()


def test_there_is_no_summary_when_there_is_nothing_to_print() -> None:
    assert "summary" not in EvaluationStatus().to_json()
    assert EvaluationStatus(progress=EvaluationProgress(percent=3)).to_json()["summary"] == {"progress": "3%"}


GENERATION = {"name": "heldout", "type": "Generation", "dataset": {"split": "Test"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec.thresholds": [{"metric": "heldout/rougeL", "minimum": 1}]}, "task heldout gives perplexity"),
        ({"spec.thresholds": [{"metric": "other/perplexity", "minimum": 1}]}, "there is no task 'other'"),
        ({"spec.thresholds": [{"metric": "heldout/perplexity", "maximumRegression": 1}]}, "needs spec.baseline"),
        ({"spec.thresholds": [{"metric": "heldout/perplexity", "maximumGroupGap": 1}]}, "needs groupBy in task"),
        (
            {
                "spec.tasks": [{**GENERATION, "metrics": ["BLEU"]}],
                "spec.thresholds": [{"metric": "heldout/chrF", "minimum": 1}],
            },
            "task heldout gives bleu",
        ),
        ({"spec.tasks": [GENERATION, GENERATION]}, "every task needs a name of its own"),
    ],
)
def test_a_threshold_that_no_task_answers_is_refused_by_the_operator(changes: Body, words: str) -> None:
    """What the API server cannot check, or does not in full: the operator answers SpecInvalid."""
    spec = parsed(change(MINIMAL, changes)).spec
    with pytest.raises(ValueError, match=words):
        spec.check()


NOT_IN_MODELS = ("is immutable", "name must have at most", "has no groupBy", "can only be group", "held out have")
"""What only the API server refuses; the last three are refused by prepare, with reasons of their own."""


def of_the_models() -> list[Any]:
    cases = []
    for (path, message), case in EVALUATION_CASES.items():
        if not path.startswith("spec.template") and not any(words in message for words in NOT_IN_MODELS):
            cases.append(pytest.param(case, id=f"{path}: {message}"))
    return cases


@pytest.mark.parametrize("case", of_the_models())
def test_the_models_know_the_rules_of_the_api_server(case: Case) -> None:
    """People who run the trainer alone get the same answers; the examples are those of the API server's tests."""
    for changes in case.refused:
        with pytest.raises(ValueError):
            parsed(change(MINIMAL, changes)).spec.check()
    for changes in case.passed:
        parsed(change(MINIMAL, changes)).spec.check()


@pytest.mark.parametrize(
    ("bound", "estimate", "limit"),
    [
        ("maximum", 12.00004, 12.0),
        ("maximumRegression", 0.020000001, 0.02),
        ("minimum", 0.2999999, 0.3),
        ("minimum", -0.2000001, -0.2),
    ],
)
def test_what_is_beyond_its_limit_stays_there_when_it_is_packed(bound: str, estimate: float, limit: float) -> None:
    checks = [
        Check.model_validate({"threshold": 0, "bound": bound, "estimate": value, "low": 0.100004, "pPass": 0.050001})
        for value in (estimate, limit)
    ]
    outcome = EvaluationOutcome(report_uri="s3://b/r", results_digest=f"sha256:{'0' * 64}", checks=checks)
    beyond, at = EvaluationOutcome.unpack(outcome.pack(PACKED_OUTCOME_BYTES)).checks
    assert beyond.estimate is not None
    assert beyond.estimate < limit if bound == "minimum" else beyond.estimate > limit
    assert at.estimate == limit
    assert (beyond.low or 0) > 0.1
    assert (beyond.p_pass or 0) > 0.05


def test_tests_of_few_resamples_are_refused_and_estimates_are_not() -> None:
    tested = {"spec.thresholds": [{"metric": "heldout/perplexity", "maximum": 9, "confidence": 0.95}]}
    estimated = {"spec.thresholds": [{"metric": "heldout/perplexity", "maximum": 9}]}
    parsed(change(MINIMAL, {"spec.resamples": 100, **estimated})).spec.check()
    parsed(change(MINIMAL, {"spec.resamples": 1_000, **tested})).spec.check()
    with pytest.raises(ValueError, match="needs at least 1000 resamples"):
        parsed(change(MINIMAL, {"spec.resamples": 999, **tested})).spec.check()


def judged(url: str) -> dict[str, Any]:
    endpoint = {"endpoint": {"url": url, "model": "judge"}}
    return {"spec.judge": endpoint}


NO_JUDGES = {
    "http://169.254.169.254/latest": "where a cloud tells",
    "http://2852039166/": "where a cloud tells",
    "http://0xA9FEA9FE/v1": "where a cloud tells",
    "http://0251.0376.0251.0376/v1": "where a cloud tells",
    "http://169.254.43518/v1": "where a cloud tells",
    "http://[::ffff:169.254.169.254]/v1": "where a cloud tells",
    "http://[64:ff9b::a9fe:a9fe]/v1": "where a cloud tells",
    "http://[fe80::1]/v1": "where a cloud tells",
    "http://[fd00:ec2::254]/v1": "where a cloud tells",
    "http://100.100.100.200/v1": "where a cloud tells",
    "http://Metadata.Google.Internal./v1": "where a cloud tells",
    "http://judge:99999/v1": "cannot be read",
    "http://judge:a/v1": "cannot be read",
    "http://[::1/v1": "cannot be read",
    "http://:80/v1": "and a host",
    "http://judge:0/v1": "and a host",
    "http://a..b/v1": "no name",
    f"http://{'a' * 64}/v1": "no name",
    "http://judge/v1?key=secret": "API_KEY",
    "http://judge/v1#secret": "API_KEY",
}


@pytest.mark.parametrize("url", NO_JUDGES)
def test_a_judge_is_asked_nowhere_that_no_judge_can_be(url: str) -> None:
    with pytest.raises(ValueError, match=NO_JUDGES[url]) as caught:
        parsed(change(MINIMAL, judged(url))).spec.check()
    assert url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://vllm.judges:8000/v1",
        "https://judge.example.com/",
        "http://10.0.0.7:8000/v1",
        "http://[fd12::7]:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://metadata.team.svc.cluster.local./v1",
    ],
)
def test_a_judge_is_asked_wherever_one_may_be(url: str) -> None:
    parsed(change(MINIMAL, judged(url))).spec.check()
