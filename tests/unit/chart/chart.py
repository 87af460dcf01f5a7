"""The chart rendered by Helm's own library, as objects."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

Body = dict[str, Any]
DIRECTORY = Path(__file__).parents[3] / "charts" / "trimtab"
NAMESPACE = "trimtab-system"
HOOK = "helm.sh/hook"
REGISTRY = "registry.example"
"""Where the images are, unless a test says otherwise: without any registry nothing renders."""


class Strict(yaml.CSafeLoader):
    """As strict as kyaml and kubeconform, which Helm is not: no key twice. (The CRDs are long: C.)"""


def _mapping(loader: Strict, node: yaml.MappingNode) -> Body:
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
    assert not twice, f"line {node.start_mark.line + 1}: {', '.join(twice)} twice"
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


Strict.add_constructor("tag:yaml.org,2002:map", _mapping)


def _documents(text: str) -> list[Body]:
    return [body for body in yaml.load_all(text, Loader=Strict) if body is not None]


_parsed = cache(_documents)


def _crds(text: str) -> list[Body]:
    """Return definitions: long, and nearly always the same."""
    return copy.deepcopy(_parsed(text))


class Rendered:
    """What one set of values comes out as, in its namespace."""

    def __init__(self, values: Body | None = None, name: str = "trimtab", namespace: str = NAMESPACE) -> None:
        with Chart.load(DIRECTORY) as chart:
            files = chart.render({"imageRegistry": REGISTRY, **(values or {})}, name=name, namespace=namespace)
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        self.objects: list[Body] = [
            body
            for path, text in files.items()
            if path.endswith(".yaml")
            for body in (_crds(text) if "/crds/" in path else _documents(text))
        ]

    def all(self, kind: str) -> list[Body]:
        return [body for body in self.objects if body["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Body:
        (body,) = [body for body in self.all(kind) if name in (None, body["metadata"]["name"])]
        return body

    @property
    def hooks(self) -> list[Body]:
        """What is there only while Helm installs or upgrades."""
        return [body for body in self.objects if HOOK in body["metadata"].get("annotations", {})]

    @property
    def release(self) -> list[Body]:
        """What stays."""
        return [body for body in self.objects if body not in self.hooks]

    @property
    def pod(self) -> Body:
        """The operator's pod template."""
        template: Body = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Body:
        (container,) = self.pod["spec"]["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def environment(self) -> dict[str, str]:
        """Variables with a plain value."""
        return {variable["name"]: variable["value"] for variable in self.container["env"] if "value" in variable}


def documented() -> Body:
    """The defaults, as the chart's users read them."""
    values: Body = yaml.safe_load((DIRECTORY / "values.yaml").read_text())
    return values


WHOLE = ("resources", "labels", "annotations", "context", "probe", "image", "config")
"""Ends of the names of what is set as a whole."""


def keys(values: Body, path: str = "") -> Iterator[str]:
    """Yield the path of every value that can be set."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and not name.lower().endswith(WHOLE):
            yield from keys(value, here)
        else:
            yield here


def nested(path: str, value: Any) -> Body:
    """Return values with one of them set."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}
