"""Losses of preference methods where numbers are at their ends."""

from __future__ import annotations

import math

import pytest
import torch
from trimtab_trainer.contract import PreferenceSettings
from trimtab_trainer.training.methods.losses import orpo


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e-9, -200.0)])
def test_an_answer_that_is_certain_has_a_gradient(chosen: float, rejected: float) -> None:
    """In float32 a token of probability 1 - 1e-8 has a log-probability of 0, whose odds are without end."""
    pair = [torch.tensor([value], requires_grad=True) for value in (chosen, rejected)]
    loss = orpo(pair[0], pair[1], PreferenceSettings())
    loss.sum().backward()
    assert math.isfinite(loss.item())
    assert all(each.grad is not None and bool(each.grad.isfinite()) for each in pair)
