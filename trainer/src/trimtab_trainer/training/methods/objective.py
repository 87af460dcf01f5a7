"""The one interface that the loop knows of a method: what a step's loss is a mean over, and how a batch adds to it.

`objective_of` gives SFT's, over supervised tokens, or that of a preference method, over pairs or labelled answers. A
step's loss does not depend on how it is cut into micro-batches: whatever needs the whole step (KTO's KL term, the
tokens that ORPO's likelihood is a mean over) is found at its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...contract import Method, TrainingSettings
from ...interruption import Interruption
from ..batches import Batches, MicroBatch
from ..distributed.world import World
from ..loss import Head, summed_loss
from ..machine.transfer import sent
from ..network.trained import Trained
from ..validation import TOKENS_PER_BATCH, evaluating, in_parts, mean_loss
from .batches import PreferenceBatch, PreferenceBatches
from .figures import PreferenceSums
from .log_probabilities import log_probabilities, sums
from .losses import Pairs, dpo, kto, orpo
from .reference import answer_log_probabilities

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """A loss on a split, and of a preference method its sums."""

    loss: float
    sums: PreferenceSums | None = None


class StepLoss(Protocol):
    """The loss of one step, batch by batch: their sum divided by `weight` is the step's."""

    weight: float
    count: int
    """What the loss is a mean over: supervised tokens, pairs or labelled answers."""

    @property
    def sums(self) -> PreferenceSums | None:
        """Of the batches so far; None without preferences."""

    def __call__(self, hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor: ...


class Objective(Protocol):
    """What is learned of a split's sequences."""

    def begin(
        self, model: Trained, split: Batches, indices: Int64, micro_batch: int, stop: Interruption
    ) -> StepLoss: ...

    def measure(self, model: Trained, split: Batches, stop: Interruption, world: World | None = None) -> Measured: ...


@dataclass
class SupervisedStep:
    """Negative log-likelihood of supervised tokens, each as much as its row weighs."""

    weight: float
    count: int
    sums: None = None

    def __call__(self, hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
        """Return the summed loss of a batch."""
        return summed_loss(hidden, batch.targets, head, weights=batch.weights, chosen=batch.chosen)


class Supervised:
    """SFT: the tokens of answers."""

    def begin(self, model: Trained, split: Batches, indices: Int64, micro_batch: int, stop: Interruption) -> StepLoss:
        """Return the loss of a step of these sequences."""
        return SupervisedStep(float(split.counted[indices].sum()), int(split.supervised[indices].sum()))

    def measure(self, model: Trained, split: Batches, stop: Interruption, world: World | None = None) -> Measured:
        """Return the loss of a split in nats per supervised token, measured by all processes together."""
        return Measured(mean_loss(model, split, stop, None, world))


@dataclass
class PreferenceStep:
    """The loss of a step of a preference method.

    Attributes:
        compare: gives the loss of each unit of a batch, given the log-probability of each answer.
        likelihood: what each target of ORPO's wanted answers counts, prompts included; 0 for other methods.
        told: the sums of each batch, where it was computed.
    """

    weight: float
    count: int
    settings: TrainingSettings
    reference: npt.NDArray[np.float32] | None
    kl: Tensor
    likelihood: float = 0.0
    told: list[Tensor] = field(default_factory=list)

    @property
    def sums(self) -> PreferenceSums:
        """Of the batches so far; an accelerator is asked here, and between batches it is not."""
        return PreferenceSums.of(torch.stack(self.told).sum(0)) if self.told else PreferenceSums()

    def __call__(self, hidden: Tensor, batch: MicroBatch, head: Head) -> Tensor:
        """Return the summed loss of a batch, each unit as much as it weighs."""
        assert isinstance(batch, PreferenceBatch)
        values = log_probabilities(hidden, batch.targets, head, chosen=batch.chosen)
        counts = batch.answer_tokens + batch.asked_tokens
        answers = sums(torch.where(batch.is_answer, values, 0.0), counts)
        losses, rewards = self._losses(batch, answers)
        total = (losses * batch.unit_weights).sum()
        if self.likelihood:
            # The two rows of a unit follow each other, the chosen one first.
            likelihoods = sums(values, counts)[::2]
            total = total - self.likelihood * (likelihoods * batch.unit_weights).sum()
        self.told.append(_sums(batch, answers, rewards))  # last: one that memory does not suffice for is not counted
        return total

    def _losses(self, batch: PreferenceBatch, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each unit, and the reward of each answer without gradient."""
        settings = self.settings.preferences
        if self.settings.method is Method.ORPO:
            means = answers / batch.answer_tokens
            return orpo(means[::2], means[1::2], settings), settings.beta * means.detach()
        assert self.reference is not None
        known = sent(self.reference[batch.places], answers.device)
        rewards = settings.beta * (answers - known).detach()
        if self.settings.method is Method.KTO:
            return kto(answers - known, batch.wanted, self.kl, settings), rewards
        tokens = batch.answer_tokens
        return dpo(
            Pairs(answers[::2], answers[1::2], known[::2], known[1::2], tokens[::2], tokens[1::2]), settings
        ), rewards


def _sums(batch: PreferenceBatch, answers: Tensor, rewards: Tensor) -> Tensor:
    """Return the fields of `PreferenceSums` in their order, float64, where the answers are."""
    values, wanted = answers.detach(), batch.wanted
    paired = len(answers) == 2 * len(batch.unit_weights)
    of_pairs = rewards[::2] > rewards[1::2] if paired else wanted[:0]
    each = [
        *(wanted, ~wanted),
        *(torch.where(side, figure, 0.0) for figure in (rewards, values) for side in (wanted, ~wanted)),
        *(torch.ones_like(of_pairs), of_pairs),
    ]
    return torch.stack([figures.sum(dtype=torch.float64) for figures in each])


class Preferring:
    """DPO, KTO or ORPO."""

    def __init__(self, settings: TrainingSettings) -> None:
        """Take the method and what shapes its loss; splits have their references with them."""
        self._settings = settings

    def begin(
        self, model: Trained, split: Batches, indices: Int64, micro_batch: int, stop: Interruption
    ) -> PreferenceStep:
        """Return the loss of a step of these pairs or labelled answers."""
        assert isinstance(split, PreferenceBatches)
        reference, others = split.reference, split.mismatched
        weights = split.unit_weights[indices].astype(np.float64)
        step = PreferenceStep(
            weight=float(weights.sum()),
            count=len(indices),
            settings=self._settings,
            reference=reference.answers if reference is not None else None,
            kl=torch.zeros((), device=model.device),
        )
        if self._settings.method is Method.ORPO:
            step.likelihood = step.weight / float((weights * split.likelihood_tokens[indices]).sum())
        if reference is not None and reference.mismatched is not None and others is not None:
            now = answer_log_probabilities(model, others, indices, stop, micro_batch)
            gained = float((now.astype(np.float64) - reference.mismatched[indices]).mean())
            step.kl = torch.tensor(max(0.0, gained), device=model.device)
        return step

    def measure(self, model: Trained, split: Batches, stop: Interruption, world: World | None = None) -> Measured:
        """Return the loss of a split, a mean over its pairs or labelled answers, and its sums.

        Several processes share its micro-batches, but for the pass of KTO's other answers, which each makes.
        """
        assert isinstance(split, PreferenceBatches)
        world, preferences = world or World(), split
        everything = np.arange(len(split))
        size = max(1, TOKENS_PER_BATCH[model.device.type] // split.longest)
        with evaluating(model, stop, world):
            step = self.begin(model, split, everything, size, stop)

            def summed(indices: Int64) -> float:
                batch = preferences.lay(indices, model.device)
                return step(model.hidden(batch), batch, model.head).item()

            total = sum(in_parts(summed, model, split, everything, size, stop, world.share))
        (total,) = world.sum([total])
        return Measured(total / step.weight, added(world, step.sums))


def added(world: World, sums: PreferenceSums | None) -> PreferenceSums | None:
    """Return a method's sums over what all processes have; None of a method that has none."""
    return sum(filter(None, world.gather(sums)), PreferenceSums()) if sums is not None else None


def objective_of(settings: TrainingSettings) -> Objective:
    """Return what is learned by a method."""
    return Supervised() if settings.method is Method.SFT else Preferring(settings)
