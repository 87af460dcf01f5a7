"""The losses of preference methods, over log-probabilities of whole answers in nats. Each is a value a pair or a row.

DPO: arXiv 2305.18290 (eq. 7), its hinge of SLiC (2305.10425), IPO (2310.12036, eq. 17, over the mean of an answer's
tokens as its authors do), robust DPO (2403.00409). KTO: arXiv 2402.01306 (eq. 7). ORPO: arXiv 2403.07691 (eq. 4, 7).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...contract import PreferenceLoss, PreferenceSettings

_HALF = -0.6931471805599453
"""The logarithm of 1/2, on the two sides of which log(1 - exp(x)) is computed in two ways (Maechler 2012)."""


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of pairs float32[P], those of the model before training, and the tokens of each answer."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


def dpo(pairs: Pairs, settings: PreferenceSettings) -> Tensor:
    """Return the loss of each pair, float32[P]."""
    beta = settings.beta
    chosen, rejected = pairs.chosen - pairs.reference_chosen, pairs.rejected - pairs.reference_rejected
    margin = chosen - rejected
    if settings.loss is PreferenceLoss.HINGE:
        return torch.relu(1 - beta * margin)
    if settings.loss is PreferenceLoss.IPO:
        means = chosen / pairs.chosen_tokens.clamp(min=1) - rejected / pairs.rejected_tokens.clamp(min=1)
        return (means - 1 / (2 * beta)) ** 2
    if settings.loss is PreferenceLoss.ROBUST:
        wrong = settings.label_smoothing
        right, turned = functional.logsigmoid(beta * margin), functional.logsigmoid(-beta * margin)
        return (wrong * turned - (1 - wrong) * right) / (1 - 2 * wrong)
    return -functional.logsigmoid(beta * margin)


def kto(ratios: Tensor, wanted: Tensor, kl: Tensor, settings: PreferenceSettings) -> Tensor:
    """Return the loss of each row, float32[R].

    Args:
        ratios: log-probability minus that of the reference, float32[R].
        wanted: labels, bool[R].
        kl: how far the model went from the reference, at least 0, without gradient.
        settings: beta and the weights of both labels.
    """
    gain = settings.beta * (ratios - kl)
    desirable = settings.desirable_weight * (1 - torch.sigmoid(gain))
    return torch.where(wanted, desirable, settings.undesirable_weight * (1 - torch.sigmoid(-gain)))


def orpo(chosen: Tensor, rejected: Tensor, settings: PreferenceSettings) -> Tensor:
    """Return what the odds ratio adds to the likelihood's loss for each pair, float32[P].

    `chosen` and `rejected` are mean log-probabilities of a token, float32[P].
    """
    log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
    return -settings.beta * functional.logsigmoid(log_odds)


def log1mexp(values: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x <= 0, exact near both ends; a 0, which rounding made, is the next number below."""
    values = values.clamp(max=-torch.finfo(values.dtype).tiny)
    # Each branch is given what it is good for: the other one's gradient would be no number there, which masks keep.
    near = values > _HALF
    below, above = torch.where(near, _HALF, values), torch.where(near, values, _HALF)
    return torch.where(near, torch.log(-torch.expm1(above)), torch.log1p(-torch.exp(below)))
