"""docs/api.md: every field, rule and reason, read from the CRDs, so that the page cannot be out of date."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..status.reasons import Explanation
from .customresource import CustomResource
from .schema import Schema

WHEN = {
    "active": "{condition} is Unknown",
    "succeeded": "{condition} is True",
    "failed": "{condition} is False",
    "attempt": "Reason of an attempt that another one may follow; the object's own is Retrying or RetriesExhausted",
    "adapter": "the adapter is to blame, and is taken back where a canary pod or its traffic shows it for good",
    "pod": "the pod is behind, and the others go on",
    "document": "the pod's agent refused a document, and nothing changed there",
}
SHORT_TABLE = 10
"""So many rows are written again rather than referred to."""

INTRODUCTION = """\
A field without a default is optional unless it says *required*. Numbers are JSON numbers, also where Kubernetes would
avoid floats (`learningRate: 0.0002`), because people who train models write numbers.

Who may create FineTuneJobs or Evaluations may create pods with any Secret and any service account of the namespace:
grant it as you would grant that. Who may write AdapterRollouts decides what the namespace's serving pods answer with.
"""


def reference(kinds: Sequence[tuple[CustomResource, dict[str, Any]]], generated: str) -> str:
    """Return the page for these kinds with their CustomResourceDefinitions."""
    parts = [f"<!-- {generated} -->\n# API reference\n\n{INTRODUCTION}"]
    written: dict[str, str] = {}
    for resource, crd in kinds:
        parts += _kind(resource, crd, written)
    return "\n".join(parts)


def _kind(resource: CustomResource, crd: dict[str, Any], written: dict[str, str]) -> Iterator[str]:
    """Yield the sections of one kind; `written` has the headings of long tables of the kinds before, by their text."""
    (version,) = crd["spec"]["versions"]
    names = crd["spec"]["names"]
    kind = names["kind"]
    root = _without_embedded(resource, version["schema"]["openAPIV3Schema"])
    yield (
        f"## {kind}\n\n{root['description']}\n\n"
        f"`apiVersion: {crd['spec']['group']}/{version['name']}`, `kind: {kind}`, namespaced, "
        f"short name `{names['shortNames'][0]}`, category `{names['categories'][0]}`.\n"
    )
    columns = [
        (
            column["name"].upper() + (" (`-o wide`)" if column.get("priority") else ""),
            column.get("description", ""),
            _code(column["jsonPath"]),
        )
        for column in version["additionalPrinterColumns"]
    ]
    yield f"### {kind}: columns of `kubectl get`\n\n" + _table(("Column", "Meaning", "Field"), columns)
    for top in ("spec", "status"):
        yield from _sections(kind, top, root["properties"][top], written)
    yield f"### {kind}: rules\n\nBeside the bounds of single fields, the API server checks:\n\n" + _rules(root)
    for condition, (sentence, explanations) in resource.reasons.items():
        yield _reasons(kind, condition, sentence, explanations)


def _without_embedded(resource: CustomResource, root: Schema) -> Schema:
    """Return a schema in which what is a section of another kind stands as that, and not with all its fields."""
    for path, kind in resource.embeds.items():
        root = copy.deepcopy(root)
        *sections, last = path.split(".")
        node = root
        for section in sections:
            node = node["properties"][section]
        inner = node["properties"][last]
        link = f"All fields of [{kind}: {last}](#{_anchor(f'{kind}: {last}')})."
        node["properties"][last] = {"type": "object", "description": f"{_sentence(inner['description'])} {link}"}
    return root


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Walk a schema: path, schema and whether it is required, for every field below it. Lists add `[]`, maps `{}`."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, child, name in schema.get("required", [])
        yield from fields(child, here)
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from fields(schema["additionalProperties"], f"{path}{{}}")


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Walk a schema: path and schema of every node, items of lists and values of maps included."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def _sections(kind: str, top: str, schema: Schema, written: dict[str, str]) -> list[str]:
    """Return a table of the plain fields, and one for each field that has fields of its own."""
    plain: list[tuple[str, Schema, bool]] = []
    sections = []
    for name, child in schema["properties"].items():
        required = name in schema.get("required", [])
        inner = list(fields(child, f"{top}.{name}"))
        if inner:
            heading, note, table = f"{kind}: {top}.{name}", "Required. " if required else "", _fields_table(inner)
            before = written.get(table)
            if before is not None and len(inner) > SHORT_TABLE:
                table = f"The same fields as in [{before}](#{_anchor(before)}).\n"
            written.setdefault(table, heading)
            sections.append(f"### {heading}\n\n{note}{_sentence(child['description'])}\n\n{table}")
        else:
            plain.append((f"{top}.{name}", child, required))
    return [f"### {kind}: {top}\n\n{_sentence(schema['description'])}\n\n" + _fields_table(plain), *sections]


def _anchor(heading: str) -> str:
    """Return the anchor of a heading of letters, dots and colons."""
    return heading.lower().replace(":", "").replace(".", "").replace(" ", "-")


def _fields_table(rows: list[tuple[str, Schema, bool]]) -> str:
    return _table(
        ("Field", "Type", "Default", "Bounds", "Description"),
        [
            (
                _code(path),
                _type(schema),
                _code(schema["default"]) if "default" in schema else ("*required*" if required else ""),
                _bounds(schema),
                _sentence(schema["description"]),
            )
            for path, schema, required in rows
        ],
    )


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return "any value"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") if schema.get("format") == "date-time" else schema["type"])


def _bounds(schema: Schema) -> str:
    bounds = []
    if "enum" in schema:
        bounds.append(", ".join(_code(value) for value in schema["enum"]))
    if "minimum" in schema:
        bounds.append(("> " if schema.get("exclusiveMinimum") else "≥ ") + _number(schema["minimum"]))
    if "maximum" in schema:
        bounds.append(("< " if schema.get("exclusiveMaximum") else "≤ ") + _number(schema["maximum"]))
    for kind, unit in (("Length", "characters"), ("Items", "items"), ("Properties", "keys")):
        least, most = schema.get(f"min{kind}"), schema.get(f"max{kind}")
        if most is not None:
            bounds.append(
                f"{most} {unit}" if least == most else f"{least} to {most} {unit}" if least else f"≤ {most} {unit}"
            )
    if "pattern" in schema and not schema.get("x-kubernetes-int-or-string"):
        bounds.append(_code(schema["pattern"]))
    return "; ".join(bounds)


def _rules(root: Schema) -> str:
    return _table(
        ("At", "Message", "Rule"),
        [
            (_code(path or "(the object)"), _sentence(rule["message"]), _code(rule["rule"]))
            for path, schema in nodes(root)
            for rule in schema.get("x-kubernetes-validations", [])
        ],
    )


def _reasons(kind: str, condition: str, sentence: str, explanations: dict[str, Explanation]) -> str:
    text = f"### {kind}: reasons of `{condition}`\n\n{sentence}\n"
    for when, title in WHEN.items():
        rows = [
            (_code(reason), explanation.meaning, explanation.next_step)
            for reason, explanation in sorted(explanations.items())
            if explanation.when == when
        ]
        if rows:
            heading = title.format(condition=f"`{condition}`")
            text += f"\n#### {kind}: {heading}\n\n" + _table(("Reason", "Meaning", "Next step"), rows)
    return text


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _code(value: Any) -> str:
    """Return a value as code: strings as they are, everything else as JSON."""
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"
