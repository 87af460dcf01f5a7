"""How many accelerators a pod holds: devices, not whatever else an extended resource or a claim may stand for.

Devices are counted as they are asked for: a MIG device, a partition or a time slice is one, however small. Memory and
cores of a shared device, network cards and the like are resources with a domain in their name too, and are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import cache

from trimtab_operator.api.pods.quantity import LARGEST, count_of
from trimtab_operator.api.pods.resources import ONE_AT_MOST, AnyResources
from trimtab_operator.api.pods.template import AnyTemplate, PodTemplate


def devices(limits: Mapping[str, object], patterns: Iterable[str]) -> int:
    """Return the number of devices among limits; a pattern is a resource's name, in which `*` stands for anything."""
    return min(LARGEST, sum(count_of(limits[name]) for name in named(limits, patterns)))


def named(resources: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return those of some resources' names that are of devices."""
    counts = _any_of(tuple(patterns)).match
    return [name for name in resources if counts(name)]


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return what matches names of which any pattern is true: there is one setting of them, and many Jobs."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")


def claimed(template: AnyTemplate, resources: AnyResources | None) -> int:
    """Return the number of devices that a container's claims stand for: what each says of itself, else one."""
    used = {claim.name for claim in (resources.claims if resources is not None else None) or ()}
    counts = (1 if each.accelerators is None else each.accelerators for each in template.resource_claims)
    return sum(count for each, count in zip(template.resource_claims, counts, strict=True) if each.name in used)


def for_one_accelerator(template: PodTemplate) -> PodTemplate:
    """Return the template of an evaluation that has what a training has, but one GPU of its several."""
    document = template.to_json_as_read()
    for amounts in (document.get("resources") or {}).values():
        if isinstance(amounts, dict):
            amounts.update({name: 1 for name in amounts if ONE_AT_MOST.fullmatch(name) and count_of(amounts[name]) > 1})
    return PodTemplate.model_validate(document, extra="allow")
