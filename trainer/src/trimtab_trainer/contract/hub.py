"""Sources on a model hub: how they are written, what mirroring them found, and a configuration that reads the mirror.

Only the mirror stage asks a hub. It puts what it finds below `<output>`; every later stage is given the same
configuration and what was mirrored, and reads that in place of the hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar
from urllib.parse import unquote

from pydantic import Field

from .evaluation import EvaluationConfig
from .model import Received
from .run import Credentials, RunConfig
from .settings import DIGEST, from_hub

MODELS, DATASETS = "models", "datasets"
DATA_FOLDER = "files"
"""Of a mirrored data set, beside its manifest: whoever reads data below a prefix must not find the manifest there."""

_MODEL = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)@(?P<revision>[^@]+)")
_DATASET = re.compile(
    r"hf://datasets/(?P<repository>[^/@]+/[^/@]+)@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/@]+)(?:/(?P<path>.*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")

COMMIT = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", min_length=40, max_length=40)]
LICENSE = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]

Config = TypeVar("Config", RunConfig, EvaluationConfig)


@dataclass(frozen=True)
class HubSource:
    """A repository of a hub at a revision, and of a data set perhaps a file or a folder of it.

    Attributes:
        repository: `org/name`.
        revision: a branch, a tag or a commit.
        path: of a data set: a file, or a folder that ends with `/`; "" is the whole repository.
    """

    uri: str
    kind: Literal["model", "dataset"]
    repository: str
    revision: str
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> HubSource | None:
        """Return what a URI means on a hub, None where it is no such URI."""
        if match := _DATASET.fullmatch(uri):
            revision = unquote(match["revision"])  # a branch may have a slash in its name, written %2F
            return cls(uri, "dataset", match["repository"], revision, match["path"] or "")
        if match := _MODEL.fullmatch(uri):
            return cls(uri, "model", match["repository"], match["revision"])
        return None

    @property
    def commit(self) -> str | None:
        """The revision where it is a commit already: nothing has to be resolved then."""
        return self.revision if _COMMIT.fullmatch(self.revision) else None


class MirroredSource(Received):
    """One source that lies in the output now."""

    uri: str = Field(max_length=1024)
    commit: COMMIT
    digest: DIGEST = Field(description="digest of the files that were taken")
    license: LICENSE | None = Field(default=None, description="license as the repository names it")

    def location(self, output: str) -> str:
        """Return the URI at which it lies below the output."""
        name = self.digest.removeprefix("sha256:")
        source = HubSource.parse(self.uri)
        if source is None or source.kind == "model":
            return f"{output.rstrip('/')}/{MODELS}/{name}"
        file = source.path.rpartition("/")[2]
        return f"{output.rstrip('/')}/{DATASETS}/{name}/{DATA_FOLDER}/{file}"


class Mirrored(Received):
    """What the mirror stage found, for the arguments of the stages after it."""

    sources: tuple[MirroredSource, ...] = Field(default=(), max_length=4)

    def of(self, uri: str) -> MirroredSource | None:
        """Return what a URI became, None if it was not mirrored."""
        return next((source for source in self.sources if source.uri == uri), None)


def hub_sources(config: RunConfig | EvaluationConfig) -> dict[str, Credentials | None]:
    """Return the URIs of a configuration that are on a hub, each once, and where the keys for them lie."""
    wanted = [(config.base_model.uri, config.base_model.credentials)]
    if isinstance(config, RunConfig):
        wanted += [(uri, config.dataset.credentials) for uri in config.dataset.uris]
    else:
        wanted += [(task.dataset.uri, config.dataset_credentials) for task in config.tasks if task.dataset.uri]
    return {uri: credentials for uri, credentials in wanted if from_hub(uri)}


def relocated(config: Config, mirrored: Mirrored) -> Config:
    """Return the configuration with every source of a hub replaced by its mirror in the output.

    Its digest is pinned to that of the mirror, and the keys are those of the output.

    Raises:
        ValueError: a source was not mirrored; the message is its URI.
    """
    missing = [uri for uri in hub_sources(config) if mirrored.of(uri) is None]
    if missing:
        raise ValueError(missing[0])
    base, output = config.base_model, config.output
    if (found := mirrored.of(base.uri)) is not None:
        base = base.model_copy(
            update={
                "uri": found.location(output.uri),
                "digest": base.digest or found.digest,
                "credentials": output.credentials,
            }
        )
        config = config.model_copy(update={"base_model": base})
    if isinstance(config, RunConfig) and any(from_hub(uri) for uri in config.dataset.uris):
        dataset = config.dataset.at({each.uri: each.location(output.uri) for each in mirrored.sources})
        config = config.model_copy(update={"dataset": dataset.model_copy(update={"credentials": output.credentials})})
    if isinstance(config, EvaluationConfig) and any(from_hub(task.dataset.uri) for task in config.tasks):
        places = {each.uri: each.location(output.uri) for each in mirrored.sources}
        tasks = [
            task.model_copy(
                update={
                    "dataset": task.dataset.model_copy(
                        update={"uri": places.get(task.dataset.uri or "", task.dataset.uri)}
                    )
                }
            )
            for task in config.tasks
        ]
        config = config.model_copy(update={"tasks": tasks, "dataset_credentials": output.credentials})
    return config
