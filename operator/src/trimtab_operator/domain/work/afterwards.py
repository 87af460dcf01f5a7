"""What is done beside an object's work: `Meanwhile`, while it goes on, and `Afterwards`, when it has ended."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_operator.api import Condition

from ..plan import Action, Create

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


@dataclass(frozen=True)
class Meanwhile:
    """What is made while an object's work goes on, of which the work depends in nothing.

    Attributes:
        creates: it is made, or not; what stands in its way is no matter of the object's.
        look_again_seconds: when there may be more of it.
    """

    creates: tuple[Create, ...] = ()
    look_again_seconds: float | None = None
