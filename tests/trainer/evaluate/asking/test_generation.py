"""Generated answers: how they end, what they are without a batch, and that nothing of the batch shows in them."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.command.ask import load_tokenizer
from trimtab_trainer.contract import EvaluationTask, QuantizationSettings, Reason
from trimtab_trainer.errors import Interrupted, OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate.asking import generation as generate_module
from trimtab_trainer.evaluate.asking.generation import (
    Answer,
    Decoding,
    Prompt,
    end_tokens,
    generate,
    generate_rows,
    sample,
)
from trimtab_trainer.evaluate.rows import EvaluationRow
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.model import LanguageModel, load_base

from tests.trainer.evaluate.models import KINDS, adapted_model, bare_model
from tests.trainer.tiny import CHATML, make_tiny_model
from tests.trainer.train.families import make_family
from tests.trainer.train.runs import CPU, random_rows

END = 2
NOTHING: frozenset[int] = frozenset()
TWELVE = Decoding(12)
PROMPTS = [Prompt(number, tuple(tokens)) for number, tokens in enumerate(random_rows(24, 1, 4, 60))]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(tiny)


def answers(
    model: LanguageModel,
    tokenizer: Any,
    prompts: list[Prompt] = PROMPTS,
    decoding: Decoding = TWELVE,
    ends: frozenset[int] = NOTHING,
    *,
    batch_size: int | None = None,
) -> list[Answer]:
    stop = Interruption()
    return generate(model, tokenizer, prompts, decoding, ends, batch_size=batch_size, stop=stop, report=Report())


class Script:
    """Makes a model say what is written: the logits of line i at step n choose the n-th token of its script."""

    def __init__(self, patch: pytest.MonkeyPatch, *scripts: list[int]) -> None:
        self.steps = 0
        self.sizes: list[int] = []
        logits = generate_module._Batch._logits

        def told(batch: Any) -> torch.Tensor:
            real = logits(batch)
            self.sizes.append(len(real))
            made = torch.zeros_like(real)
            for line, prompt in enumerate(batch.lines):
                script = scripts[prompt]
                made[line, script[min(self.steps, len(script) - 1)]] = 100.0
            self.steps += 1
            return made

        patch.setattr(generate_module._Batch, "_logits", told)


STOPS = {
    "inside one token": (["The ", " number"], "The  n", ("um",)),
    "across tokens": (["x", "END", "y"], "x", ("END",)),
    "beginning inside a token and ending inside another": (["one tw", "o th", "ree"], "one t", ("wo t",)),
    "the first of two": (["a;b", ".c"], "a", (".", ";")),
    "at the very beginning": (["\n", "b"], "", ("\n",)),
    "characters of several bytes": (["ü", "ö", "ä!"], "ü", ("öä",)),
}
"""What the model says in pieces, the answer, and the stop strings."""


class TestEnds:
    def prompts(self, count: int) -> list[Prompt]:
        return [Prompt(number, (5, 6, 7)) for number in range(count)]

    def test_a_token_that_ends_the_turn_ends_the_answer_and_is_no_part_of_it(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hello, more = tokenizer.encode("Yes, it is"), tokenizer.encode(" and goes on")
        Script(monkeypatch, [*hello, END, *more])
        (answer,) = answers(bare_model(tiny), tokenizer, self.prompts(1), ends=frozenset({END}))
        assert answer == Answer("Yes, it is", True)
        assert answer.tokens == len(hello) + 1, "the one that ended it is written too"
        assert answer.seconds > 0

    def test_an_answer_that_never_ends_has_the_most_tokens(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (letter,) = tokenizer.encode("a")
        Script(monkeypatch, [letter])
        (answer,) = answers(bare_model(tiny), tokenizer, self.prompts(1), Decoding(7), frozenset({END}))
        assert answer == Answer("aaaaaaa", False)
        assert answer.tokens == 7

    def test_lines_end_on_their_own_and_leave_the_batch(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (a,), (b,) = tokenizer.encode("a"), tokenizer.encode("b")
        script = Script(monkeypatch, [a, END], [a, b, a, END], [a, END], [b, b, b, b, b, END])
        found = answers(bare_model(tiny), tokenizer, self.prompts(4), Decoding(20), frozenset({END}))
        assert [answer.text for answer in found] == ["a", "aba", "a", "bbbbb"]
        assert script.sizes == [4, 4, 2, 2, 1, 1]

    @pytest.mark.parametrize("name", STOPS)
    def test_a_stop_string_ends_the_answer_before_it(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        pieces, want, stop = STOPS[name]
        tokens = [token for piece in pieces for token in tokenizer.encode(piece)] + tokenizer.encode(" more of it")
        Script(monkeypatch, tokens)
        found = answers(bare_model(tiny), tokenizer, self.prompts(1), Decoding(40, stop), frozenset({END}))
        assert found == [Answer(want, True)]

    def test_a_stop_string_that_is_a_special_token_counts_though_it_is_not_decoded(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Script(monkeypatch, [*tokenizer.encode("yes"), 1, *tokenizer.encode("no")])
        found = answers(bare_model(tiny), tokenizer, self.prompts(1), Decoding(9, ("<|im_start|>",)))
        assert found == [Answer("yes", True)]

    def test_nothing_is_written_after_the_last_line_ended(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Script(monkeypatch, [END])
        answers(bare_model(tiny), tokenizer, self.prompts(1), Decoding(30), frozenset({END}))
        assert script.sizes == [1]


def test_the_tokens_that_end_an_answer_are_those_of_model_tokenizer_and_template(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", chat_template=CHATML.replace("<|im_end|>", "<|endoftext|>"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert end_tokens(load_tokenizer(folder), folder) == {7, 9, 2, 0}


def test_without_a_template_the_end_of_text_ends_an_answer(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", chat_template=None)
    assert end_tokens(load_tokenizer(folder), folder) == {2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [bare_model, adapted_model])
def test_greedy_answers_are_those_of_transformers_and_the_same_for_every_batch_size(
    tiny: Path, tokenizer: Any, make: Any, kind: str
) -> None:
    model = make(tiny, kind)
    one, four, sixteen, derived = (answers(model, tokenizer, batch_size=size) for size in (1, 4, 16, None))
    assert one == four == sixteen == derived
    for prompt, answer in list(zip(PROMPTS, one, strict=True))[:6]:
        with torch.no_grad():
            whole = model.causal.generate(
                torch.tensor([prompt.tokens]), do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0
            )
        assert answer.text == tokenizer.decode(whole[0, len(prompt.tokens) :], skip_special_tokens=True)
    assert len({answer.text for answer in one}) > 12


class TestSampling:
    HOT = Decoding(12, temperature=1.5, top_p=0.9, seed=5)

    def test_neither_batch_nor_order_changes_a_sample(self, tiny: Path, tokenizer: Any) -> None:
        model = bare_model(tiny)
        one, sixteen = (answers(model, tokenizer, decoding=self.HOT, batch_size=size) for size in (1, 16))
        assert one == sixteen
        assert answers(model, tokenizer, PROMPTS[::-1], self.HOT) == one[::-1]

    def test_seed_and_row_decide(self, tiny: Path, tokenizer: Any) -> None:
        model = bare_model(tiny)
        same = [Prompt(number, PROMPTS[0].tokens) for number in (0, 1, 2)]
        first, other = (answers(model, tokenizer, same, Decoding(12, temperature=1.0, seed=seed)) for seed in (5, 6))
        assert len({answer.text for answer in first + other}) == 6
        assert answers(model, tokenizer, same, Decoding(12, temperature=1.0, seed=5)) == first

    def test_draws_have_the_masses_of_the_nucleus(self) -> None:
        masses = np.array([0.4, 0.1, 0.3, 0.2])
        logits = torch.tensor(np.log(masses)).repeat(20_000, 1)
        drawn = sample(logits, 1.0, 0.65, np.random.default_rng(0).random(20_000))
        shares = np.bincount(drawn, minlength=4) / 20_000
        assert shares == pytest.approx([4 / 7, 0, 3 / 7, 0], abs=0.015)
        hot = np.bincount(sample(logits, 2.0, 1.0, np.random.default_rng(1).random(20_000)), minlength=4) / 20_000
        assert hot == pytest.approx(np.sqrt(masses) / np.sqrt(masses).sum(), abs=0.015)

    def test_the_ends_of_the_range_are_tokens_of_the_nucleus(self) -> None:
        logits = torch.tensor([[0.0, 5.0, -300.0]]).repeat(2, 1)
        assert sample(logits, 1.0, 1.0, [0.0, 1 - 2**-53]) in ([1, 0], [1, 2])
        assert sample(logits, 1e-6, 1e-9, [0.0, 1 - 2**-53]) == [1, 1]

    def test_a_task_says_how(self) -> None:
        task: dict[str, Any] = {"name": "a", "type": "Generation", "dataset": {"split": "Test"}}
        assert Decoding.of(EvaluationTask.model_validate(task), 3) == Decoding(128, (), 0.0, 1.0, 3)
        task |= {"maxNewTokens": 9, "stop": ["x"], "temperature": 0.5, "topP": 0.25}
        assert Decoding.of(EvaluationTask.model_validate(task), 3) == Decoding(9, ("x",), 0.5, 0.25, 3)


def test_rows_are_answered_in_their_order_and_stripped(
    tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [EvaluationRow(n, "here", n, None, False, "", "", prompt_tokens=tuple(range(9, 12 + n))) for n in (4, 7)]
    said = [*tokenizer.encode("  \n an answer \n"), END]
    Script(monkeypatch, said, said)
    scores = generate_rows(
        bare_model(tiny), tokenizer, rows, Decoding(40), frozenset({END}),
        batch_size=2, stop=Interruption(), report=Report(),
    )  # fmt: skip
    assert [(score.number, score.text, score.stopped) for score in scores] == [
        (4, "an answer", True),
        (7, "an answer", True),
    ]


class TestMemory:
    def limit(self, patch: pytest.MonkeyPatch, most: int) -> None:
        logits = generate_module._Batch._logits

        def narrow(batch: Any) -> torch.Tensor:
            if len(batch.lines) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return logits(batch)

        patch.setattr(generate_module._Batch, "_logits", narrow)

    def test_the_batch_is_halved_until_it_fits(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        want = answers(bare_model(tiny), tokenizer)
        self.limit(monkeypatch, 4)
        log = io.StringIO()
        found = generate(
            bare_model(tiny), tokenizer, PROMPTS, Decoding(12), NOTHING,
            batch_size=16, stop=Interruption(), report=Report(stream=log),
        )  # fmt: skip
        assert found == want
        assert [json.loads(line)["batch_size"] for line in log.getvalue().splitlines()] == [8, 4]

    def test_a_prompt_that_does_not_fit_ends_it(
        self, tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.limit(monkeypatch, 0)
        with pytest.raises(OutOfMemory, match="smaller maxNewTokens"):
            answers(bare_model(tiny), tokenizer)


def test_a_signal_between_two_tokens_ends_it_at_once(
    tiny: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stop, steps = bare_model(tiny), Interruption(), []
    logits = generate_module._Batch._logits

    def told(batch: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")
        return logits(batch)

    monkeypatch.setattr(generate_module._Batch, "_logits", told)
    with stop.listening(), pytest.raises(Interrupted):
        generate(model, tokenizer, PROMPTS, Decoding(12), NOTHING, batch_size=4, stop=stop, report=Report())
    assert len(steps) == 3


def test_weights_that_compute_no_number_are_refused(tiny: Path, tokenizer: Any) -> None:
    with pytest.raises(SettingsInvalid, match="not finite") as caught:
        answers(adapted_model(tiny, scale=float("inf")), tokenizer)
    assert caught.value.reason is Reason.ARTIFACT_INVALID


@pytest.mark.parametrize(
    "family", ["gemma3:Gemma3ForConditionalGeneration", "qwen2_vl:Qwen2VLForConditionalGeneration"]
)
def test_the_text_part_of_a_model_with_vision_answers_as_the_whole_does(
    tiny: Path, tokenizer: Any, tmp_path: Path, family: str
) -> None:
    make_family(family, tmp_path)
    model = LanguageModel(load_base(tmp_path, QuantizationSettings(), torch.float32, CPU), torch.float32)
    prompts = [Prompt(number, tuple(t % 250 + 3 for t in prompt.tokens)) for number, prompt in enumerate(PROMPTS[:3])]
    found = answers(model, tokenizer, prompts)
    for prompt, answer in zip(prompts, found, strict=True):
        whole = model.causal.generate(
            input_ids=torch.tensor([prompt.tokens]),
            attention_mask=torch.ones(1, len(prompt.tokens), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=-1,
        )
        assert answer.text == tokenizer.decode(whole[0, len(prompt.tokens) :].tolist(), skip_special_tokens=True)
