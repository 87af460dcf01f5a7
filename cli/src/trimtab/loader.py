"""YAML of manifests, read as kubectl reads it: into what JSON has, and numbers as YAML 1.2 writes them."""

from __future__ import annotations

import re

import yaml

TAG = "tag:yaml.org,2002:"
NOT_IN_JSON = {f"{TAG}{name}" for name in ("timestamp", "binary", "set", "omap", "pairs")}
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")


class ManifestLoader(yaml.SafeLoader):
    """Takes `1e-4` for a number, and a date or a time of day for a text, as kubectl does and PyYAML does not."""

    yaml_constructors = {  # noqa: RUF012
        tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag not in NOT_IN_JSON
    }
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in found if tag not in {*NOT_IN_JSON, f"{TAG}int", f"{TAG}float"}]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _without_colon(tag: str) -> re.Pattern[str]:
    """Return PyYAML's own pattern of a tag, but for numbers of base 60, such as 12:30."""
    found = next(pattern for known, pattern in yaml.SafeLoader.yaml_implicit_resolvers["1"] if known == f"{TAG}{tag}")
    return re.compile(rf"(?!.*:)(?:{found.pattern})", found.flags)


ManifestLoader.add_implicit_resolver(f"{TAG}int", _without_colon("int"), list("-+0123456789"))
ManifestLoader.add_implicit_resolver(f"{TAG}float", FLOAT, list("-+0123456789."))
