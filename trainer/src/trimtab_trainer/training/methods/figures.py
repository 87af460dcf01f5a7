"""What is told of a preference method beside its loss: how often, and by how much, the wanted answers are preferred.

Names are those that TRL logs: a reward is beta times what an answer gained over the reference (of ORPO, which has none,
beta times its mean log-probability), a margin the difference of the rewards of both answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from ...contract import PreferenceFigures

if TYPE_CHECKING:
    from torch import Tensor


class PreferenceSums(BaseModel):
    """Sums over answers, so that figures of several batches can be put together.

    Attributes:
        chosen, rejected: how many answers are wanted, and how many are not.
        chosen_reward, rejected_reward, chosen_log_probability, rejected_log_probability: sums over these.
        pairs, right: how many pairs there are, and of how many the chosen answer has more reward.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    chosen: int = 0
    rejected: int = 0
    chosen_reward: float = 0.0
    rejected_reward: float = 0.0
    chosen_log_probability: float = 0.0
    rejected_log_probability: float = 0.0
    pairs: int = 0
    right: int = 0

    def __add__(self, other: Self) -> Self:
        """Return the sums of both."""
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Return the fields of float64[8], in their order."""
        return cls(**dict(zip(cls.model_fields, values.tolist(), strict=True)))

    @property
    def figures(self) -> PreferenceFigures | None:
        """The means; None where there are no answers."""
        if not self.chosen + self.rejected:
            return None
        chosen, rejected = _mean(self.chosen_reward, self.chosen), _mean(self.rejected_reward, self.rejected)
        return PreferenceFigures(
            accuracy=_mean(self.right, self.pairs),
            margin=chosen - rejected if chosen is not None and rejected is not None else None,
            chosen_reward=chosen,
            rejected_reward=rejected,
            chosen_log_probability=_mean(self.chosen_log_probability, self.chosen),
            rejected_log_probability=_mean(self.rejected_log_probability, self.rejected),
        )


def figures_of(sums: PreferenceSums | None) -> PreferenceFigures | None:
    """Return the means of sums, if there are such."""
    return sums.figures if sums is not None else None


def told(figures: PreferenceFigures | None) -> dict[str, float]:
    """Return what a log line says of it: nothing where there is no preference method."""
    if figures is None:
        return {}
    return {name: round(value, 6) for name, value in figures if name in ("accuracy", "margin") and value is not None}


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
