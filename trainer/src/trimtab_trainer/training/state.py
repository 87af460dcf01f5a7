"""What a run has come to, beside its tensors: one value, replaced as a whole by a step or an evaluation.

`loop` replaces it, `checkpoint` writes and reads it, and `publishing` tells what it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from ..contract import Curve, EarlyStopping, PreferenceFigures
from .methods.figures import PreferenceSums, figures_of

RECENT_STEPS = 20
"""Steps that the reported training loss and speed are taken over."""
CURVE_POINTS = 500
"""Most points of the training curve that a run keeps."""
LARGEST_SCALE = 65536.0
"""What the loss is multiplied by in float16, so that small gradients do not vanish; a power of two changes no other."""


class Best(BaseModel):
    """The best evaluation so far, and the checkpoint that has its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    step: int
    loss: float
    checkpoint: str


class Point(BaseModel):
    """One point of a curve: nats per supervised token, or a preference method's mean loss and its figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    step: int
    loss: float
    preference: PreferenceFigures | None = Field(default=None, exclude_if=lambda value: value is None)


class TrainingPoint(Point):
    """One point of the training curve, and how it went since the point before.

    Attributes:
        gradient_norm: of the newest step, before clipping.
        tokens_per_second: tokens of training sequences.
        memory: most bytes that were taken so far, of the accelerator or else of the process.
    """

    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    memory: int | None = None


class TrainingState(BaseModel):
    """Where a run is, beside the tensors; `loop` replaces it, always as a whole, between steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    step: int = Field(default=0, description="optimizer steps done")
    epoch: float = Field(default=0.0, description="passes over the training data done")
    micro_batch: int | None = Field(default=None, description="sequences of a forward pass; sums depend on it")
    kernels: tuple[str, ...] = Field(
        default=(), exclude_if=lambda value: not value, description="parts of the base model that kernels compute"
    )
    evaluated_step: int = Field(default=0, description="newest step that was evaluated")
    validation_loss: float | None = None
    best: Best | None = None
    reference_loss: float | None = Field(default=None, description="loss that the next improvement is measured from")
    stale_evaluations: int = Field(default=0, description="evaluations since that improvement")
    stopped_early: bool = False
    recent: tuple[tuple[float, int], ...] = Field(
        default=(),
        description="summed loss of the newest steps, and the supervised tokens or pairs of each",
    )
    pending: tuple[float, int] = Field(default=(0.0, 0), description="the same since the newest point of the curve")
    pending_time: tuple[int, float] = Field(default=(0, 0.0), description="tokens and seconds since that point")
    recent_preference: tuple[PreferenceSums, ...] = Field(
        default=(), exclude_if=lambda value: not value, description="sums over the answers of the newest steps"
    )
    pending_preference: PreferenceSums | None = Field(
        default=None, exclude_if=lambda value: value is None, description="the same since the newest point of the curve"
    )
    tokens: int = 0
    supervised_tokens: int = 0
    loss_scale: float = Field(
        default=LARGEST_SCALE,
        exclude_if=lambda value: value == LARGEST_SCALE,
        description="what the loss is multiplied by in float16; lowered where gradients overflow",
    )
    seconds: float = Field(default=0.0, description="time in training steps, over all attempts")
    joules: float | None = Field(default=None, description="energy of the accelerator, over all attempts, if it tells")
    curve: tuple[TrainingPoint, ...] = ()
    evaluations: tuple[Point, ...] = ()

    @property
    def loss(self) -> float | None:
        """Training loss over the newest steps, in nats per supervised token or as the method has it."""
        tokens = sum(count for _, count in self.recent)
        return sum(nats for nats, _ in self.recent) / tokens if tokens else None

    @property
    def preference(self) -> PreferenceFigures | None:
        """A preference method's figures over the newest steps."""
        return sum(self.recent_preference, PreferenceSums()).figures

    @property
    def validation_preference(self) -> PreferenceFigures | None:
        """The same of the newest evaluation."""
        return self.evaluations[-1].preference if self.evaluations else None

    def preference_at(self, step: int) -> PreferenceFigures | None:
        """Return the figures of the evaluation after a step, or else of the newest one."""
        return next((each.preference for each in self.evaluations if each.step == step), self.validation_preference)

    @property
    def drawn(self) -> Curve | None:
        """Both curves as they are told; None before there is anything to draw."""
        return Curve.of(
            [(point.step, point.loss) for point in self.curve],
            [(point.step, point.loss) for point in self.evaluations],
        )


@dataclass(frozen=True)
class StepResult:
    """What a step saw: summed loss and what that is a mean over, tokens, and the gradient's norm before clipping."""

    nats: float
    count: int
    supervised_tokens: int
    tokens: int
    gradient_norm: float
    preference: PreferenceSums | None = None


def advanced(
    state: TrainingState,
    result: StepResult,
    seconds: float,
    *,
    total_steps: int,
    epoch: float,
    micro_batch: int,
    kernels: tuple[str, ...],
    joules: float | None,
    memory: int | None,
) -> TrainingState:
    """Return the state after a step, with another point of the curve where one is due.

    Args:
        seconds: of the step.
        joules: of the accelerator since the step before, if it tells.
        memory: most bytes that were taken so far.
    """
    step = state.step + 1
    nats, count = state.pending[0] + result.nats, state.pending[1] + result.count
    tokens, taken = state.pending_time[0] + result.tokens, state.pending_time[1] + seconds
    preference = _added(state.pending_preference, result.preference)
    point = step % math.ceil(total_steps / CURVE_POINTS) == 0 and count > 0
    curve = state.curve
    if point:
        newest = TrainingPoint(
            step=step,
            loss=nats / count,
            preference=figures_of(preference),
            gradient_norm=result.gradient_norm,
            tokens_per_second=tokens / taken if taken else None,
            memory=memory,
        )
        curve = (*curve, newest)
    return state.model_copy(
        update={
            "step": step,
            "epoch": epoch,
            "micro_batch": micro_batch,
            "kernels": kernels,
            "recent": (*state.recent, (result.nats, result.count))[-RECENT_STEPS:],
            "recent_preference": (*state.recent_preference, *filter(None, [result.preference]))[-RECENT_STEPS:],
            "pending": (0.0, 0) if point else (nats, count),
            "pending_time": (0, 0.0) if point else (tokens, taken),
            "pending_preference": None if point else preference,
            "tokens": state.tokens + result.tokens,
            "supervised_tokens": state.supervised_tokens + result.supervised_tokens,
            "seconds": state.seconds + seconds,
            "joules": _sum(state.joules, joules),
            "curve": curve,
        }
    )


def evaluated(
    state: TrainingState,
    loss: float,
    checkpoint: str,
    early: EarlyStopping | None,
    *,
    preference: PreferenceFigures | None = None,
) -> TrainingState:
    """Return the state after an evaluation: the best so far, and whether patience is at its end.

    The best is the lowest loss. Patience counts evaluations that do not beat the last improvement by
    minimumImprovement.
    """
    best = state.best
    if best is None or loss < best.loss:
        best = Best(step=state.step, loss=loss, checkpoint=checkpoint)
    minimum = early.minimum_improvement if early else 0.0
    improved = state.reference_loss is None or loss < state.reference_loss - minimum
    stale = 0 if improved else state.stale_evaluations + 1
    return state.model_copy(
        update={
            "evaluated_step": state.step,
            "validation_loss": loss,
            "evaluations": (*state.evaluations, Point(step=state.step, loss=loss, preference=preference)),
            "best": best,
            "reference_loss": loss if improved else state.reference_loss,
            "stale_evaluations": stale,
            "stopped_early": early is not None and stale >= early.patience,
        }
    )


def _added(known: PreferenceSums | None, more: PreferenceSums | None) -> PreferenceSums | None:
    return known if more is None else (known or PreferenceSums()) + more


def _sum(known: float | None, more: float | None) -> float | None:
    return known if more is None else (known or 0.0) + more
