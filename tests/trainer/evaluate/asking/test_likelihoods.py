"""Log-likelihoods: right, and the same however they are batched."""

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
from torch.nn import functional
from trimtab_trainer.contract import QuantizationSettings, Reason
from trimtab_trainer.contract.settings import QuantizationType
from trimtab_trainer.errors import Interrupted, OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate.asking import likelihoods as score
from trimtab_trainer.evaluate.asking import stems
from trimtab_trainer.evaluate.asking.likelihoods import log_likelihoods, score_rows
from trimtab_trainer.evaluate.rows import EvaluationRow, Sequence
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.model import LanguageModel, load_base

from tests.trainer.evaluate.models import CPU, KINDS, adapted_model, bare_model
from tests.trainer.train.families import make_family
from tests.trainer.train.runs import VOCABULARY


def sequence(tokens: list[int], *spans: tuple[int, int]) -> Sequence:
    return Sequence(tuple(tokens), spans, 1, 1)


def random_sequences(count: int, seed: int = 0, longest: int = 90) -> list[Sequence]:
    """Return sequences of all lengths, with one span, two spans, or all that there is."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        tokens = random.integers(3, VOCABULARY, random.integers(6, longest)).tolist()
        middle = len(tokens) // 2
        made.append(
            sequence(
                tokens, *[[(middle, len(tokens))], [(1, 3), (middle, len(tokens) - 1)], [(1, len(tokens))]][index % 3]
            )
        )
    return made


def plain(model: LanguageModel, each: Sequence) -> float:
    """Return the same by the model's own forward pass on the whole row, nothing batched, padded or left out."""
    with torch.no_grad():
        logits = model.causal(input_ids=torch.tensor([each.tokens]), use_cache=False).logits[0].double()
    found = functional.log_softmax(logits, dim=-1)
    return sum(float(found[at - 1, each.tokens[at]]) for start, stop in each.spans for at in range(start, stop))


def found(model: LanguageModel, sequences: list[Sequence], batch_size: int | None = None) -> list[float]:
    return log_likelihoods(model, sequences, batch_size=batch_size, stop=Interruption(), report=Report())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [bare_model, adapted_model])
def test_they_are_those_of_a_plain_forward_pass_and_the_same_for_every_batch_size(
    tiny: Path, make: Any, kind: str
) -> None:
    model = make(tiny, kind)
    sequences = random_sequences(40)
    one, four, sixteen, derived = (found(model, sequences, size) for size in (1, 4, 16, None))
    assert one == four == sixteen == derived
    assert one == pytest.approx([plain(model, each) for each in sequences], rel=1e-5)
    assert len(set(one)) == 40


def test_the_adapter_takes_part(tiny: Path) -> None:
    sequences = random_sequences(5)
    with_adapter, alone = found(adapted_model(tiny), sequences), found(bare_model(tiny), sequences)
    assert all(abs(one - other) > 0.01 for one, other in zip(with_adapter, alone, strict=True))


def test_choices_that_share_their_input_share_a_forward_pass(tiny: Path, laid: list[int]) -> None:
    model, prompt = bare_model(tiny), list(range(20, 35))
    choices = [[7], [8], [9, 10], [9, 10, 11], [9], [12, 13]]
    sequences = [sequence(prompt + choice, (15, 15 + len(choice))) for choice in choices]
    assert found(model, sequences) == pytest.approx([plain(model, each) for each in sequences], rel=1e-5)
    assert sorted(laid) == [16, 17]  # prompt + 12, and prompt + 9 10 with the inputs of all the others


@pytest.fixture
def laid(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all that goes through the model."""
    lengths: list[int] = []
    lay = stems.lay

    def counted(inputs: Any, where: Any, behind: int = 0) -> Any:
        lengths.extend(len(tokens) for tokens in inputs)
        return lay(inputs, where, behind)

    monkeypatch.setattr(score, "lay", counted)
    return lengths


def questions(count: int, examples: int = 0, seed: int = 0) -> list[Sequence]:
    """Return `count` questions with four choices of several tokens each, behind the same examples."""
    random = np.random.default_rng(seed)

    def some(length: int) -> list[int]:
        return [int(token) for token in random.integers(3, 250, length)]

    before, made = some(examples), []
    for number in range(count):
        prompt = before + some(40 + 3 * number)
        for length in (3, 5, 1, 20):
            tokens = prompt + some(length)
            made.append(sequence(tokens, (len(prompt), len(tokens))))
    return made


class TestStems:
    """What sequences begin with alike goes through the model once."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("make", [bare_model, adapted_model])
    @pytest.mark.parametrize("examples", [0, 100])
    def test_they_change_nothing_and_save_most(
        self, tiny: Path, laid: list[int], make: Any, kind: str, examples: int
    ) -> None:
        model, sequences = make(tiny, kind), questions(6, examples)
        one, four, derived = (found(model, sequences, size) for size in (1, 4, None))
        assert one == four == derived
        assert derived == pytest.approx([plain(model, each) for each in sequences], rel=1e-5)
        laid.clear()
        found(model, sequences)
        assert sum(laid) < (0.5 if examples else 0.6) * sum(len(each.tokens) for each in sequences)

    def test_what_is_asked_of_the_stem_itself_is_answered(self, tiny: Path, laid: list[int]) -> None:
        model, prompt = bare_model(tiny), list(range(20, 60))
        sequences = [sequence([*prompt, 100 + n, n, n], (1, 5), (30, 43)) for n in range(3, 7)]
        assert found(model, sequences) == pytest.approx([plain(model, each) for each in sequences], rel=1e-5)
        assert sorted(laid) == [10, 10, 10, 10, 32]

    def test_little_that_is_shared_is_not(self, tiny: Path, laid: list[int]) -> None:
        random = np.random.default_rng(0)
        start = random.integers(3, 250, 20).tolist()
        sequences = [sequence(start + random.integers(3, 250, 70).tolist(), (20, 90)) for _ in range(4)]
        found(bare_model(tiny), sequences)
        assert laid == [89] * 4

    def test_many_branches_are_cut_when_memory_runs_out(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, sequences = bare_model(tiny), questions(3)
        want, hidden = found(model, sequences), LanguageModel.hidden

        def narrow(self: LanguageModel, batch: Any, cache: Any = None) -> Any:
            if len(batch.tokens) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return hidden(self, batch, cache)

        monkeypatch.setattr(LanguageModel, "hidden", narrow)
        assert log_likelihoods(model, sequences, stop=Interruption(), report=Report(stream=io.StringIO())) == want

    @pytest.mark.parametrize(
        ("family", "window", "shares"),
        [
            ("qwen3:Qwen3ForCausalLM", None, True),
            ("gemma2:Gemma2ForCausalLM", 128, True),
            ("mistral:MistralForCausalLM", 128, True),
            ("mistral:MistralForCausalLM", 32, False),  # a window would cut into the stem
            ("phi3:Phi3ForCausalLM", 128, True),
            ("gpt2:GPT2LMHeadModel", None, True),
            ("gemma3:Gemma3ForConditionalGeneration", 128, True),
            ("qwen2_vl:Qwen2VLForConditionalGeneration", None, False),  # positions of its own
            ("qwen3_next:Qwen3NextForCausalLM", None, False),  # its layers remember more than keys and values
            ("mamba2:Mamba2ForCausalLM", None, False),
            ("openai-gpt:OpenAIGPTLMHeadModel", None, False),  # takes no cache, without a word
        ],
    )
    def test_models_share_that_can(self, tmp_path: Path, family: str, window: int | None, shares: bool) -> None:
        make_family(family, tmp_path)
        if window is not None:
            config = json.loads((tmp_path / "config.json").read_text())
            for part in (config, config.get("text_config", {})):
                if "sliding_window" in part:
                    part["sliding_window"] = window
            (tmp_path / "config.json").write_text(json.dumps(config))
        none = QuantizationSettings(type=QuantizationType.NONE)
        model, sequences = LanguageModel(load_base(tmp_path, none, torch.float32, CPU), torch.float32), questions(2)
        with torch.no_grad():
            assert stems.shares_stems(model, 70) is shares
        assert found(model, sequences) == pytest.approx([plain(model, each) for each in sequences], rel=2e-5)

    def test_a_cache_that_cannot_be_copied_is_not_used(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = bare_model(tiny)
        with torch.no_grad():
            assert stems.shares_stems(model, 70)
            monkeypatch.setattr(type(model.cache()), "batch_select_indices", lambda *_: None)
            assert not stems.shares_stems(model, 70)

    def test_every_sequence_is_in_one_branch_of_one_stem(self) -> None:
        random = np.random.default_rng(1)
        for _ in range(200):
            inputs: list[tuple[int, ...]] = [()]
            for _ in range(random.integers(1, 40)):
                start = inputs[random.integers(len(inputs))]
                start = start[: random.integers(len(start) + 1)]
                inputs.append((*start, *random.integers(0, 3, random.integers(40)).tolist()))
            made = stems.stems_of(inputs, shared=True)
            held: dict[int, tuple[int, ...]] = {}
            for stem in made:
                assert len(stem.tokens) % stems.MULTIPLE == 0
                assert 1 <= len(stem.branches) <= stems.MOST_BRANCHES
                for branch in stem.branches:
                    for member in branch.members:
                        assert member not in held
                        held[member] = stem.tokens + branch.tokens
            assert sorted(held) == list(range(len(inputs)))
            assert all(held[index][: len(tokens)] == tokens for index, tokens in enumerate(inputs))


def test_rows_are_answered_in_their_order_and_rounded(tiny: Path) -> None:
    sequences = random_sequences(6)
    rows = [
        EvaluationRow(number, "here", number, None, False, "", "", tuple(sequences[2 * number : 2 * number + 2]))
        for number in range(3)
    ]
    model = bare_model(tiny)
    scores = score_rows(model, rows, batch_size=4, stop=Interruption(), report=Report())
    assert [each.number for each in scores] == [0, 1, 2]
    want = [round(value, score.DECIMALS) for value in found(model, sequences)]
    assert [value for each in scores for value in each.log_likelihoods] == want


def test_a_sequence_of_which_nothing_is_asked_is_zero(tiny: Path) -> None:
    row = EvaluationRow(0, "here", 0, None, False, "", "", (sequence([5, 6]),))
    (only,) = score_rows(bare_model(tiny), [row], batch_size=1, stop=Interruption(), report=Report())
    assert json.dumps(only.log_likelihoods) == "[0.0]"


class TestMemory:
    def test_the_batch_is_halved_until_it_fits_and_nothing_changes(
        self, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, sequences, log = bare_model(tiny), random_sequences(30), io.StringIO()
        want, sizes = found(model, sequences, 16), []
        hidden = LanguageModel.hidden

        def narrow(self: LanguageModel, batch: Any) -> Any:
            sizes.append(len(batch.tokens))
            if len(batch.tokens) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return hidden(self, batch)

        monkeypatch.setattr(LanguageModel, "hidden", narrow)
        assert log_likelihoods(model, sequences, batch_size=16, stop=Interruption(), report=Report(stream=log)) == want
        assert sizes[:3] == [16, 8, 4]
        assert set(sizes[3:]) <= {4, 2}
        told = [json.loads(line) for line in log.getvalue().splitlines()]
        assert [line["batch_size"] for line in told] == [8, 4]

    def test_one_sequence_that_does_not_fit_ends_it(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(self: LanguageModel, batch: Any) -> Any:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

        monkeypatch.setattr(LanguageModel, "hidden", none)
        with pytest.raises(OutOfMemory, match=r"a single sequence of .* raise the memory limit"):
            found(bare_model(tiny), random_sequences(8), 4)

    def test_other_errors_stay_what_they_are(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(self: LanguageModel, batch: Any) -> Any:
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(LanguageModel, "hidden", broken)
        with pytest.raises(RuntimeError, match="shapes do not match"):
            found(bare_model(tiny), random_sequences(8), 4)


def test_a_signal_inside_a_batch_ends_it_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, stop, batches = bare_model(tiny), Interruption(), []
    hidden = LanguageModel.hidden

    def told(self: LanguageModel, batch: Any) -> Any:
        batches.append(batch)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("went on")
        return hidden(self, batch)

    monkeypatch.setattr(LanguageModel, "hidden", told)
    with stop.listening(), pytest.raises(Interrupted):
        log_likelihoods(model, random_sequences(12), batch_size=2, stop=stop, report=Report())
    assert len(batches) == 2


def test_a_token_without_an_embedding_is_refused(tiny: Path) -> None:
    with pytest.raises(SettingsInvalid, match="token 384, but the base model has only 384") as caught:
        found(bare_model(tiny), [sequence([1, VOCABULARY], (1, 2))])
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_weights_that_compute_no_number_are_refused(tiny: Path) -> None:
    with pytest.raises(SettingsInvalid, match="5 of 5 log-likelihoods are not finite") as caught:
        found(adapted_model(tiny, scale=float("inf")), random_sequences(5))
    assert caught.value.reason is Reason.ARTIFACT_INVALID
