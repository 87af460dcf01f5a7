"""A first look at a judge's endpoint: what cannot judge is known before an accelerator is asked for."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import (
    Credentials,
    EvaluationTask,
    ExitCode,
    Reason,
    Stage,
    StoredEndpoint,
    TerminationMessage,
)
from trimtab_trainer.errors import JudgeFailed, SettingsInvalid, TrainerError
from trimtab_trainer.evaluate.judging.endpoint import Endpoint
from trimtab_trainer.evaluate.judging.look import look_at
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report

from tests.trainer.evaluate.judging.server import JudgeServer, Reply, Shown, serving, what_is_longer
from tests.trainer.evaluate.judging.test_stage import asking, rows, task
from tests.trainer.evaluate.stage import EvaluationRun, Trained, document, trained

SECRET = "sk-never-tell"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("looked"))


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving(what_is_longer) as served:
        yield served


def judged(name: str = "judged", **judging: Any) -> EvaluationTask:
    asked = task({"uri": "s3://rows/a.jsonl"}, **judging) | {"name": name}
    return EvaluationTask.model_validate(asked)


def look(url: str, *tasks: EvaluationTask, keys: Path | None = None) -> None:
    credentials = Credentials(directory=str(keys), secret_name="judge") if keys is not None else None
    endpoint = Endpoint(StoredEndpoint(url=url, model="judge", credentials=credentials), lambda seconds: None)
    look_at(endpoint, tasks or (judged(),), Interruption(), Report(stream=io.StringIO()))


def test_it_asks_with_the_words_of_the_task_and_the_key(server: JudgeServer, tmp_path: Path) -> None:
    (tmp_path / "API_KEY").write_text(SECRET)
    look(server.url, judged(instructions="Prefer the politer."), keys=tmp_path)
    texts = [each["messages"][0]["content"] for each in server.requests]
    assert len(set(texts)) == 2, "both orders"
    assert all("Prefer the politer." in text for text in texts)
    assert set(server.keys) == {f"Bearer {SECRET}"}


def test_tasks_that_ask_the_same_are_asked_about_once(server: JudgeServer) -> None:
    look(server.url, judged("a"), judged("b"), judged("c", instructions="Prefer the politer."))
    assert len(server.requests) == 4


def test_a_rubric_is_asked_about_two_answers(server: JudgeServer) -> None:
    server.judge = lambda shown: json.dumps({"score": 5 if shown["answer"].endswith("4.") else 1})
    look(server.url, judged(mode="Rubric"))
    assert len(server.requests) == 2


def test_the_reference_is_shown_where_the_task_shows_it(server: JudgeServer) -> None:
    look(server.url, judged(showReference=True))
    assert all("known to be right" in each["messages"][0]["content"] for each in server.requests)


def thinks_aloud(shown: Shown) -> str:
    return "Let me think about which of the two"


def errs_once(shown: Shown) -> str:
    return "Hm." if shown["answer 1"].endswith("4.") else '{"better": "2"}'


def test_a_judge_of_which_nothing_can_be_read_is_refused_by_name(server: JudgeServer) -> None:
    server.judge = thinks_aloud
    with pytest.raises(SettingsInvalid, match="first question of task judged") as caught:
        look(server.url)
    assert caught.value.reason is Reason.JUDGE_UNREADABLE
    assert '{"better": "1"}' in caught.value.message
    assert "Let me think" not in caught.value.message, "a server's words are in no message"


def test_a_judge_that_errs_once_in_a_while_is_not(server: JudgeServer) -> None:
    server.judge = errs_once
    look(server.url)


def test_of_several_tasks_the_one_that_cannot_be_judged_is_named(server: JudgeServer) -> None:
    server.judge = lambda shown: what_is_longer(shown) if "Which answer" in shown.text else "Good!"
    with pytest.raises(SettingsInvalid, match="of task scored") as caught:
        look(server.url, judged("preferred"), judged("scored", mode="Rubric"))
    assert caught.value.reason is Reason.JUDGE_UNREADABLE


TROUBLES: dict[str, tuple[Reply, type[TrainerError], Reason]] = {
    "a wrong key": (401, SettingsInvalid, Reason.ACCESS_DENIED),
    "no such model, or a url that is not": (404, SettingsInvalid, Reason.JUDGE_REFUSED),
    "no JSON schema": (400, SettingsInvalid, Reason.JUDGE_REFUSED),
    "another server": (b"<html>", SettingsInvalid, Reason.JUDGE_REFUSED),
    "no answer": (0, JudgeFailed, Reason.JUDGE_UNREACHABLE),
    "over its quota": ((429, {"Retry-After": "3000"}), JudgeFailed, Reason.JUDGE_OVERLOADED),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_cannot_be_asked_ends_it_as_it_would_end_judging(trouble: str, server: JudgeServer) -> None:
    reply, error, reason = TROUBLES[trouble]
    server.troubles = [reply] * 100
    with pytest.raises(error) as caught:
        look(server.url)
    assert caught.value.reason is reason


# -- the stage


def arguments(run: EvaluationRun, folder: Path) -> list[str]:
    config = folder / "evaluation.json"
    config.write_text(json.dumps(run.config.to_json()))
    told = ["judge", "--config", str(config), "--prepared", json.dumps(run.prepared.to_json()), "--attempt", "1"]
    return [*told, "--scratch", str(folder / "looking"), "--termination-log", str(folder / "words")]


def last_words(folder: Path) -> TerminationMessage:
    said = TerminationMessage.decode((folder / "words").read_text())
    assert said is not None
    return said


def test_before_there_are_answers_the_stage_is_a_look_without_torch(
    made: Trained, server: JudgeServer, tmp_path: Path
) -> None:
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "peft", "bitsandbytes")))
from trimtab_trainer.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, *arguments(run, tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == ExitCode.DONE, ran.stdout + ran.stderr
    said = last_words(tmp_path)
    assert (said.stage, said.attempt, said.judge_ready, said.outcome, said.answers_digest) == (
        Stage.JUDGE,
        1,
        True,
        None,
        None,
    )
    assert len(server.requests) == 2
    assert not list((tmp_path / "output/evaluations").glob("judgements/*")), "what it says is kept by nobody"


@pytest.mark.parametrize(("reply", "reason"), [(403, "AccessDenied"), ("Hm.", "JudgeUnreadable")])
def test_its_end_has_last_words(reply: Reply, reason: str, made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    server.judge = lambda shown: reply
    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    assert main(arguments(run, tmp_path)) == ExitCode.SETTINGS_INVALID
    said = last_words(tmp_path)
    assert (said.reason, said.judge_ready) == (Reason(reason), None)


def test_a_look_that_is_interrupted_is_had_again(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    def told(shown: Shown) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return what_is_longer(shown)

    run = asking(made, tmp_path, server.url, [task(rows(tmp_path))])
    server.judge = told
    assert main(arguments(run, tmp_path)) == ExitCode.INTERRUPTED
    assert last_words(tmp_path).judge_ready is None
    server.judge = what_is_longer
    assert main(arguments(run, tmp_path)) == ExitCode.DONE
    assert last_words(tmp_path).judge_ready is True


def test_where_nobody_is_to_be_asked_there_is_no_look(made: Trained, server: JudgeServer, tmp_path: Path) -> None:
    text = {"name": "text", "type": "Perplexity", "dataset": rows(tmp_path)}
    run = asking(made, tmp_path, server.url, [text])
    assert main(arguments(run, tmp_path)) == ExitCode.SETTINGS_INVALID
    assert "a task of type Judge" in last_words(tmp_path).message
    assert not server.requests


def test_what_evaluates_alone_looks_before_it_answers(
    made: Trained, server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = {"endpoint": {"url": server.url, "model": "judge"}}
    told = document(made, tmp_path / "output", tasks=[task(rows(tmp_path))], thresholds=[], judge=endpoint)
    config = tmp_path / "evaluation.json"
    config.write_text(json.dumps(told))
    command = ["evaluate", "--config", str(config), "--scratch", str(tmp_path / "scratch")]
    server.judge = thinks_aloud
    assert main(command) == ExitCode.SETTINGS_INVALID
    assert not (tmp_path / "output/evaluations/scores").exists(), "no model was asked"
    server.judge = what_is_longer
    capsys.readouterr()
    assert main(command) == ExitCode.DONE
    messages = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
    assert messages.index("the judge is ready") < messages.index("evaluating") < messages.index("published")
