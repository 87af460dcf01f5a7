"""A Judge task from rows to a verdict: an endpoint or a model of ours, asked once, and believed only if it may be."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.base.base_model import digest_of_entries, entries_of, find_base_model
from trimtab_trainer.contract import (
    EvaluationConfig,
    EvaluationOutcome,
    ExitCode,
    Reason,
    Stage,
    StoredBaseModel,
    TerminationMessage,
)
from trimtab_trainer.contract.gate.verdict import VerdictReason, judge
from trimtab_trainer.errors import AnswersMissing, DataInvalid, SettingsInvalid
from trimtab_trainer.evaluate.judging.endpoint import AT_ONCE
from trimtab_trainer.evaluate.prepare import prepare_evaluation
from trimtab_trainer.report import Report

from tests.trainer.evaluate.bench import chat
from tests.trainer.evaluate.judging.server import (
    JudgeServer,
    Shown,
    serving,
    what_is_longer,
    whatever_is_first,
)
from tests.trainer.evaluate.stage import EvaluationRun, Trained, document, evaluation, trained
from tests.trainer.tiny import write_rows

INSTRUCTIONS = "Prefer the answer that says more."
ROWS = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("judged"))


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(what_is_longer) as served:
        yield served


def rows(root: Path, **columns: Any) -> dict[str, str]:
    """Write rows of which people liked the longer answer."""
    written = [chat(f"Tell more of part {n}?", f"Part {n} is a part like {n} others.", **columns) for n in range(ROWS)]
    write_rows(root / "judged.jsonl", written)
    return {"uri": (root / "judged.jsonl").as_uri()}


def task(dataset: dict[str, str], **judging: Any) -> dict[str, Any]:
    return {
        "name": "judged",
        "type": "Judge",
        "dataset": dataset,
        "maxNewTokens": 8,
        "judging": {"instructions": INSTRUCTIONS, **judging},
    }


def asking(made: Trained, root: Path, url: str, tasks: list[dict[str, Any]], **more: Any) -> EvaluationRun:
    endpoint = {"endpoint": {"url": url, "model": "judge"}}
    return evaluation(made, root, tasks=tasks, **{"thresholds": [], "judge": endpoint, **more})


def results(run: EvaluationRun) -> dict[str, Any]:
    (found,) = json.loads((run.folder / "results.json").read_text())["tasks"]
    assert isinstance(found, dict)
    return found


def verdict(run: EvaluationRun, outcome: EvaluationOutcome) -> tuple[bool, VerdictReason, str]:
    """Return what the operator says, of what it is told."""
    found = judge(run.config.thresholds, EvaluationOutcome.unpack(outcome.pack(4_000)))
    return found.passed, found.reason, found.message


def test_an_endpoint_judges_and_its_words_are_kept(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    thresholds = [{"metric": "judged/winRate", "minimum": 0.4, "confidence": 0.9}]
    judged = task(rows(tmp_path, worse="No."), minimumAgreement=0.9)
    run = asking(made, tmp_path, server.url, [judged], thresholds=thresholds)
    assert not server.requests, "preparing asks nobody"
    outcome = run.evaluate()
    found = results(run)
    figures = {each["metric"]: each for each in found["results"]}
    assert [*figures][:4] == ["winRate", "inconsistentRatio", "unreadableRatio", "agreement"]
    assert figures["winRate"]["value"] == pytest.approx(1 - figures["winRate"]["baseline"])
    assert figures["agreement"]["value"] == 1.0
    assert figures["inconsistentRatio"]["value"] == 0.0
    assert [check.bound for check in outcome.checks] == ["minimum"]
    assert outcome.checks[0].p_pass is not None
    said = found["judge"]
    assert said["judge"] == {"endpoint": server.url, "model": "judge"}
    assert (said["models"], said["labelled"], said["agreed"]) == (["judge-1"], ROWS, ROWS)
    assert "unreliable" not in said
    assert len(server.requests) == said["asked"]

    (file,) = (tmp_path / "output/evaluations/judgements" / said["judgements"][7:]).glob("judgements-*.jsonl")
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(kept) == said["asked"]
    assert all("No." in each["prompt"]["text"] for each in kept if each["slot"].startswith("people"))
    assert {each["reply"] for each in kept} <= {f'{{"better": "{each}"}}' for each in ("1", "2", "tie")}
    page = (run.folder / "report.html").read_text()
    assert "agrees with people" in page
    assert INSTRUCTIONS in page
    assert "Not to be relied on" not in page

    again = asking(made, tmp_path, server.url, [judged], thresholds=[], resamples=2_000)
    again.evaluate(attempt=1)
    assert len(server.requests) == said["asked"], "the same answers are judged once"


def test_a_win_rate_is_measured_against_the_anchor_too(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    thresholds = [{"metric": "judged/winRate", "minimum": 0.4, "confidence": 0.9}]
    anchor = {"artifact": {"uri": made.artifacts[1].uri}}
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))], thresholds=thresholds, anchor=anchor)
    outcome = run.evaluate()
    assert [(each.bound, each.against.value) for each in outcome.checks] == [
        ("minimum", "Baseline"),
        ("minimum", "Anchor"),
    ]
    found = results(run)
    win = next(each for each in found["results"] if each["metric"] == "winRate")
    assert outcome.checks[0].estimate == pytest.approx(win["value"])
    assert outcome.checks[1].estimate == pytest.approx(1 - win["anchor"]), "of target and anchor, not of the baseline"
    assert found["anchorJudge"]["judgements"] != found["judge"]["judgements"]
    assert len(server.requests) == found["judge"]["asked"] + found["anchorJudge"]["asked"]
    assert "Judge of target and anchor" in (run.folder / "report.html").read_text()


def test_a_judge_that_goes_by_the_order_lets_nothing_pass(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    server.judge = whatever_is_first
    thresholds = [{"metric": "judged/winRate", "minimum": 0.45}]
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))], thresholds=thresholds)
    outcome = run.evaluate()
    assert outcome.checks[0].estimate == 0.5, "every pair is a tie, which the threshold alone would let through"
    passed, reason, message = verdict(run, outcome)
    assert (passed, reason) == (False, VerdictReason.JUDGE_UNRELIABLE)
    assert "changed with the order of the answers" in message
    page = (run.folder / "report.html").read_text()
    assert "Not to be relied on" in page
    assert "JudgeUnreliable" in page
    assert run.events("the judge is not to be relied on")
    nothing = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    assert verdict(nothing, nothing.evaluate(attempt=1))[1] is VerdictReason.JUDGE_UNRELIABLE, "not even unjudged"


def test_a_judge_that_people_do_not_agree_with_lets_nothing_pass(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    labels = {"worse": "This says much more than the answer of which people said that it is the better one."}
    judged = task(rows(tmp_path, **labels), minimumAgreement=0.6)
    run = asking(made, tmp_path, server.url, [judged])
    assert verdict(run, run.evaluate()) == (
        False,
        VerdictReason.JUDGE_UNRELIABLE,
        f"the judge of task judged decides nothing: it agrees with people on 0 of {ROWS} rows, and minimumAgreement is "
        "0.6",
    )


def test_a_rubric_needs_no_baseline(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    server.judge = lambda shown: json.dumps({"score": 1 + len(shown["answer"]) % 5})
    judged = task(rows(tmp_path, score=4), mode="Rubric")
    thresholds = [{"metric": "judged/judgeScore", "minimum": 1.0}]
    run = asking(made, tmp_path, server.url, [judged], thresholds=thresholds, baseline=None)
    outcome = run.evaluate()
    figures = {each["metric"]: each["value"] for each in results(run)["results"]}
    assert 1 <= figures["judgeScore"] <= 5
    assert "winRate" not in figures
    assert 0 <= figures["agreement"] <= 1
    assert verdict(run, outcome)[0]


def test_an_endpoint_that_is_gone_leaves_nothing_half_judged(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    asked = 0

    def fails_later(shown: Shown) -> int | str:
        nonlocal asked
        asked += 1
        return what_is_longer(shown) if asked < 10 else 403

    server.judge = fails_later
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    with pytest.raises(SettingsInvalid) as caught:
        run.evaluate()
    assert caught.value.reason is Reason.ACCESS_DENIED
    assert not run.folder.exists(), "no verdict of some of the rows"
    assert not list((tmp_path / "output/evaluations/judgements").glob("*/MANIFEST.json"))
    server.judge = what_is_longer
    run.evaluate(attempt=1)
    assert len(run.events("task was asked before")) == 2, "the answers were kept"
    assert "unreliable" not in results(run)["judge"]


def test_what_a_judge_said_before_it_was_gone_is_not_asked_again(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    answered: list[str] = []

    def dies_later(shown: Shown) -> int | str:
        if len(answered) >= 30:
            return 403
        answered.append(shown.text)
        return what_is_longer(shown)

    run = asking(made, tmp_path, server.url, [task(rows(tmp_path, worse="No."))])
    answers = run.ask()
    assert isinstance(answers, str)
    server.judge = dies_later
    with pytest.raises(SettingsInvalid):
        run.judge(answers)
    server.requests.clear()
    server.judge = what_is_longer
    run.judge(answers, attempt=1)
    # What was under way when it was refused may have come after that.
    again = {each["messages"][0]["content"] for each in server.requests}
    twice = len(again & set(answered))
    assert twice < AT_ONCE, "nothing is judged twice but what was under way"
    assert len(again) + len(answered) - twice == results(run)["judge"]["asked"]
    (event,) = run.events("the judge goes on")
    assert (event["known"], event["questions"]) == (len(answered) - twice, len(again))
    assert [file.name.partition("-")[0] for file in (tmp_path / "output/evaluations/judgements").glob("*/*-*")] == [
        "judgements"
    ], "parts are deleted once all is stored together"


def test_a_part_that_was_damaged_is_asked_for_again(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path, worse="No."))])
    answers = run.ask()
    assert isinstance(answers, str)
    asked = 0

    def dies_later(shown: Shown) -> int | str:
        nonlocal asked
        asked += 1
        return what_is_longer(shown) if asked < 10 else 403

    server.judge = dies_later
    with pytest.raises(SettingsInvalid):
        run.judge(answers)
    (part,) = (tmp_path / "output/evaluations/judgements").glob("*/part-*")
    part.write_text(part.read_text().replace("better", "bitter"))
    server.judge = what_is_longer
    server.requests.clear()
    run.judge(answers, attempt=1)
    again = {each["messages"][0]["content"] for each in server.requests}  # what was under way may come twice
    assert len(again) == results(run)["judge"]["asked"]
    assert run.events("some stored judgements do not verify, the judge is asked again")


def test_who_answers_asks_no_endpoint_and_who_judges_loads_no_model(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    answers = run.ask()
    assert isinstance(answers, str)
    assert not server.requests
    assert not run.folder.exists()
    loaded = len(run.events("model loaded"))
    outcome = run.judge(answers)
    assert len(run.events("model loaded")) == loaded
    assert len(server.requests) == results(run)["judge"]["asked"]
    assert run.judge(answers, attempt=1) == outcome
    assert run.events("this evaluation has its outcome already")
    lineage = json.loads((run.folder / "results.json").read_text())["lineage"]
    assert lineage["machine"]["device"]
    assert lineage["target"]["digest"] == made.artifacts[0].digest


def test_who_judges_needs_no_torch(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    answers = run.ask()
    assert isinstance(answers, str)
    config, words = tmp_path / "evaluation.json", tmp_path / "words"
    config.write_text(json.dumps(run.config.to_json()))
    prepared = run.prepared.model_copy(update={"answers_digest": answers})
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "peft", "bitsandbytes")))
from trimtab_trainer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["judge", "--config", str(config), "--prepared", json.dumps(prepared.to_json())]
    arguments += ["--scratch", str(tmp_path / "judging"), "--termination-log", str(words), "--attempt", "2"]
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    last = TerminationMessage.decode(words.read_text())
    assert last is not None
    assert (last.stage, last.attempt, last.answers_digest) == (Stage.JUDGE, 2, None)
    assert last.outcome is not None


@pytest.mark.parametrize("lost", ["answers", "scores"])
def test_answers_that_are_gone_are_asked_for_again(
    lost: str, made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    answers = run.ask()
    assert isinstance(answers, str)
    for manifest in (tmp_path / "output/evaluations" / lost).glob("*/MANIFEST.json"):
        manifest.unlink()
    with pytest.raises(AnswersMissing) as caught:
        run.judge(answers)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.ANSWERS_MISSING, ExitCode.STORAGE_FAILED)
    again = run.ask(attempt=1)
    assert again == answers, "what is answered again is the same"
    run.judge(answers, attempt=1)


def test_answers_that_were_changed_are_none(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    answers = run.ask()
    assert isinstance(answers, str)
    (manifest,) = (tmp_path / "output/evaluations/answers").glob("*/MANIFEST.json")
    written = manifest.read_text()
    for damaged in (written.replace('"machine"', '"machines"', 1), written[:-1]):
        manifest.write_text(damaged)
        with pytest.raises(AnswersMissing, match="the models are asked again"):
            run.judge(answers)
        assert run.ask() == answers
        assert manifest.read_text() == written, "who answers again mends it"
    run.judge(answers)


def test_the_stage_with_the_accelerator_ends_with_the_answers(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    config, words = tmp_path / "evaluation.json", tmp_path / "words"
    config.write_text(json.dumps(run.config.to_json()))
    arguments = ["evaluate", "--config", str(config), "--scratch", str(tmp_path / "scratch"), "--termination-log"]
    assert main([*arguments, str(words), "--prepared", json.dumps(run.prepared.to_json())]) == 0
    last = TerminationMessage.decode(words.read_text())
    assert last is not None
    assert last.answers_digest is not None
    assert last.outcome is None
    assert not server.requests


def test_judgements_that_were_damaged_are_asked_for_again(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    run.evaluate()
    asked = len(server.requests)
    (file,) = (tmp_path / "output/evaluations/judgements").glob("*/judgements-*.jsonl")
    file.write_text(file.read_text().replace("better", "bitter"))
    again = asking(made, tmp_path, server.url, [task(rows(tmp_path))], resamples=2_000)
    again.evaluate(attempt=1)
    assert len(server.requests) == 2 * asked
    assert again.events("stored judgements do not verify, the judge is asked again")
    assert "better" in file.read_text()


def digest(uri: str) -> str:
    return digest_of_entries(entries_of(find_base_model(StoredBaseModel(uri=uri))))


def test_a_model_of_ours_judges_once_the_answers_are_there(made: Trained, tmp_path: Path) -> None:
    judge_model = {"model": {"uri": made.base, "digest": digest(made.base)}}
    judged = [task(rows(tmp_path, score=3), mode="Rubric", maximumScore=3)]
    run = evaluation(made, tmp_path, tasks=judged, thresholds=[], judge=judge_model)
    run.evaluate()
    said = results(run)["judge"]
    assert said["judge"]["digest"] == digest(made.base)
    assert said["unreadable"] == 0, "it cannot say anything else"
    figures = {each["metric"]: each for each in results(run)["results"]}
    assert 1 <= figures["judgeScore"]["value"] <= 3
    assert figures["judgeScore"]["baseline"] is not None


def test_a_question_that_the_judge_cannot_hold_is_said(made: Trained, tmp_path: Path) -> None:
    judge_model = {"model": {"uri": made.base, "digest": digest(made.base)}}
    judged = [task(rows(tmp_path), mode="Rubric") | {"judging": {"instructions": "Be just. " * 400, "mode": "Rubric"}}]
    run = evaluation(made, tmp_path, tasks=judged, thresholds=[], judge=judge_model)
    with pytest.raises(SettingsInvalid, match="longer context") as caught:
        run.evaluate()
    assert caught.value.reason is Reason.JUDGE_PROMPT_TOO_LONG


def test_what_can_be_known_of_a_judge_is_known_before_a_gpu_is_asked_for(made: Trained, tmp_path: Path) -> None:
    other = "sha256:" + "1" * 64
    for uri, reason in (
        (made.base, Reason.BASE_MODEL_CHANGED),
        ((tmp_path / "no").as_uri(), Reason.BASE_MODEL_NOT_FOUND),
    ):
        with pytest.raises(SettingsInvalid, match=r"^judge\.model: ") as caught:
            evaluation(
                made,
                tmp_path,
                tasks=[task(rows(tmp_path))],
                thresholds=[],
                judge={"model": {"uri": uri, "digest": other}},
            )
        assert caught.value.reason is reason


def test_a_key_that_is_not_there_is_missed_before_anything_is_asked_of_the_judge(made: Trained, tmp_path: Path) -> None:
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "judge", "credentials": {"directory": str(tmp_path / "none")}}
    run = evaluation(made, tmp_path, tasks=[task(rows(tmp_path))], thresholds=[], judge={"endpoint": endpoint})
    with pytest.raises(SettingsInvalid, match="has no key API_KEY") as caught:
        run.evaluate()
    assert caught.value.reason is Reason.CREDENTIALS_MISSING
    assert len(run.scores()) == 2, "the answers are kept"


def test_where_nothing_is_judged_the_evaluation_ends_with_its_answers(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    dataset = rows(tmp_path)
    run = asking(made, tmp_path, server.url, [{"name": "text", "type": "Perplexity", "dataset": dataset}])
    assert isinstance(run.ask(), EvaluationOutcome)


def test_a_url_where_no_judge_is_asks_for_no_gpu(made: Trained, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"judge\.endpoint\.url is where a cloud tells machines"):
        asking(made, tmp_path, "http://169.254.169.254/latest", [task(rows(tmp_path))])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "too few labels": ({}, {"minimumAgreement": 0.8}, "0 of its 24 rows have people's judgement"),
    "the answer itself": (
        {"messages": chat("a", "b")["messages"], "worse": "b"},
        {},
        "line 1 has its own answer as the worse one",
    ),
    "no text": ({"worse": 7}, {}, "has a worse that is no text"),
    "a score beyond the scale": ({"score": 6}, {"mode": "Rubric"}, "no whole number from 1 to 5"),
    "a score that is none": ({"score": True}, {"mode": "Rubric"}, "no whole number from 1 to 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_are_none_are_refused(case: str, made: Trained, tmp_path: Path) -> None:
    columns, judging, said = REFUSED[case]
    with pytest.raises(DataInvalid, match=said):
        asking(made, tmp_path, "http://127.0.0.1:1/v1", [task(rows(tmp_path, **columns), **judging)])


def test_a_threshold_on_agreement_with_nobody_is_refused(made: Trained, tmp_path: Path) -> None:
    thresholds = [{"metric": "judged/agreement", "minimum": 0.8}]
    with pytest.raises(DataInvalid, match="judged/agreement: none of the 24 rows has people's judgement"):
        asking(made, tmp_path, "http://127.0.0.1:1/v1", [task(rows(tmp_path))], thresholds=thresholds)


def test_labels_are_not_looked_at_where_the_judge_sees_the_reference(made: Trained, tmp_path: Path) -> None:
    run = asking(made, tmp_path, "http://127.0.0.1:1/v1", [task(rows(tmp_path, worse=7), showReference=True)])
    assert run.events("task read")[0]["ignored"] == {"worse": ROWS}


def test_an_endpoint_that_wants_to_be_left_alone_is_asked_by_the_next_attempt(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    server.troubles = [(429, {"Retry-After": "3000"})] * 1_000
    config, words = tmp_path / "evaluation.json", tmp_path / "words"
    endpoint = {"endpoint": {"url": server.url, "model": "judge"}}
    told = document(made, tmp_path / "output", tasks=[task(rows(tmp_path))], thresholds=[], judge=endpoint)
    config.write_text(json.dumps(told))
    arguments = ["evaluate", "--config", str(config), "--scratch", str(tmp_path / "scratch"), "--termination-log"]
    assert main([*arguments, str(words)]) == 13
    last = TerminationMessage.decode(words.read_text())
    assert last is not None
    assert (last.reason, last.retry_after_seconds) == (Reason.JUDGE_OVERLOADED, 3000)
    assert last.outcome is None
    assert not (tmp_path / "output/evaluations/scores").exists(), "that is known before anything is answered"


def test_the_digest_of_an_evaluation_is_of_its_judge_too(made: Trained, tmp_path: Path) -> None:
    def prepared(url: str, model: str = "judge") -> str:
        endpoint = {"endpoint": {"url": url, "model": model}}
        run = evaluation(made, tmp_path, tasks=[task(rows(tmp_path))], thresholds=[], judge=endpoint)
        config = EvaluationConfig.model_validate(run.config.to_json())
        return prepare_evaluation(config, tmp_path / "again", Report(stream=io.StringIO())).prepared.evaluation_digest

    first = prepared("http://a:1/v1")
    assert first == prepared("http://a:1/v1")
    assert len({first, prepared("http://b:1/v1"), prepared("http://a:1/v1", "other")}) == 3
