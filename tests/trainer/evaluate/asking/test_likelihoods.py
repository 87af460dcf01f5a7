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
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import Interrupted, OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate.asking import likelihoods as score
from trimtab_trainer.evaluate.asking.likelihoods import log_likelihoods, score_rows
from trimtab_trainer.evaluate.rows import EvaluationRow, Sequence
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.model import LanguageModel

from tests.trainer.evaluate.models import KINDS, adapted_model, bare_model
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
        logits = model.causal(input_ids=torch.tensor([each.tokens])).logits[0].double()
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


def test_choices_that_share_their_input_share_a_forward_pass(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = bare_model(tiny), list(range(20, 50))
    choices = [[7], [8], [9, 10], [9, 10, 11], [9], [12, 13]]
    sequences = [sequence(prompt + choice, (30, 30 + len(choice))) for choice in choices]
    laid: list[int] = []
    lay = score.lay

    def counted(inputs: Any, where: Any) -> Any:
        laid.extend(len(tokens) for tokens in inputs)
        return lay(inputs, where)

    monkeypatch.setattr(score, "lay", counted)
    assert found(model, sequences) == pytest.approx([plain(model, each) for each in sequences], rel=1e-5)
    assert sorted(laid) == [31, 32]  # prompt + 12, and prompt + 9 10 with the inputs of all the others


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
