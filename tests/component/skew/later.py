"""A later version of Trimtab, generated from this one: its definitions, and its operator.

    python -m tests.component.skew.later definitions     # the CustomResourceDefinitions, as JSON
    python -m tests.component.skew.later operator        # the operator, as `python -m trimtab_operator`

Every section of every spec has one more field with a default, at whatever depth, in items of lists too; every section
of every status has one more fact, which its operator writes with each status, beside a condition of its own; one enum
of a spec and one of a status have a value more; its documents to agents say more in each of their parts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Any, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from trimtab_agent.contract import Share
from trimtab_operator.api.adapterrollout import RevisionState
from trimtab_operator.api.definitions.crd import crd_of
from trimtab_operator.generate import CUSTOM_RESOURCES
from trimtab_trainer.contract import EvaluationConfig, RunConfig, Schedule

Body = dict[str, Any]
Model = type[BaseModel]

SETTING, SETTING_DEFAULT = "laterSetting", 7
FACT, TOLD = "laterFact", "told by a later version"
SCHEDULE = "LaterSchedule"
STATE = "LaterState"
ARCHIVES = "archives"
"""Label of an AdapterRollout whose history is to have a revision in that state."""
CONDITION: Body = {
    "type": "Later",
    "status": "True",
    "reason": "Later",
    "message": TOLD,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def become_later() -> None:
    """Make the models of this process those of the later version."""
    _add_member(Schedule, "LATER", SCHEDULE)
    _add_member(RevisionState, "LATER", STATE)
    done = set[Model]()
    for crd in CUSTOM_RESOURCES:
        _extend(crd.spec, SETTING, Field(default=SETTING_DEFAULT, alias=SETTING, ge=0, le=100), int, done)
    for config in (RunConfig, EvaluationConfig):
        _extend(config, SETTING, Field(default=SETTING_DEFAULT, alias=SETTING, ge=0, le=100), int, done)
    for crd in CUSTOM_RESOURCES:
        _extend(crd.status, FACT, Field(default=None, alias=FACT, max_length=64), str | None, done)
        crd.model.model_rebuild(force=True)


def _add_member(enum: type[StrEnum], name: str, value: str) -> None:
    """Give an enum a value more; those that it has stay the same objects."""
    member = str.__new__(enum, value)
    member._name_, member._value_ = name, value
    enum._member_map_[name] = member
    enum._value2member_map_[value] = member
    enum._member_names_.append(name)


def _extend(model: Model, name: str, field: Any, annotation: Any, done: set[Model]) -> None:
    """Give a model and every model within it a field more, from the innermost outwards."""
    if model in done:
        return
    done.add(model)
    for each in model.__pydantic_fields__.values():
        for inner in _models_in(each.annotation):
            _extend(inner, name, field, annotation, done)
        if isinstance(each.default, BaseModel):  # made before its model had the field
            each.default = type(each.default).model_validate(each.default.model_dump(by_alias=True))
    info = FieldInfo.from_annotated_attribute(annotation, field)
    model.__pydantic_fields__[f"{name[:5]}_{name[5:].lower()}"] = info
    model.model_rebuild(force=True)


def _models_in(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def definitions() -> list[Body]:
    """Return the CustomResourceDefinitions. The API server fills the setting in wherever its section is there."""
    found = [crd_of(each) for each in CUSTOM_RESOURCES]
    for crd in found:
        _fill_in(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return found


def _fill_in(schema: Any) -> None:
    """Set the default in items of lists too, where this project itself sets none."""
    if isinstance(schema, dict):
        found = schema.get("properties", {}).get(SETTING)
        if isinstance(found, dict):
            found["default"] = SETTING_DEFAULT
        for inner in schema.values():
            _fill_in(inner)


def _with_facts(model: Model, value: Body) -> Body:
    """Return a status that tells the fact in each of its sections."""
    told = {**value, FACT: TOLD}
    for field in model.__pydantic_fields__.values():
        name = str(field.alias)
        for inner in _models_in(field.annotation):
            if isinstance(told.get(name), dict):
                told[name] = _with_facts(inner, told[name])
            elif isinstance(told.get(name), list):
                told[name] = [_with_facts(inner, item) for item in told[name]]
    return told


def _telling(plan: Callable[[Any, datetime], Any], model: Model) -> Callable[[Any, datetime], Any]:
    """Return a kind's `plan` whose statuses are those of the later version."""

    def later(observed: Any, now: datetime) -> Any:
        made = plan(observed, now)
        if made.status is None:
            return made
        status = {**made.status}
        others = [each for each in status.get("conditions", []) if each["type"] != CONDITION["type"]]
        status["conditions"] = [*others, CONDITION]
        rollout = getattr(observed, "rollout", None)
        if rollout is not None and rollout.metadata.labels.get(ARCHIVES):
            status["revisions"] = _archived(rollout.spec.adapter_name, status.get("revisions", []))
        return replace(made, status=_with_facts(model, status))

    return later


def _archived(adapter: str, revisions: list[Body]) -> list[Body]:
    """Return the revisions with one in a state that the version before does not have."""
    old = {"name": f"{adapter}@00000000", "uri": "s3://adapters/old", "digest": f"sha256:{'0' * 64}"}
    return [*(each for each in revisions if each["state"] != STATE), {**old, "state": STATE, "pods": 0}]


def _write_documents_with_more() -> None:
    plain = Share.to_bytes

    def to_bytes(share: Share) -> bytes:
        body = json.loads(plain(share))
        for part in (body, *body.get("revisions", ()), *([body["probe"]] if "probe" in body else [])):
            part[FACT] = TOLD
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    Share.to_bytes = to_bytes  # type: ignore[method-assign,assignment]


def run_operator() -> None:
    """Run the operator of the later version until it is told to stop."""
    from trimtab_operator import __main__
    from trimtab_operator.domain.kinds import KINDS

    _write_documents_with_more()
    for name, kind in dict(KINDS).items():
        KINDS[name] = replace(kind, plan=_telling(kind.plan, kind.crd.status))  # type: ignore[index]
    sys.argv = sys.argv[:1]
    __main__.main()


if __name__ == "__main__":
    become_later()
    if sys.argv[1:] == ["operator"]:
        run_operator()
    else:
        json.dump(definitions(), sys.stdout)
