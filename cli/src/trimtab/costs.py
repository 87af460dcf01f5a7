"""What a run takes: as its status tells it, and as values of the trainer's estimate. Pure; a clock is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from .objects import CustomObject, mapping, number, sequence
from .text import duration, time_of
from .views import Shown

HOUR = 3600


@dataclass(frozen=True)
class Cost:
    """What a run has taken, and what it will have taken when it is done, by its status.

    Attributes:
        seconds: with a running pod, over all attempts, those that were lost too.
        remaining: seconds until the last step; None where it is not known yet.
        accelerators: that the newest attempt holds.
        accelerator_seconds: taken so far; of them `lost` was work to be done again.
    """

    seconds: float
    remaining: float | None
    accelerators: int
    accelerator_seconds: float
    lost: float

    @property
    def total(self) -> float | None:
        """Accelerator seconds at the end, if nothing more is lost."""
        return None if self.remaining is None else self.accelerator_seconds + self.remaining * self.accelerators


@dataclass(frozen=True)
class OnDevice:
    """A run on one type of accelerator: sizes in bytes, of each; `seconds` is None where the tokens are not known.

    `accelerators` train together, and the speed and the time are theirs; `divided_among` is how many of them divide
    the base model.
    """

    accelerator: str
    fits: bool
    peak: float
    memory: float
    micro_batch: int
    recomputed: bool
    tokens_per_second: float
    seconds: float | None
    accelerators: int = 1
    divided_among: int = 1

    @property
    def accelerator_seconds(self) -> float | None:
        """Seconds times accelerators."""
        return None if self.seconds is None else self.seconds * self.accelerators


@dataclass(frozen=True)
class Estimate(Shown):
    """What a run takes.

    Attributes:
        cost: by the status; None of a file.
        devices: by the trainer, where it was asked.
        weights: numbers in the base model; 0 where the trainer was not asked.
    """

    name: str
    cost: Cost | None = None
    devices: tuple[OnDevice, ...] = ()
    weights: int = 0


def cost_of(about: CustomObject, now: datetime) -> Cost:
    """Return what a status tells of a run."""
    told = about.told
    seconds, used = (number(told.get(name)) or 0.0 for name in ("activeSeconds", "acceleratorSeconds"))
    newest = mapping(next(iter(sequence(told.get("attempts"))[-1:]), None))
    held = newest.get("accelerators")
    accelerators = held if isinstance(held, int) and not isinstance(held, bool) else 0
    began = time_of(newest.get("startTime")) if newest.get("startTime") and not newest.get("endTime") else None
    if began is not None and not about.ended:
        running = max(0.0, (now - began).total_seconds())
        seconds, used = seconds + running, used + running * accelerators
    remaining = 0.0 if about.ended else number(mapping(told.get("progress")).get("etaSeconds"))
    return Cost(seconds, remaining, accelerators, used, number(told.get("lostAcceleratorSeconds")) or 0.0)


def lines(estimate: Estimate, price: float | None = None) -> Sequence[tuple[str, str]]:
    """Return what a status tells, as headings and words; `price` is that of an accelerator for an hour."""
    cost = estimate.cost
    if cost is None:
        return ()

    def priced(seconds: float) -> str:
        money = "" if price is None else f", {seconds / HOUR * price:,.2f} at {price:g} an hour"
        return f"{seconds / HOUR:,.2f} accelerator hours{money}"

    told = [("So far", f"{duration(cost.seconds)} with a running pod, {priced(cost.accelerator_seconds)}")]
    if cost.lost:
        told.append(("Lost", f"{priced(cost.lost)}: work that was done again"))
    if cost.total is None:
        told.append(("To come", "not known before the first steps"))
    elif cost.remaining:
        on = f"{cost.accelerators} accelerator{'' if cost.accelerators == 1 else 's'}"
        told.append(("To come", f"{duration(cost.remaining)} on {on}"))
        told.append(("At the end", priced(cost.total)))
    return told
