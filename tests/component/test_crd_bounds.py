"""Every bound of every field, against the real API server: one object that breaks it, one that just keeps it.

The cases are derived from the CRD itself, so a new field is tested as soon as a sample has it, and a test fails until
one does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from trimtab_operator.api.definitions.reference import nodes
from trimtab_trainer.contract import METRICS_OF, TaskType

from tests.component.api_server import ApiServer
from tests.component.crd_kinds import ADAPTERROLLOUT, EVALUATION, FINETUNEJOB, FINETUNESWEEP, KINDS, Kind
from tests.component.crd_samples import OF_ANSWERS, Body, change, find

pytestmark = pytest.mark.cluster

REFUSED = ("spec.lora.modulesToSave",)
"""What is there to be refused by a rule with its reason, whatever its value."""
NODES = [
    (kind, path, node)
    for kind in KINDS
    for path, node in nodes(kind.root)
    if path.startswith(("spec", "status"))
    and not path.startswith(tuple(f"{each}." for each in kind.embeds))
    and not path.startswith(REFUSED)
]


def using(value: Any) -> list[Body]:
    """Return the claims of a container that uses all of these resourceClaims."""
    return [{"name": each["name"]} for each in value] if isinstance(value, list) else []


def claimed(value: Any) -> list[Body]:
    """Return the resourceClaims that these claims of a container use."""
    return [{**each, "resourceClaimName": "a"} for each in using(value)]


JUDGING: dict[str, Body] = {
    metric: {"instructions": "a", **({"mode": "Rubric"} if metric == "JudgeScore" else {})}
    for metric in METRICS_OF[TaskType.JUDGE]
}


def metric_of_the_first(tasks: Any) -> str:
    """Return a metric of the first of these tasks, if they are any."""
    name = tasks[0].get("name") if isinstance(tasks, list) and tasks else None
    return f"{name or 'heldout'}/perplexity"


_OF_TEMPLATES: dict[str, Body] = {
    "spec.template.volumes": {"spec.template.volumeMounts": []},
    "spec.template.volumes[].name": {"spec.template.volumeMounts": []},
    "spec.template.volumeMounts[].name": {"spec.template.volumes[0].name": None},
    "spec.template.resourceClaims": {"spec.template.resources.claims": using, "spec.template.prepareResources": ...},
    "spec.template.resourceClaims[].name": {"spec.template.resources.claims[0].name": None},
    "spec.template.resources.claims": {
        "spec.template.resourceClaims": claimed,
        "spec.template.prepareResources": ...,
    },
    "spec.template.resources.claims[].name": {"spec.template.resourceClaims[0].name": None},
    "spec.template.prepareResources.claims": {
        "spec.template.resourceClaims": claimed,
        "spec.template.resources": ...,
    },
    "spec.template.prepareResources.claims[].name": {"spec.template.resourceClaims[1].name": None},
}
COMPANIONS: dict[str, Body] = {
    "FineTuneJob spec.lora.dropout": {"spec.lora.targetParameters": ...},
    "FineTuneJob spec.lora.useDora": {"spec.lora.targetParameters": ...},
    "FineTuneJob spec.lora.type None": {
        **{
            f"spec.lora.{name}": ...
            for name in (
                *("rank", "alpha", "dropout", "targetModules"),
                *("targetParameters", "useRslora", "useDora", "initialAdapter"),
            )
        },
        "spec.quantization.type": "None",
        "spec.training.preference": ...,
        "spec.training.method": ...,
    },
    "FineTuneJob spec.dataset.validation.fold": {"spec.dataset.validation.folds": 100},
    "FineTuneJob spec.training.batchSize": {"spec.training.microBatchSize": 1},
    "FineTuneJob spec.training.microBatchSize": {"spec.training.batchSize": 65536},
    "FineTuneJob spec.dataset.format Preference": {**OF_ANSWERS, "spec.training.method": "DPO"},
    "FineTuneJob spec.dataset.format UnpairedPreference": {**OF_ANSWERS, "spec.training.method": "KTO"},
    "FineTuneJob spec.training.preference.loss Sigmoid": {"spec.training.preference.labelSmoothing": ...},
    "FineTuneJob spec.training.preference.loss Hinge": {"spec.training.preference.labelSmoothing": ...},
    "FineTuneJob spec.training.preference.loss IPO": {"spec.training.preference.labelSmoothing": ...},
    "FineTuneJob spec.training.method SFT": {"spec.training.preference": ..., "spec.dataset.format": "Auto"},
    "FineTuneJob spec.training.method KTO": {"spec.training.preference": ..., "spec.dataset.format": "Auto"},
    "FineTuneJob spec.training.method ORPO": {"spec.training.preference": ...},
    "Evaluation spec.tasks": {"spec.thresholds": []},
    "Evaluation spec.tasks[].dataset.format Preference": {
        "spec.thresholds": [],
        "spec.tasks": [
            {"name": name, "type": "Preference", "dataset": {"uri": "s3://datasets/pairs/"}} for name in "abc"
        ],
    },
    "Evaluation spec.tasks[].type Classification": {"spec.tasks[0].labels": ["yes", "no"]},
    "Evaluation spec.tasks[].type Harness": {"spec.tasks[0].harnessTask": "arc_easy"},
    "Evaluation spec.tasks[].type Regex": {"spec.tasks[0].pattern": "a"},
    "Evaluation spec.tasks[].type Judge": {"spec.tasks[0].judging": {"instructions": "a"}},
    "Evaluation spec.tasks[].judging.mode Pairwise": {
        "spec.tasks[7].judging.minimumScore": ...,
        "spec.tasks[7].judging.maximumScore": ...,
    },
    "Evaluation spec.tasks[].metrics": {
        "spec.tasks[2].pairs": "pair",
        "spec.tasks[2].dataset.limit": ...,
        "spec.tasks[2].temperature": ...,
        "spec.tasks[2].topP": ...,
    },
    "Evaluation spec.tasks[].predictBy Likelihood": {"spec.tasks[3].maxNewTokens": ...},
    "Evaluation spec.tasks[].temperature": {"spec.tasks[2].topP": ...},
    "Evaluation spec.precision AsServed": {"spec.quantization": ...},
    "Evaluation spec.engine Vllm": {"spec.precision": "AsServed", "spec.quantization": ...},
    "FineTuneSweep spec.parameters[].range.minimum": {
        "spec.parameters[0].range.maximum": 1e10,
        "spec.parameters[0].range.scale": ...,
    },
    "FineTuneSweep spec.parameters[].range.maximum": {
        "spec.parameters[0].range.minimum": -1e10,
        "spec.parameters[0].range.scale": ...,
    },
    **{
        f"FineTuneSweep {path}.tasks": {f"{path}.metric": metric_of_the_first, "spec.final.evaluation.thresholds": []}
        for path in ("spec.objective.evaluation", "spec.final.evaluation")
    },
    "AdapterRollout spec.strategy.canarySeconds": {"spec.strategy.canaryWeight": 100},
    **{
        f"Evaluation spec.tasks[].metrics[] {metric}": {
            "spec.thresholds": [],
            "spec.tasks[2]": {
                "name": "answers",
                "type": type_of_task,
                "dataset": {"uri": "s3://datasets/questions/"},
                "metrics": [metric],
                **({"labels": ["yes", "no"]} if type_of_task == "Classification" else {}),
                **({"pattern": "a"} if type_of_task == "Regex" else {}),
                **({"judging": JUDGING[metric]} if type_of_task == "Judge" else {}),
                **({"pairs": "pair"} if metric == "ChangedRatio" else {}),
            },
        }
        for type_of_task, metrics in METRICS_OF.items()
        for metric in metrics
    },
    "AdapterExport spec.format OCI": {"spec.destination.uri": "oci://registry.example/models/guide:1"},
    **{
        f"AdapterExport {path}": changes
        for path, changes in _OF_TEMPLATES.items()
        if path.startswith(("spec.template.volumes", "spec.template.volumeMounts"))
    },
    **{f"{kind.name} {path}": changes for kind in (FINETUNEJOB, EVALUATION) for path, changes in _OF_TEMPLATES.items()},
}
"""Changes elsewhere without which a rule would refuse a value that its own bound allows; None: the same
value, or what a function makes of it."""

NEVER_ACCEPTED = {"Evaluation spec.tasks[].dataset.format UnpairedPreference"}
"""Values of an enum that a rule refuses wherever they stand: the type is that of the rows of runs."""
MOST: dict[str, Any] = {"Evaluation spec.tasks[].metrics": [*METRICS_OF[TaskType.GENERATION]]}
"""As many items as a list may have, where a rule takes no others."""
CHARACTERS = "a1/%"
"""What strings are stretched with, the first that the pattern takes."""

Case = tuple[str, Any]
"""What is checked, and the value."""


def places(kind: Kind, path: str) -> Iterator[tuple[Body, str]]:
    """Yield the samples that have a field, with the field's path there: the first item of a list that has it."""
    for sample in (*kind.variants.values(), {"status": kind.status}):
        yield from ((sample, place) for place in _places(sample, path.split("."), ""))


def _places(value: Any, steps: list[str], here: str) -> Iterator[str]:
    if not steps:
        yield here
        return
    name, *rest = steps
    bare = name.rstrip("[]{}")
    if not isinstance(value, dict) or bare not in value:
        return
    here, value = f"{here}.{bare}".lstrip("."), value[bare]
    if name.endswith("[]"):
        for number, item in enumerate(value):
            yield from _places(item, rest, f"{here}[{number}]")
    elif name.endswith("{}"):
        for key, item in value.items():
            yield from _places(item, rest, f"{here}.{key}")
    else:
        yield from _places(value, rest, here)


def rejected(path: str, node: Body, value: Any) -> Iterator[Case]:
    """Yield values that break each bound of a field, and nothing else where that is possible."""
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return
    kind = "quantity" if node.get("x-kubernetes-int-or-string") else node["type"]
    yield "type", {"object": "text", "array": {"a": "b"}, "quantity": [], "string": 1}.get(kind, "text")
    if "enum" in node:
        yield "enum", "Unheard" if kind != "boolean" else not node["enum"][0]
    if "minimum" in node:
        yield "minimum", node["minimum"] if node.get("exclusiveMinimum") else node["minimum"] - 1
    if "maximum" in node:
        yield "maximum", node["maximum"] if node.get("exclusiveMaximum") else node["maximum"] + 1
    if "maxLength" in node:
        yield "maxLength", stretched(value, node, node["maxLength"] + 1)
    if node.get("minLength"):
        yield "minLength", str(value)[: node["minLength"] - 1]
    if "pattern" in node:
        wrong = next(text for text in (" ", "!", "/", " x") if not re.search(node["pattern"], text))
        yield "pattern", wrong * max(1, node.get("minLength", 1))
    if node.get("format") == "date-time":
        yield "date-time", "yesterday"
    if "maxItems" in node:
        yield "maxItems", items(value, node, node["maxItems"] + 1)
    if node.get("minItems"):
        yield "minItems", []
    if "maxProperties" in node:
        yield "maxProperties", keys(value, node["maxProperties"] + 1)
    if node.get("minProperties"):
        yield "minProperties", {}
    if node.get("x-kubernetes-list-type") in ("set", "map"):
        yield "duplicate", [value[0], value[0]]
    for name in node.get("required", []):
        yield f"required {name}", {key: item for key, item in value.items() if key != name}


def accepted(path: str, node: Body, value: Any) -> Iterator[Case]:
    """Yield values that just keep each bound of a field."""
    for word in node.get("enum", []):
        yield "enum", word
    if "minimum" in node:
        yield "minimum", node["minimum"] + (1e-9 if node.get("exclusiveMinimum") else 0)
    if "maximum" in node:
        yield "maximum", node["maximum"] - (1e-9 if node.get("exclusiveMaximum") else 0)
    if "maxLength" in node and not node.get("format"):
        yield "maxLength", stretched(value, node, node["maxLength"])
    if "maxItems" in node:
        yield "maxItems", items(value, node, node["maxItems"])
    if "maxProperties" in node:
        yield "maxProperties", keys(value, node["maxProperties"])


def stretched(value: Any, node: Body, length: int) -> str:
    """Return a string of this length that the pattern takes, if there is one."""
    pattern = node.get("pattern", "")
    stems = ["1"] if node.get("x-kubernetes-int-or-string") else [str(value)]
    texts = [stem + character * (length - len(stem)) for stem in stems for character in CHARACTERS]
    texts += [text[: length - len(stem)] + stem for stem in stems for text in ["a" * length]]
    return next((text for text in texts if re.search(pattern, text)), texts[0])[:length]


def items(value: list[Any], node: Body, count: int) -> list[Any]:
    """Return this many different items."""
    keys_of_items = node.get("x-kubernetes-list-map-keys", [])
    if not keys_of_items:
        if isinstance(value[0], dict):
            return [value[0]] * count
        if node["items"].get("type", "number") in ("integer", "number"):
            return list(range(count))
        words = [*value, *(word for word in node["items"].get("enum", []) if word not in value)]
        if "enum" in node["items"]:
            return words[:count]
        return [numbered(value[0], node["items"], number) for number in range(count)]
    key = keys_of_items[0]
    words = [*node["items"]["properties"][key].get("enum", []), "Unheard"]
    if len(words) > 1:
        return [{**value[0], key: word} for word in words[:count]]
    schema = node["items"]["properties"][key]
    return [{**value[0], key: numbered(value[0][key], schema, number)} for number in range(count)]


def numbered(value: Any, schema: Body, number: int) -> Any:
    """Return another value for each number, one that the pattern takes."""
    if schema["type"] == "integer":
        return number
    texts = (f"{value}{number}", f"{number}{value}", f"{value[:-2]}{number:02x}")
    return next(text for text in texts if re.search(schema.get("pattern", ""), text))


def keys(value: Body, count: int) -> Body:
    (first, *_) = value.values()
    return {f"example.com/k{number}": first for number in range(count)}


def send(server: ApiServer, kind: Kind, sample: Body, changes: Body) -> tuple[bool, str]:
    """Return whether the API server takes the object, and what it says."""
    body = change(sample, changes)
    if "status" in sample:
        url = f"{kind.url()}/status-sample"
        body = {**server.get(url).body, **body}
        answer = server.replace(f"{url}/status", body, dryRun="All", fieldValidation="Strict")
    else:
        answer = server.create(kind.url(), body, dryRun="All", fieldValidation="Strict")
    return answer.accepted, answer.message


def changes_for(kind: Kind, path: str, place: str, value: Any) -> Body:
    field = f"{kind.name} {path}"
    others = {**COMPANIONS.get(field, {}), **(COMPANIONS.get(f"{field} {value}", {}) if isinstance(value, str) else {})}
    made = {other: fixed(value) if callable(fixed) else fixed for other, fixed in others.items()}
    return {**{other: value if fixed is None else fixed for other, fixed in made.items()}, place: value}


@pytest.fixture(scope="module", autouse=True)
def status_samples(server: ApiServer) -> Iterator[None]:
    """Objects whose status can be written."""
    for kind in KINDS:
        answer = server.create(kind.url(), change(kind.minimal, {"metadata.name": "status-sample"}))
        assert answer.accepted or answer.code == 409, answer.message
    yield
    for kind in KINDS:
        server.delete(f"{kind.url()}/status-sample")


ALL_SAMPLES = [
    pytest.param(kind, sample, id=f"{kind.name}, {name}")
    for kind in KINDS
    for name, sample in {"minimal": kind.minimal, **kind.variants, "status": {"status": kind.status}}.items()
]


@pytest.mark.parametrize(("kind", "sample"), ALL_SAMPLES)
def test_the_samples_are_accepted(server: ApiServer, kind: Kind, sample: Body) -> None:
    ok, message = send(server, kind, sample, {})
    assert ok, message


@pytest.mark.parametrize(
    ("kind", "path", "node"), [pytest.param(*case, id=f"{case[0].name} {case[1]}") for case in NODES]
)
def test_every_bound_of(server: ApiServer, kind: Kind, path: str, node: Body) -> None:
    sample, place = next(places(kind, path), (None, ""))
    assert sample is not None, f"no sample has {path}: add it to the samples"
    value = find(sample, place)
    for check, wrong in rejected(path, node, value):
        ok, message = send(server, kind, sample, changes_for(kind, path, place, wrong))
        assert not ok, f"{check}: accepted {wrong!r}"
        field = re.split(r"[.{\[]", place)[-1] if not place.endswith("]") else place
        assert field.rstrip("]") in message or "fieldValidation" in message, (
            f"{check}: refused for another reason: {message}"
        )
    for check, most in accepted(path, node, value):
        right = MOST.get(f"{kind.name} {path}", most) if check == "maxItems" else most
        if f"{kind.name} {path} {right}" in NEVER_ACCEPTED:
            continue
        ok, message = send(server, kind, sample, changes_for(kind, path, place, right))
        assert ok, f"{check}: refused {right!r}: {message}"


def test_what_a_kind_embeds_is_bounded_as_it_is_elsewhere() -> None:
    embedded = FINETUNESWEEP.root["properties"]["spec"]["properties"]["template"]["properties"]["spec"]
    own = FINETUNEJOB.root["properties"]["spec"]
    assert {**embedded, "description": ""} == {**own, "description": ""}
    ours, theirs = (kind.root["properties"]["spec"]["properties"] for kind in (FINETUNESWEEP, EVALUATION))
    objective, final = (ours[name]["properties"]["evaluation"]["properties"] for name in ("objective", "final"))
    for judged in (objective, final):
        assert judged["tasks"]["items"] == theirs["tasks"]["items"]
    assert final["thresholds"]["items"] == theirs["thresholds"]["items"]
    assert {**final["baseline"], "description": ""} == {**theirs["baseline"], "description": ""}


@pytest.mark.parametrize(
    ("kind", "changes", "name"),
    [
        (FINETUNEJOB, {"spec.training": {"batchsize": 1}}, "batchsize"),
        (FINETUNESWEEP, {"spec.parameters[0].value": 1}, "value"),
        (EVALUATION, {"spec.tasks[0].groupby": "a"}, "groupby"),
        (ADAPTERROLLOUT, {"spec.strategy": {"canaryseconds": 1}}, "canaryseconds"),
    ],
)
def test_an_unknown_field_is_refused(server: ApiServer, kind: Kind, changes: Body, name: str) -> None:
    ok, message = send(server, kind, kind.minimal, changes)
    assert not ok
    assert name in message
