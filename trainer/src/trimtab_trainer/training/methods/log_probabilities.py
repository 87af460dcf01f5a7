"""The log-probability of each target, in chunks, so that the logits never lie in memory whole.

As in `loss`: the head is frozen, so each chunk's gradient by its hidden states is taken in the forward pass. What comes
of a token depends on its own hidden state alone, so any loss over these values only scales that gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..batches import IGNORED
from ..loss import Head
from ..machine.sizing import CHUNK
from ..network.derived import applied


def log_probabilities(
    hidden: Tensor, targets: Tensor, head: Head, chunk: int = CHUNK, *, chosen: Tensor | None = None
) -> Tensor:
    """Return the log-probabilities of the positions that have a target, float32[n], line by line.

    Args:
        hidden: last hidden states [B, T, H].
        targets: int64 [B, T], IGNORED where nothing is asked.
        head: the frozen output head.
        chunk: positions whose logits exist at the same time.
        chosen: int64 [n], where in [B * T] there is a target; they are looked for if absent, which an accelerator has
            to be waited for.
    """
    where = targets.flatten() != IGNORED if chosen is None else chosen
    return applied(_LogProbabilities, hidden.flatten(0, 1)[where], targets.flatten()[where], head, chunk)


def sums(values: Tensor, counts: Tensor) -> Tensor:
    """Return the sums of neighbours float32[R]: of the first `counts[0]` values, of the next `counts[1]`, and so on."""
    # Unsafe: counts are not looked at, for which an accelerator had to be waited for. They are those of the values.
    return torch.segment_reduce(values, "sum", lengths=counts, initial=0.0, unsafe=True)


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head, chunk: int) -> Tensor:
        found = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradients = []
        for start in range(0, len(hidden), chunk):
            chosen = slice(start, start + chunk)
            if not ctx.needs_input_grad[0]:
                found[chosen] = _of(head(hidden[chosen]), targets[chosen])
                continue
            with torch.enable_grad():
                leaf = hidden[chosen].detach().requires_grad_()
                values = _of(head(leaf), targets[chosen])
                gradients.append(torch.autograd.grad(values.sum(), leaf)[0])
            found[chosen] = values.detach()
        ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(hidden))
        return found

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None, None


def _of(logits: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(logits.float(), targets, reduction="none")
