"""Questions to an engine: to the token what our own loop is asked, cut as ours are, and every way to fail by name."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.command.ask import load_tokenizer
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import EngineFailed, Interrupted, OutOfMemory, SettingsInvalid, TrainerError
from trimtab_trainer.evaluate.asking.generation import Answer, Decoding, Prompt, taken
from trimtab_trainer.evaluate.engine import client as client_module
from trimtab_trainer.evaluate.engine.client import EngineAnswers, seed_of
from trimtab_trainer.evaluate.engine.process import running
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report

from tests.trainer.evaluate.engine.conftest import FakeVllm
from tests.trainer.evaluate.engine.fake_vllm import ECHOED, END
from tests.trainer.evaluate.engine.test_process import settings

Fake = Callable[..., FakeVllm]
TEN = Decoding(10)


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(tiny)


def ask(
    folder: Path,
    tokenizer: Any,
    prompts: list[Prompt],
    decoding: Decoding = TEN,
    stop: Interruption | None = None,
    **how: Any,
) -> list[Answer]:
    stop = stop or Interruption()
    with running(settings(folder), folder / "engine", stop=stop, report=Report(stream=io.StringIO())) as engine:
        return EngineAnswers(engine, tokenizer, frozenset({END}), stop).answers("target", prompts, decoding, **how)


def test_every_prompt_is_asked_as_its_tokens_and_answered_in_order(fake: Fake, tmp_path: Path, tokenizer: Any) -> None:
    made = fake()
    words = [tokenizer.encode(f" number {n}") for n in range(40)]
    prompts = [Prompt(n, (5, 6, 7, *tokens)[-9:]) for n, tokens in enumerate(words)]
    found = ask(tmp_path, tokenizer, prompts, at_once=7)
    assert [answer.text for answer in found] == [tokenizer.decode(prompt.tokens[-ECHOED:]) for prompt in prompts]
    assert all(answer.stopped and answer.tokens == ECHOED + 1 and answer.seconds > 0 for answer in found)
    asked = made.asked
    assert sorted(body["prompt"] for body in asked) == sorted(list(prompt.tokens) for prompt in prompts)
    (shape,) = {tuple(sorted(body)) for body in asked}
    assert "seed" not in shape, "nothing is drawn"
    body = asked[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("target", 10, 0.0)
    assert (body["stop"], body["stop_token_ids"], body["return_token_ids"]) == ([], [END], True)


def test_an_answer_of_the_most_tokens_has_not_ended(fake: Fake, tmp_path: Path, tokenizer: Any) -> None:
    fake()
    (answer,) = ask(tmp_path, tokenizer, [Prompt(0, (5, 6, 7, 8))], Decoding(2))
    assert (answer.stopped, answer.tokens) == (False, 2)
    assert answer.text == tokenizer.decode([6, 7])


def test_stop_strings_go_along_and_those_that_are_special_tokens_as_tokens(
    fake: Fake, tmp_path: Path, tokenizer: Any
) -> None:
    made = fake()
    tokens = tokenizer.encode("one two")
    (answer,) = ask(tmp_path, tokenizer, [Prompt(0, tuple(tokens[-3:]))], Decoding(9, ("t", "<|im_start|>")))
    assert answer.text == tokenizer.decode(tokens[-3:]).partition("t")[0]
    (body,) = made.asked
    assert body["stop"] == ["t", "<|im_start|>"]
    assert body["stop_token_ids"] == [1, END]


def test_rows_that_are_drawn_have_seeds_of_their_own_whatever_stands_beside_them(
    fake: Fake, tmp_path: Path, tokenizer: Any
) -> None:
    made = fake()
    ask(tmp_path, tokenizer, [Prompt(n, (5, 6, 7)) for n in (3, 8)], Decoding(4, temperature=0.7, top_p=0.9, seed=21))
    assert {body["seed"] for body in made.asked} == {seed_of(21, 3), seed_of(21, 8)}
    assert {(body["temperature"], body["top_p"]) for body in made.asked} == {(0.7, 0.9)}
    assert 0 <= seed_of(21, 3) < 1 << 63
    assert seed_of(21, 3) != seed_of(2, 13)


FAULTS: dict[str, tuple[type[TrainerError], Reason, str]] = {
    "dies": (
        EngineFailed,
        Reason.ENGINE_FAILED,
        r"while it was asked .* \(RuntimeError: the device was lost\)",
    ),
    "is killed": (OutOfMemory, Reason.OUT_OF_MEMORY, r"while it was asked"),
    "400": (SettingsInvalid, Reason.ENGINE_REFUSED, r"400 \(This model's maximum context length is 16 tokens\.\)"),
    "500": (EngineFailed, Reason.ENGINE_FAILED, r"answered 500 \(EngineCore encountered an issue\)"),
    "500 of no words": (EngineFailed, Reason.ENGINE_FAILED, r"answered 500; see the log"),
    "no answer": (EngineFailed, Reason.ENGINE_FAILED, r"what is no answer"),
    "aborts": (EngineFailed, Reason.ENGINE_FAILED, r"ended an answer with abort"),
    "breaks off": (EngineFailed, Reason.ENGINE_FAILED, r"broke off an answer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_way_to_fail_has_a_name(
    fake: Fake, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    fake(fault)
    dies = fault in ("dies", "is killed")
    monkeypatch.setattr(client_module, "DYING_SECONDS", 60.0 if dies else 2.0)  # of one that goes on, all of it
    kind, reason, words = FAULTS[fault]
    with pytest.raises(kind, match=words) as caught:
        ask(tmp_path, tokenizer, [Prompt(n, (5, 6, 7)) for n in range(9)])
    assert caught.value.reason is reason


def test_an_engine_that_hangs_is_given_up(
    fake: Fake, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("hangs")
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", -9)
    with pytest.raises(EngineFailed, match=r"gave no answer for 1 s|broke off an answer \(ReadTimeout\)"):
        ask(tmp_path, tokenizer, [Prompt(0, (5, 6, 7))])


def test_a_signal_ends_the_waiting_for_answers(fake: Fake, tmp_path: Path, tokenizer: Any) -> None:
    fake("hangs")
    stop = Interruption()
    with stop.listening():
        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted), stop.at_once():
            ask(tmp_path, tokenizer, [Prompt(0, (5, 6, 7))], stop=stop)


@pytest.mark.parametrize(
    ("tokens", "stopped", "want"),
    [
        ([5, 6, END], True, Answer("ab", True, tokens=3)),
        ([5, 6], True, Answer("ab", True, tokens=2)),
        ([5, 6], False, Answer("ab", False, tokens=2)),
        ([END], True, Answer("", True, tokens=1)),
        ([], True, Answer("", True, tokens=0)),
        ([5, END, 6], False, Answer("a", True, tokens=2)),
    ],
)
def test_what_ends_an_answer_is_counted_and_no_part_of_it(tokens: list[int], stopped: bool, want: Answer) -> None:
    class Letters:
        def decode(self, tokens: list[int], **_: Any) -> str:
            return "".join("abcdef"[token - 5] for token in tokens)

    found = taken(Letters(), tokens, TEN, frozenset({END}), 0.0, stopped=stopped)
    assert (found, found.tokens) == (want, want.tokens)
