"""`Kind`: what is particular to one kind of resource that works in stages; everything else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from trimtab_trainer.contract import Model, Progress, Stage, TerminationMessage

from trimtab_operator.api import Condition, WorkStatus
from trimtab_operator.api.finetunejob import ObjectMeta
from trimtab_operator.api.pod import PodTemplate
from trimtab_operator.api.work import RetryBudgets

from ..plan import Body, Note
from ..views import JobView

if TYPE_CHECKING:
    from .observed import Observed
    from .outcome import Ending


class WorkSpec(Protocol):
    """The part of a spec that says within which limits the work is done."""

    @property
    def retries(self) -> RetryBudgets: ...
    @property
    def suspend(self) -> bool: ...
    @property
    def active_deadline_seconds(self) -> int | None: ...
    @property
    def ttl_seconds_after_finished(self) -> int | None: ...
    @property
    def template(self) -> PodTemplate: ...
    def model_dump(self, *, mode: str, by_alias: bool, exclude_defaults: bool, exclude: set[str]) -> dict[str, Any]: ...


class Work(Protocol):
    """A resource that is worked on in stages."""

    @property
    def metadata(self) -> ObjectMeta: ...
    @property
    def spec(self) -> WorkSpec: ...
    @property
    def status(self) -> Any: ...


J = TypeVar("J", bound=Work)
S = TypeVar("S", bound=WorkStatus)


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


class Kind(ABC, Generic[J, S]):
    """What is particular to a kind.

    Attributes:
        name: of the kind.
        noun: for messages.
        label: with the resource's name, on its children.
        stages: without and with accelerators; attempts are counted over both.
        parts: what the names of a stage's Jobs have between the resource's name and the number.
        config_part: what the name of the ConfigMap has behind the resource's name.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    label: ClassVar[str]
    stages: ClassVar[tuple[Stage, Stage]]
    parts: ClassVar[Mapping[Stage, str]]
    config_part: ClassVar[str]

    @abstractmethod
    def parse(self, body: Body) -> J:
        """Return the typed form of an object from the API server.

        Raises:
            pydantic.ValidationError: it was stored under an older schema.
        """

    @abstractmethod
    def parse_status(self, status: Body) -> S:
        """Return the typed form of a status, with its defaults."""

    # what its pods look like

    @abstractmethod
    def run_config(self, job: J) -> Model:
        """Return the trainer's configuration; it is the same for every attempt."""

    @abstractmethod
    def secrets(self, job: J) -> Mapping[str, str | None]:
        """Return the Secrets to mount, by the name of their directory."""

    # what its stages say

    @abstractmethod
    def tells_result(self, stage: str, words: TerminationMessage) -> bool:
        """Say whether last words hold what this stage is run for."""

    @abstractmethod
    def note_result(self, job: J, status: S, words: TerminationMessage, now: datetime) -> S:
        """Return the status with what a stage that succeeded has found."""

    @abstractmethod
    def prepared(self, job: J, status: S) -> Model | None:
        """Return what the first stage found, for the arguments of the second; None before that."""

    @abstractmethod
    def completed(self, status: S) -> str | None:
        """Return the message of the end, or None as long as there is no result."""

    @abstractmethod
    def note_progress(self, status: S, view: JobView, progress: Progress | None) -> S:
        """Return the status with what the trainer last said of itself."""

    @abstractmethod
    def note_last_figures(self, status: S, ending: Ending, end: datetime) -> S:
        """Return the status with what an attempt that ended somehow left behind."""

    @abstractmethod
    def step(self, status: S) -> int | None:
        """Return the step that an attempt of the second stage has reached."""

    @abstractmethod
    def lost_seconds(self, status: S, ending: Ending, end: datetime, seconds: int) -> int:
        """Return how many seconds of an attempt's work have to be done again."""

    # what is said of it

    @abstractmethod
    def working(self, view: JobView, progress: Progress | None) -> tuple[str, str]:
        """Return the state and message of an attempt that runs."""

    @abstractmethod
    def resumes(self, status: S) -> str:
        """Return the words for what a new object would go on from, or "" if it begins anew."""

    @abstractmethod
    def goes_on_from(self, status: S) -> str:
        """Return the words for where this object goes on, or ""."""

    # what only some have

    def waits_for(self, job: J) -> str | None:
        """Return the name of the FineTuneJob that is waited for."""
        return None

    def follows_rollout(self, job: J) -> str | None:
        """Return the name of the AdapterRollout that says what to compare with, as long as that is not fixed."""
        return None

    def hold(self, observed: Observed[J], status: S) -> Hold[S] | None:
        """Return what keeps the next attempt from starting, if anything does."""
        return None

    def other_conditions(self, job: J, status: S, succeeded: Condition, now: datetime) -> list[Condition]:
        """Return the conditions beside `Succeeded`."""
        return [condition for condition in status.conditions if condition.type != succeeded.type]

    def other_notes(self, job: J, conditions: list[Condition]) -> tuple[Note, ...]:
        """Return the events of those conditions."""
        return ()
