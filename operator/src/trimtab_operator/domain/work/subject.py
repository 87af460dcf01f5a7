"""What is worked on in stages: the parts of a resource that every such kind has."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from trimtab_operator.api import WorkStatus
from trimtab_operator.api.definitions.customresource import ObjectMeta
from trimtab_operator.api.pods.template import AnyTemplate
from trimtab_operator.api.work import RetryBudgets


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
    def template(self) -> AnyTemplate: ...
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
