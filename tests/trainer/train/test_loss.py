"""The chunked loss is the ordinary one, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trimtab_trainer.training.batches import IGNORED
from trimtab_trainer.training.loss import summed_loss


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 40, 16, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=generator, dtype=dtype)
    targets = torch.randint(0, 50, (3, 40), generator=generator)
    targets[torch.rand(3, 40, generator=generator) < 0.5] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_value_and_gradient_are_those_of_the_whole_cross_entropy(chunk: int) -> None:
    hidden, weight, targets = problem()
    want = functional.cross_entropy((hidden @ weight.T).flatten(0, 1).float(), targets.flatten(), reduction="sum")
    (want / 17).backward()
    assert hidden.grad is not None
    gradient, hidden.grad = hidden.grad, None
    loss = summed_loss(hidden, targets, lambda h: h @ weight.T, chunk)
    (loss / 17).backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    torch.testing.assert_close(hidden.grad, gradient, rtol=1e-5, atol=1e-7)


def test_a_weight_counts_as_so_many_positions() -> None:
    hidden, weight, targets = problem()
    weights = torch.ones(targets.shape)
    weights[1] = 2.5
    each = functional.cross_entropy((hidden @ weight.T).flatten(0, 1).float(), targets.flatten(), reduction="none")
    want = (each * weights.flatten()).sum()
    want.backward()
    assert hidden.grad is not None
    gradient, hidden.grad = hidden.grad, None
    loss = summed_loss(hidden, targets, lambda h: h @ weight.T, 7, weights=weights)
    loss.backward()
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    torch.testing.assert_close(hidden.grad, gradient, rtol=1e-5, atol=1e-7)


def test_without_supervised_positions_the_loss_is_a_graph_connected_zero() -> None:
    hidden, weight, targets = problem()
    loss = summed_loss(hidden, torch.full_like(targets, IGNORED), lambda h: h @ weight.T)
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_logits_never_exist_for_more_than_a_chunk_or_for_positions_without_a_loss() -> None:
    hidden, weight, targets = problem()
    seen: list[int] = []

    def head(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part @ weight.T

    summed_loss(hidden, targets, head, 16)
    assert max(seen) <= 16
    assert sum(seen) == int((targets != IGNORED).sum())
