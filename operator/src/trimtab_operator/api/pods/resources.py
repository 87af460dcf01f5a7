"""Compute resources of the containers of a `spec.template`: their names, their amounts, and how many devices."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, WithJsonSchema
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import Rule, rules

from .names import DOMAIN_KEY, NAME
from .quantity import count_of
from .scheduling import keyed_by

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_QUANTITY_PATTERN = rf"^{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
QUANTITY = Annotated[
    Annotated[int, Field(strict=True, ge=0)]
    | Annotated[str, Field(min_length=1, max_length=32, pattern=_QUANTITY_PATTERN)],
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY_PATTERN,
            "minimum": 0,
            "maxLength": 32,
        }
    ),
]
"""resource.Quantity, not negative: 1, "500m", "16Gi"."""

_WITH_DOMAIN = "nvidia.com/gpu and the like"
_NAMES_OF_RESOURCES: Rule = (
    "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.startsWith('hugepages-') || "
    f"(k.matches('^{DOMAIN_KEY}$') && !k.startsWith('requests.')))",
    "a resource must be cpu, memory, ephemeral-storage, hugepages-<size>, or a name with a domain as in nvidia.com/gpu",
)
_WHOLE_DEVICES: Rule = (
    "self.all(k, !k.contains('/') || quantity(string(self[k])).isInteger())",
    f"{_WITH_DOMAIN} are counted in whole numbers",
)


def _at_most_one(amounts: str, names: str) -> str:
    one = f"quantity(string({amounts}[k])).compareTo(quantity('1')) <= 0"
    return f"{amounts}.all(k, !k.matches('^({names})$') || {one})"


_SLICES = r"nvidia\\.com/(gpu\\.shared|mig-.*)"
_GPUS = rf"nvidia\\.com/gpu|{_SLICES}|amd\\.com/gpu"
ONE_AT_MOST = re.compile(_GPUS.replace("\\\\", "\\"))  # in CEL a backslash is written twice
"""Resources of which work that does not train has one."""
_ONLY_TRAINING = "only training uses several GPUs, and more than one would be held for nothing: ask for 1"
_ONE_SLICE: Rule = (
    _at_most_one("self", _SLICES),
    "slices of GPUs cannot train together, and more than one would be held for nothing: ask for 1, or for GPUs",
)
_ONE_DEVICE: Rule = (_at_most_one("self", _GPUS), _ONLY_TRAINING)


def check_one_device(resources: ResourceRequirements | None) -> None:
    """Refuse what `one_device_rule` refuses.

    Raises:
        ValueError: the work would hold GPUs that it does not use.
    """
    asked = [] if resources is None else [resources.limits or {}, resources.requests or {}]
    several = (name for side in asked for name in side if ONE_AT_MOST.fullmatch(name) and count_of(side[name]) > 1)
    if any(several):
        raise ValueError(_ONLY_TRAINING)


def one_device_rule() -> Rule:
    """Return the rule of the spec of work that uses one accelerator, about its template's resources."""
    sides = [f"self.template.resources.{side}" for side in ("limits", "requests")]
    each = " && ".join(f"(!has({side}) || {_at_most_one(side, _GPUS)})" for side in sides)
    return f"!has(self.template.resources) || ({each})", _ONLY_TRAINING


def _in_both(comparison: str, rest: str) -> str:
    """Return the rule about what is in requests and in limits."""
    compared = f"quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) {comparison} 0"
    return (
        f"!has(self.limits) || !has(self.requests) || self.requests.all(k, {rest} || !(k in self.limits) || {compared})"
    )


class UsedClaim(Model):
    """A claim of the pod that the container uses."""

    name: NAME = Field(description="name of one of the resourceClaims.")
    request: NAME | None = Field(default=None, description="request of the claim to use; absent: all of it.")


_LIMITS = "limits that the container must stay within; nvidia.com/gpu and the like: absent: the requests."
_REQUESTS = "requests that the scheduler sets aside; absent: the limits."


class ResourceRequirements(Model):
    """Compute resources of the container."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            # The API server would say so of the Job, when it is too late to say so of this object.
            (
                _in_both("==", "!(k.contains('/') || k.startsWith('hugepages-'))"),
                f"{_WITH_DOMAIN}, and hugepages, must be equal in limits and requests, or stand in one of them",
            ),
            (_in_both("<=", "false"), "a request must not be above the limit"),
        )
    )

    limits: dict[str, QUANTITY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=rules(_NAMES_OF_RESOURCES, _WHOLE_DEVICES, _ONE_SLICE),
        description=_LIMITS,
    )
    requests: dict[str, QUANTITY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=rules(_NAMES_OF_RESOURCES, _WHOLE_DEVICES, _ONE_SLICE),
        description=_REQUESTS,
    )
    claims: list[UsedClaim] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=keyed_by("name"),
        description="claims of the resourceClaims that the container uses.",
    )


class SingleResourceRequirements(ResourceRequirements):
    """Compute resources of a container that uses one accelerator at most."""

    limits: dict[str, QUANTITY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=rules(_NAMES_OF_RESOURCES, _WHOLE_DEVICES, _ONE_DEVICE),
        description=_LIMITS,
    )
    requests: dict[str, QUANTITY] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra=rules(_NAMES_OF_RESOURCES, _WHOLE_DEVICES, _ONE_DEVICE),
        description=_REQUESTS,
    )


class ProcessorAmounts(Model):
    """Amounts of what a container without accelerators uses."""

    cpu: QUANTITY | None = Field(default=None, description="cpu in processors.")
    memory: QUANTITY | None = Field(default=None, description="memory in bytes.")
    ephemeral_storage: QUANTITY | None = Field(
        default=None, alias="ephemeral-storage", description="ephemeral-storage in bytes."
    )


def _below_its_limit(name: str) -> str:
    request, limit = f"self.requests.{name}", f"self.limits.{name}"
    below = f"quantity(string({request})).compareTo(quantity(string({limit}))) <= 0"
    return f"(!has(self.requests) || !has({request}) || !has(self.limits) || !has({limit}) || {below})"


class ProcessorResources(Model):
    """Compute resources of a container that uses no accelerator."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                " && ".join(map(_below_its_limit, ("cpu", "memory", "ephemeral__dash__storage"))),
                "a request must not be above the limit",
            )
        )
    )

    claims: ClassVar[None] = None

    limits: ProcessorAmounts | None = Field(default=None, description="limits that the container must stay within.")
    requests: ProcessorAmounts | None = Field(default=None, description=_REQUESTS)


AnyResources = ResourceRequirements | ProcessorResources
