"""The chart rendered by Helm's own library, as objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

Body = dict[str, Any]
DIRECTORY = Path(__file__).parents[3] / "charts" / "trimtab"
NAMESPACE = "trimtab-system"
HOOK = "helm.sh/hook"


class Rendered:
    """What one set of values comes out as."""

    def __init__(self, values: Body | None = None, name: str = "trimtab") -> None:
        with Chart.load(DIRECTORY) as chart:
            files = chart.render(values or {}, name=name, namespace=NAMESPACE)
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        self.objects: list[Body] = [
            body
            for path, text in files.items()
            if path.endswith(".yaml")
            for body in yaml.load_all(text, Loader=yaml.CSafeLoader)  # the CRD is long
            if body is not None
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


def keys(values: Body, path: str = "") -> Iterator[str]:
    """Yield the path of every value that can be set; resources and labels are set as a whole."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and not name.lower().endswith(("resources", "labels")):
            yield from keys(value, here)
        else:
            yield here


def nested(path: str, value: Any) -> Body:
    """Return values with one of them set."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}
