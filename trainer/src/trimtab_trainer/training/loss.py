"""Cross-entropy of the supervised positions, in chunks, so that the logits never lie in memory whole.

A vocabulary of 150,000 makes 600 kB of float32 logits a token. The output head is therefore applied only where there
is a loss, 256 positions at a time, and each chunk's gradient is taken at once, in the forward pass: all that is kept
for the backward pass is the gradient of the hidden states, and of the head's weights where these are trained too.
`loop` and `validation` call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .batches import IGNORED
from .machine.sizing import CHUNK
from .network.derived import applied

Head = Callable[[Tensor], Tensor]
"""The output head: hidden states [n, H] to logits [n, V]; `trained` are its weights that are trained, if it has any."""


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
        head: the output head.
        chunk: positions whose logits exist at the same time.
        weights: float32 [B, T], by which the positions are multiplied; all 1 if absent.
        chosen: int64 [n], where in [B * T] there is a loss; they are looked for if absent, which an accelerator has to
            be waited for.
    """
    where = targets.flatten() != IGNORED if chosen is None else chosen
    counting = None if weights is None else weights.flatten()[where]
    of = (targets.flatten()[where], counting)
    return applied(_SummedLoss, hidden.flatten(0, 1)[where], of, head, chunk, *trained_of(head))


def trained_of(head: Head) -> tuple[Tensor, ...]:
    """Return the weights of a head that are trained."""
    found: tuple[Tensor, ...] = getattr(head, "trained", ())
    return found


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, of: tuple[Tensor, Tensor | None], head: Head, chunk: int, *trained: Tensor
    ) -> Tensor:
        targets, weights = of
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradients, of_head = [], [torch.zeros_like(weight) for weight in trained if ctx.needs_input_grad[0]]
        for start in range(0, len(hidden), chunk):
            chosen = slice(start, start + chunk)
            part, wanted, weight = hidden[chosen], targets[chosen], None if weights is None else weights[chosen]
            if not ctx.needs_input_grad[0]:
                total += _weighted(head(part), wanted, weight)
                continue
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                loss = _weighted(head(leaf), wanted, weight)
                gradient, *others = torch.autograd.grad(loss, (leaf, *trained))
            gradients.append(gradient)
            of_head = [known.add_(more) for known, more in zip(of_head, others, strict=True)]
            total += loss.detach()
        ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(hidden), *of_head)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        gradient, *of_head = ctx.saved_tensors
        others = (each * upstream.to(each.dtype) for each in of_head)
        return gradient * upstream.to(gradient.dtype), None, None, None, *others


def _weighted(logits: Tensor, wanted: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return functional.cross_entropy(logits.float(), wanted, reduction="sum")
    return (functional.cross_entropy(logits.float(), wanted, reduction="none") * weights).sum()
