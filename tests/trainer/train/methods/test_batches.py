"""Pairs and labelled answers as micro-batches: what they are cut into decides nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.errors import OutOfMemory
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.methods.batches import PreferenceBatches
from trimtab_trainer.training.methods.mismatched import mismatched
from trimtab_trainer.training.methods.objective import objective_of
from trimtab_trainer.training.methods.reference import answer_log_probabilities
from trimtab_trainer.training.network.adapter import Adapted
from trimtab_trainer.training.network.product import fuse

from tests.trainer.train.methods.preferences import random_answers, side, with_reference
from tests.trainer.train.runs import CPU, adapted, run_config, shake

UNITS, LIMIT = 7, 128
LABELS = [bool(number % 2) for number in range(UNITS)]


def sequences_of(method: str) -> Sequences:
    return side(random_answers(UNITS, 1 if method == "KTO" else 2), LABELS if method == "KTO" else None)


def split_of(method: str, side_by_side: bool = True) -> PreferenceBatches:
    sequences = sequences_of(method)
    split = PreferenceBatches(sequences, side_by_side=side_by_side, with_prompts=method == "ORPO")
    if method == "KTO":
        split.mismatched = PreferenceBatches(mismatched(sequences, LIMIT), side_by_side=side_by_side)
    return split


def starve(model: Adapted, monkeypatch: pytest.MonkeyPatch, fits: int) -> list[int]:
    """Let only so many lines fit into a forward pass; return how many are tried."""
    tried: list[int] = []
    whole = model.hidden

    def hidden(batch: Any) -> torch.Tensor:
        tried.append(len(batch.tokens))
        if len(batch.tokens) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return whole(batch)

    monkeypatch.setattr(model, "hidden", hidden)
    return tried


@pytest.mark.parametrize("method", ["DPO", "KTO", "ORPO"])
def test_where_memory_runs_out_preferences_are_measured_in_smaller_parts(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    training = run_config(tmp_path, training={"method": method}).training
    model, split = adapted(tiny, run_config(tmp_path, training={"method": method})), split_of(method)
    if training.method.needs_reference:
        with_reference(split, model, tmp_path)
    shake(model)
    objective, every = objective_of(training), np.arange(len(split))
    plenty = objective.measure(model, split, Interruption())
    answers = answer_log_probabilities(model, split, every, Interruption())
    with monkeypatch.context() as patch:
        tried = starve(model, patch, fits=2)
        scarce = objective.measure(model, split, Interruption())
        assert tried[:4] == [7, 3, 1, 1]
        assert scarce.loss == pytest.approx(plenty.loss, rel=1e-5)
        assert plenty.sums is not None
        assert scarce.sums is not None
        assert (scarce.sums.chosen, scarce.sums.pairs) == (plenty.sums.chosen, plenty.sums.pairs)
        assert answer_log_probabilities(model, split, every, Interruption()) == pytest.approx(answers, rel=1e-5)
    starve(model, monkeypatch, fits=0)
    with pytest.raises(OutOfMemory, match=r"lower training\.maxSequenceLength"):
        objective.measure(model, split, Interruption())
    with pytest.raises(OutOfMemory, match=r"lower training\.maxSequenceLength"):
        answer_log_probabilities(model, split, every, Interruption())


@pytest.mark.parametrize("method", ["DPO", "KTO", "ORPO"])
def test_one_answer_of_a_packed_pair_does_not_see_the_other(tiny: Path, tmp_path: Path, method: str) -> None:
    """By rows, with fused products, with answers changed beside it: an answer's likelihood is what it is alone."""
    model = adapted(tiny, run_config(tmp_path))
    shake(model)
    every = np.arange(UNITS)
    alone = answer_log_probabilities(model, split_of(method, side_by_side=False), every, Interruption(), 1)
    fuse(model.peft)
    model.attend_by_rows()
    assert model.attends_by_rows
    split = split_of(method)
    for size in (1, 3, UNITS):
        assert answer_log_probabilities(model, split, every, Interruption(), size) == pytest.approx(alone, rel=1e-5)
    if method == "KTO":
        return
    sequences = sequences_of(method)
    tokens = sequences.tokens.copy()
    for index in range(UNITS):  # of each pair the rejected answer, which lies behind the chosen one
        first = int(split.starts[2 * index + 1])
        tokens[first : int(split.ends[2 * index + 1])] = 5
    other = PreferenceBatches(dataclasses.replace(sequences, tokens=tokens), side_by_side=True)
    changed = answer_log_probabilities(model, other, every, Interruption())
    assert changed[::2] == pytest.approx(alone[::2], rel=1e-5)
    assert abs(changed[1::2] - alone[1::2]).min() > 1e-3


@pytest.mark.parametrize("method", ["DPO", "ORPO"])
def test_the_gradient_of_pairs_by_rows_is_that_of_pairs_apart(tiny: Path, tmp_path: Path, method: str) -> None:
    config = run_config(tmp_path, training={"method": method})
    found = []
    for by_rows, micro_batch in ((False, 1), (True, 3)):
        model, split = adapted(tiny, config), split_of(method, side_by_side=by_rows)
        split.unit_weights = np.linspace(0.5, 2, UNITS).astype(np.float32)
        if config.training.method.needs_reference:
            with_reference(split, model, tmp_path / f"{by_rows}")
        shake(model)
        if by_rows:
            fuse(model.peft)
            model.attend_by_rows()
        step = objective_of(config.training).begin(model, split, np.arange(UNITS), micro_batch, Interruption())
        model.peft.train()
        for batch in split.micro_batches(np.arange(UNITS), micro_batch, CPU):
            (step(model.hidden(batch), batch, model.head) / step.weight).backward()
        found.append({name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None})
    apart, together = found
    assert max(float(each.abs().max()) for each in apart.values()) > 1e-4
    for name, each in apart.items():
        assert torch.allclose(together[name], each, rtol=1e-3, atol=1e-5), name
