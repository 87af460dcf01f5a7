"""`Afterwards`: what is left to do about an object that has ended, beside deleting it when its time is over."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_operator.api import Condition

from ..plan import Action

LONGEST_SECONDS = 1800.0
"""How long after its end an object outlives its TTL for that."""


@dataclass(frozen=True)
class Afterwards:
    """What is left.

    Attributes:
        actions: to be carried out first.
        condition: what is said of it; one of the types that the kind may still write.
        over: whether nothing of it is left to wait for.
    """

    actions: tuple[Action, ...] = ()
    condition: Condition | None = None
    over: bool = True
