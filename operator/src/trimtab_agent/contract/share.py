"""What should be true, as documents: one *share* per AdapterRollout, several of them in one request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator
from trimtab_trainer.contract.settings import DIGEST

from .lenient import SEQUENCE, WEIGHT, Lenient

SHARE_VERSION = "trimtab.dev/share/v1"
DOCUMENT_BYTES = 64 * 1024
DOCUMENTS_VERSION = "trimtab.dev/shares/v1"
DOCUMENTS_AT_ONCE, DOCUMENTS_BYTES = 64, 512 * 1024
"""Shares in one request, and bytes of it."""

NAME = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
_WORD = "[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_MODEL = f"{_WORD}([./:]{_WORD})*"
ADAPTER_NAME = Annotated[str, Field(min_length=1, max_length=96, pattern=f"^{_MODEL}$")]
"""What served models are called: words with `.`, `/` or `:` between them, as in Org/My_Model-v1.2. No `@`, which
revisions have; and no `..`, no `//` and no `/` at the beginning, which an engine could take for a path. It names no
file: folders have digests for names, and shares the hash of the rollout's name."""
REVISION = Annotated[str, Field(min_length=10, max_length=105, pattern=f"^{_MODEL}@[0-9a-f]{{8}}$")]
URI = Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^(s3://[a-z0-9]|file:///)")]


class ProbeKind(StrEnum):
    CHAT = "Chat"
    COMPLETION = "Completion"


class Probe(Lenient):
    """A question that a revision must answer before it takes traffic."""

    kind: Annotated[str, Field(max_length=64)] = Field(
        default=ProbeKind.COMPLETION, description="kind of request: Chat needs a chat template."
    )
    prompt: str = Field(default="Once upon a time", min_length=1, max_length=4096, description="prompt to ask.")
    max_tokens: int = Field(default=8, ge=1, le=256, description="maxTokens of the answer.")
    contains: str | None = Field(default=None, max_length=256, description="contains: text the answer must hold.")
    differs_from_base: bool = Field(default=True, description="differsFromBase: the base must answer something else.")


class Revision(Lenient):
    """An immutable adapter: `<adapterName>@<first 8 digits of its digest>`, and where it lies."""

    name: REVISION
    uri: URI
    digest: DIGEST

    @model_validator(mode="after")
    def _named_by_its_digest(self) -> Self:
        if self.name.rpartition("@")[2] != self.digest.removeprefix("sha256:")[:8]:
            raise ValueError(f"{self.name} is not named by its digest {self.digest}")
        return self


class Share(Lenient):
    """What one AdapterRollout wants of a pod."""

    version: str = Field(default=SHARE_VERSION, max_length=64)
    namespace: NAME
    rollout: NAME
    uid: str = Field(min_length=1, max_length=64)
    sequence: SEQUENCE = Field(
        description="sequence: [term, number], higher than that of every earlier document; the term is the Lease's "
        "transitions, or above what pods hold"
    )
    adapter_name: ADAPTER_NAME
    revisions: tuple[Revision, ...] = Field(default=(), max_length=8)
    aliases: Mapping[ADAPTER_NAME, Mapping[REVISION, WEIGHT]] = Field(default={}, max_length=8)
    probe: Probe = Probe()
    match_labels: Mapping[str, str] = Field(
        default={}, max_length=32, description="matchLabels: pods a mounted document is for; empty for all"
    )
    retired: bool = Field(default=False, description="retired: the rollout is gone; nothing is wanted any more")

    @model_validator(mode="after")
    def _is_understood(self) -> Self:
        if self.version != SHARE_VERSION:
            raise ValueError(f"version {self.version} is not understood here, {SHARE_VERSION} is")
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [revision.name for revision in self.revisions]
        if len(set(names)) != len(names):
            raise ValueError("two revisions have one name")
        if strangers := [name for name in names if name.rpartition("@")[0] != self.adapter_name]:
            raise ValueError(f"{strangers[0]} is no revision of {self.adapter_name}")
        for alias, weights in self.aliases.items():
            if unknown := sorted(set(weights) - set(names)):
                raise ValueError(f"alias {alias} points at {unknown[0]}, which is not among the revisions")
            if sum(weights.values()) == 0:
                raise ValueError(f"alias {alias} has no weight")
        if self.retired and (self.revisions or self.aliases):
            raise ValueError("a retired share wants nothing")
        return self

    def to_bytes(self) -> bytes:
        """Return the bytes that are signed and sent."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()


class Documents(Lenient):
    """Shares of several AdapterRollouts for one pod: each is taken or refused by itself, in this order.

    Each is the text of a share, so that one which is none spoils no other.
    """

    version: str = Field(default=DOCUMENTS_VERSION, max_length=64)
    documents: tuple[str, ...] = Field(min_length=1, max_length=DOCUMENTS_AT_ONCE)

    @model_validator(mode="after")
    def _is_understood(self) -> Self:
        if self.version != DOCUMENTS_VERSION:
            raise ValueError(f"version {self.version} is not understood here, {DOCUMENTS_VERSION} is")
        return self

    def to_bytes(self) -> bytes:
        """Return the bytes that are signed and sent."""
        return json.dumps(self.to_json(), separators=(",", ":")).encode()
