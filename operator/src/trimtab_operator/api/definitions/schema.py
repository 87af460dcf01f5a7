"""Pydantic models as structural OpenAPI v3 schemas, the dialect that CustomResourceDefinitions understand.

Pydantic writes JSON Schema 2020-12. Kubernetes wants no `$ref`, no `null`, booleans for exclusive bounds, a format on
every integer and no default that is not static.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

INT32_MAX = 2**31 - 1
WORD_LENGTH = 64
TRUTH = frozenset({"True", "False", "Unknown"})
"""The words of a condition's status, which never become more."""

KEY_ORDER = (
    "description",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "format",
    "default",
    "enum",
    "pattern",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "anyOf",
    "oneOf",
)


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """Return the structural schema of a model.

    Without defaults, nothing is filled in by the API server: a status says what was observed. Its words are open: an
    operator that has one more than the served definition must be able to say it, or its whole status is refused.
    """
    document = model.model_json_schema(by_alias=True, mode="serialization")
    return _Inliner(document.get("$defs", {}), defaults=defaults, open_words=not defaults).convert(document)


class _Inliner:
    """Replaces references by what they refer to and translates one node after the other."""

    def __init__(self, definitions: dict[str, Schema], *, defaults: bool, open_words: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._open_words = open_words

    def convert(self, node: Schema) -> Schema:
        node = self._resolve(node)
        _rewrite_bounds(node)
        if "const" in node:
            node["enum"] = [node.pop("const")]
        if self._open_words and "enum" in node and not set(node["enum"]) <= TRUTH:
            node |= {
                "description": f"{node['description']} One of {', '.join(node['enum'])}.",
                "maxLength": WORD_LENGTH,
            }
            del node["enum"]
        if node.get("type") == "integer":
            node["format"] = "int32" if node.get("maximum", INT32_MAX + 1) <= INT32_MAX else "int64"
        if not self._defaults or not _is_static_default(node):
            node.pop("default", None)
        elif node.get("type") == "object":
            node["default"] = {}  # so that the defaults of its fields apply when the section is absent
        if "properties" in node:
            node["properties"] = {name: self.convert(child) for name, child in node["properties"].items()}
            required = [
                name for name in node.get("required", []) if not node["properties"][name].pop("readOnly", False)
            ]
            node["required"] = required
            if not required:
                del node["required"]
            node.pop("additionalProperties", None)
        elif isinstance(node.get("additionalProperties"), dict):
            node["additionalProperties"] = self.convert(node["additionalProperties"])
        if "items" in node:
            # A list is compared as a whole by GitOps tools.
            items = _Inliner(self._definitions, defaults=False, open_words=self._open_words)
            node["items"] = items.convert(node["items"])
        return _in_order(node)

    def _resolve(self, node: Schema) -> Schema:
        """Return the node merged with what it refers to; its own keys win, rules of both hold."""
        node = {key: value for key, value in node.items() if key not in ("title", "$defs")}
        rules: list[dict[str, str]] = list(node.get("x-kubernetes-validations", []))
        while True:
            inner: Schema
            if "$ref" in node:
                inner = self._definitions[node.pop("$ref").rpartition("/")[2]]
            elif "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
                branches = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
                if len(branches) != 1:
                    raise TypeError(f"a union has no structural schema: {branches}")
                (inner,) = branches
            else:
                break
            rules += [rule for rule in inner.get("x-kubernetes-validations", []) if rule not in rules]
            node = {**{key: value for key, value in inner.items() if key not in ("title", "$defs")}, **node}
        if rules:
            node["x-kubernetes-validations"] = [{"rule": each["rule"], "message": each["message"]} for each in rules]
        return node


def _rewrite_bounds(node: Schema) -> None:
    for name in ("Minimum", "Maximum"):
        exclusive = f"exclusive{name}"
        if exclusive in node:
            node[name.lower()] = node[exclusive]
            node[exclusive] = True


def _is_static_default(node: Schema) -> bool:
    """Tell whether the default says something: absent and empty are the same to every reader."""
    default = node.get("default")
    if node.get("type") == "object" and "properties" in node:
        return default is not None
    return default not in (None, "", [], {})


def _in_order(node: Schema) -> Schema:
    unknown = set(node) - set(KEY_ORDER) - {"readOnly"}
    if unknown:
        raise TypeError(f"not structural: {sorted(unknown)}")
    return {key: node[key] for key in (*KEY_ORDER, "readOnly") if key in node}
