"""Cross-entropy of the supervised positions, in chunks, so that the logits never lie in memory whole.

A vocabulary of 150,000 makes 600 kB of float32 logits a token. The output head is therefore applied only where there
is a loss, 256 positions at a time, and each chunk's gradient is taken at once, in the forward pass: the head is
frozen, so all that is kept for the backward pass is the gradient of the hidden states. `loop` and `validation` call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .batches import IGNORED
from .machine.sizing import CHUNK

Head = Callable[[Tensor], Tensor]
"""The frozen output head: hidden states [n, H] to logits [n, V]."""


def summed_loss(
    hidden: Tensor,
    targets: Tensor,
    head: Head,
    chunk: int = CHUNK,
    *,
    weights: Tensor | None = None,
    chosen: Tensor | None = None,
) -> Tensor:
    """Return the summed negative log-likelihood in nats, float32, of the supervised positions.

    Args:
        hidden: last hidden states [B, T, H].
        targets: int64 [B, T], IGNORED where there is no loss.
        head: the frozen output head.
        chunk: positions whose logits exist at the same time.
        weights: float32 [B, T], by which the positions are multiplied; all 1 if absent.
        chosen: int64 [n], where in [B * T] there is a loss; they are looked for if absent, which an accelerator has to
            be waited for.
    """
    where = targets.flatten() != IGNORED if chosen is None else chosen
    counting = None if weights is None else weights.flatten()[where]
    return _SummedLoss.apply(hidden.flatten(0, 1)[where], (targets.flatten()[where], counting), head, chunk)  # type: ignore[no-any-return, no-untyped-call]


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, of: tuple[Tensor, Tensor | None], head: Head, chunk: int) -> Tensor:
        targets, weights = of
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradients = []
        for start in range(0, len(hidden), chunk):
            chosen = slice(start, start + chunk)
            part, wanted, weight = hidden[chosen], targets[chosen], None if weights is None else weights[chosen]
            if not ctx.needs_input_grad[0]:
                total += _weighted(head(part), wanted, weight)
                continue
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                loss = _weighted(head(leaf), wanted, weight)
                gradients.append(torch.autograd.grad(loss, leaf)[0])
            total += loss.detach()
        ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(hidden))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None


def _weighted(logits: Tensor, wanted: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return functional.cross_entropy(logits.float(), wanted, reduction="sum")
    return (functional.cross_entropy(logits.float(), wanted, reduction="none") * weights).sum()
