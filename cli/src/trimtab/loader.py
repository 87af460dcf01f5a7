"""YAML of manifests, read as kubectl reads it: into what JSON has, and numbers as YAML 1.2 writes them.

The trainer reads the file of a search in the same spirit (`sweep.configuration.SearchLoader`), but neither is installed
with the other: what it trusts is a person's own file, and here it is whatever was put into a page.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

NODES = 100_000
"""Of an object, once what its aliases stand for is written out: far more than the API server takes."""
TAG = "tag:yaml.org,2002:"
NOT_IN_JSON = {f"{TAG}{name}" for name in ("timestamp", "binary", "set", "omap", "pairs")}
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")


class ManifestLoader(yaml.SafeLoader):
    """Takes `1e-4` for a number, and a date or a time of day for a text, as kubectl does and PyYAML does not.

    Refuses aliases that make large what is small, or that stand within what they stand for.
    """

    def construct_document(self, node: yaml.Node | None) -> Any:
        if node is not None and _written_out(node, {}) > NODES:
            mark = node.start_mark
            raise yaml.constructor.ConstructorError(None, None, "its aliases (*) make it too large", mark)
        return super().construct_document(node)

    yaml_constructors = {  # noqa: RUF012 PyYAML copies it before it writes
        tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag not in NOT_IN_JSON
    }
    yaml_implicit_resolvers = {  # noqa: RUF012 as above
        first: [(tag, pattern) for tag, pattern in found if tag not in {*NOT_IN_JSON, f"{TAG}int", f"{TAG}float"}]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many nodes there are without aliases; `known` has those of each node, too many while it is counted."""
    if id(node) not in known:
        known[id(node)] = NODES + 1
        inside = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = (part for each in inside for part in (each if isinstance(each, tuple) else (each,)))
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def _without_colon(tag: str) -> re.Pattern[str]:
    """Return PyYAML's own pattern of a tag, but for numbers of base 60, such as 12:30."""
    found = next(pattern for known, pattern in yaml.SafeLoader.yaml_implicit_resolvers["1"] if known == f"{TAG}{tag}")
    return re.compile(rf"(?!.*:)(?:{found.pattern})", found.flags)


ManifestLoader.add_implicit_resolver(f"{TAG}int", _without_colon("int"), list("-+0123456789"))
ManifestLoader.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+0123456789."))
