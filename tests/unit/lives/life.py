"""What lives of one object share: an operator that dies, watches that lag, and steps in which anything goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.kube import ApiError, Unreachable
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.unit.lives.faults import Died, Fate, FaultyApi
from tests.unit.lives.watches import deliver
from tests.unit.runtime.rounds import Rounds


class OneObject:
    """A life of the object `key`; whoever makes it sets what is declared here."""

    random: Random
    key: Key
    now: datetime
    api: FaultyApi
    story: list[str]
    operator: Rounds

    def _new_operator(self) -> Rounds:
        self.story.append("a new operator")
        self.api.fate = Fate()
        operator = Rounds(lambda: self.now, api=self.api)
        # What the one before had sent when it died may arrive after the list.
        self._deliver(operator, share=self.random.choice((1.0, 0.6)))
        return operator

    def _deliver(self, operator: Rounds, share: float) -> None:
        """Let watches and audits tell of a share of what is there, and of what is gone."""
        for _ in deliver(operator, self.api, self.random, share):
            pass  # there is only one to look, and it does all the time

    async def _round(self) -> float | None:
        return await self.operator.round(self.key)

    async def operate(self, rounds: int) -> None:
        """Let the operator do rounds as long as it lives and has something to do."""
        for _ in range(rounds):
            try:
                again = await self._round()
            except (ApiError, Unreachable, Retry) as error:
                self.story.append(f"  {type(error).__name__} {error}")
                self.now += timedelta(seconds=1)
                continue
            except Died:
                self.operator = self._new_operator()
                return
            if again is None or again > 0:
                return

    def the_operator_dies(self) -> None:
        self.operator = self._new_operator()

    async def go_through(self, happenings: tuple[Callable[[], None], ...], steps: int) -> None:
        """Let something happen in each of so many steps, with faults; after the last one there are none."""
        for _ in range(steps):
            self.api.faults = 0.0
            happening = self.random.choice(happenings)
            self.story.append(happening.__name__)
            happening()
            self._deliver(self.operator, share=self.random.choice((0.0, 0.5, 1.0)))
            self.api.faults = self.random.choice((0.0, 0.0, 0.3))
            self.api.fate.left = self.random.choice((None, None, None, 0, 1, 2, 3))
            await self.operate(self.random.choice((1, 2, 6)))
        self.api.faults, self.api.fate.left = 0.0, None
