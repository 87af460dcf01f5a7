"""`Particulars`: what one kind of work in stages has of its own; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Generic

from trimtab_trainer.contract import Mirrored, Model, Stage, TerminationMessage

from trimtab_operator.api import AdapterRollout, Condition, Evaluation, FineTuneJob

from ..plan import Note
from ..settings import Settings
from .afterwards import Afterwards, Meanwhile
from .attempts.attempt import Attempt
from .attempts.ending import Ending
from .subject import J, S

if TYPE_CHECKING:
    from .observed import Observed

OUTPUT = "output"
"""The directory of the Secret for the output, which every stage mounts."""


@dataclass(frozen=True)
class Hold(Generic[S]):
    """What keeps the next attempt from starting: something to wait for, to write down first, or the end.

    Attributes:
        final: whether it is the end.
        confirm: whether it must be decided on again from what the API server has now.
    """

    reason: str
    message: str
    status: S
    final: bool = False
    confirm: bool = False


@dataclass(frozen=True)
class References:
    """What a job refers to, as far as it is there and needed still.

    Attributes:
        upstream: the FineTuneJob that is waited for.
        rollout: the AdapterRollout that a baseline names.
        evaluation: the Evaluation that is waited for.
    """

    upstream: FineTuneJob | None = None
    rollout: AdapterRollout | None = None
    evaluation: Evaluation | None = None


NONE = References()


class Staging(ABC, Generic[J]):
    """What the pods of work in stages are made from.

    Attributes:
        name: of the kind that they belong to.
        label: with the resource's name, on its children.
        stages: all there are, in their order. Attempts are counted over all.
        parts: what the names of a stage's Jobs have between the resource's name and the number.
        config_part: what the name of the ConfigMap has behind the resource's name.
    """

    name: str
    label: str
    stages: tuple[Stage, ...]
    parts: Mapping[Stage, str]
    config_part: str

    def stages_of(self, job: J) -> tuple[Stage, ...]:
        """Return the stages that an object goes through: who wants nothing of a hub mirrors nothing."""
        return tuple(stage for stage in self.stages if stage is not Stage.MIRROR or self.from_hub(job))

    @property
    def main_stage(self) -> Stage:
        """The stage that has the accelerators, and whose steps are counted: what comes before only prepares."""
        return self.stages[-1]

    def pods(self, job: J, stage: Stage) -> int:
        """Return how many pods work together at a stage."""
        return 1

    @abstractmethod
    def run_config(self, job: J) -> Model:
        """Return the trainer's configuration; it is the same for every attempt."""

    @abstractmethod
    def secrets(self, job: J) -> Mapping[str, str | None]:
        """Return the Secrets to mount, by the name of their directory."""

    @abstractmethod
    def from_hub(self, job: J) -> frozenset[str]:
        """Return which of these Secrets are for a hub: the mirror stage alone mounts them."""

    def mounted(self, job: J, stage: Stage) -> Mapping[str, str | None]:
        """Return the Secrets that a stage mounts: the token of a hub is in no pod but the one that asks it."""
        hub, secrets = self.from_hub(job), self.secrets(job)
        if stage is Stage.MIRROR:
            return {role: name for role, name in secrets.items() if role in hub or role == OUTPUT}
        return {role: name for role, name in secrets.items() if role not in hub}

    def image(self, job: J, settings: Settings) -> str:
        """Return the operator's image for the stages that need torch."""
        return settings.trainer_image


class Particulars(Staging[J], Generic[J, S]):
    """What is particular to a kind of work.

    Attributes:
        noun: for messages.
    """

    noun: ClassVar[str]

    def next_stage(self, job: J, status: S) -> Stage:
        """Return the stage to go on with when all is prepared."""
        return self.main_stage

    # what its stages say

    @abstractmethod
    def tells_result(self, stage: str, words: TerminationMessage) -> bool:
        """Say whether last words hold what this stage is run for."""

    @abstractmethod
    def note_result(self, job: J, status: S, words: TerminationMessage, now: datetime) -> S:
        """Return the status with what a stage that succeeded has found."""

    @abstractmethod
    def prepared(self, job: J, status: S) -> Model | None:
        """Return what was found so far, for the arguments of the stages after preparing; None before that."""

    @abstractmethod
    def mirrored(self, status: S) -> Mirrored | None:
        """Return what mirroring found, for the arguments of all stages; None before that."""

    @abstractmethod
    def completed(self, status: S) -> str | None:
        """Return the message of the end, or None as long as there is no result."""

    @abstractmethod
    def note_progress(self, status: S, attempt: Attempt) -> S:
        """Return the status with what the trainer last said of itself."""

    @abstractmethod
    def note_last_figures(self, status: S, ending: Ending, end: datetime) -> S:
        """Return the status with what an attempt that ended somehow left behind."""

    @abstractmethod
    def step(self, status: S) -> int | None:
        """Return the step that an attempt of the main stage has reached."""

    @abstractmethod
    def lost_seconds(self, status: S, ending: Ending, end: datetime, seconds: int) -> int:
        """Return how many seconds of an attempt's work have to be done again."""

    # what is said of it

    @abstractmethod
    def working(self, status: S, attempt: Attempt) -> tuple[str, str]:
        """Return the state and message of an attempt that runs."""

    @abstractmethod
    def resumes(self, status: S) -> str:
        """Return the words for what a new object would go on from, or "" if it begins anew."""

    @abstractmethod
    def goes_on_from(self, status: S) -> str:
        """Return the words for where this object goes on, or ""."""

    # what only some have

    def goes_on_without(self, status: S, stage: str, words: TerminationMessage) -> str:
        """Return what to warn of where last words of a failure are of a trainer so old that it lacks what it was run
        for, and nothing is lost by going on without; "" elsewhere."""
        return ""

    def waits_for(self, job: J) -> str | None:
        """Return the name of the FineTuneJob that is waited for."""
        return None

    def follows_rollout(self, job: J) -> str | None:
        """Return the name of the AdapterRollout that says what to compare with, as long as that is not fixed."""
        return None

    def follows_evaluation(self, job: J) -> str | None:
        """Return the name of the Evaluation that is waited for, as long as what it says is not fixed."""
        return None

    def hold(self, job: J, status: S, found: References) -> Hold[S] | None:
        """Return what keeps the next attempt from starting, if anything does."""
        return None

    def meanwhile(self, observed: Observed[J], now: datetime) -> Meanwhile:
        """Return what is made beside the work of one that has not ended."""
        return Meanwhile()

    def lacks(self, job: J, settings: Settings) -> str | None:
        """Return what the operator's settings lack for it, which is waited for, and what to do; None if nothing."""
        return None

    def afterwards(self, observed: Observed[J], now: datetime) -> Afterwards:
        """Return what is left to do about one that has ended."""
        return Afterwards()

    def other_conditions(self, job: J, status: S, succeeded: Condition, now: datetime) -> list[Condition]:
        """Return the conditions beside `Succeeded`."""
        return [condition for condition in status.conditions if condition.type != succeeded.type]

    def other_notes(self, job: J, conditions: list[Condition]) -> tuple[Note, ...]:
        """Return the events of those conditions."""
        return ()
