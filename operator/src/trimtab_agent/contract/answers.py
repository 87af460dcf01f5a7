"""What an agent answers: what is true of its pod, of one share, or why it refuses.

The operator reads it from pods that tenants run, so every list, map and text has a bound; an agent never reaches one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_serializer

from .lenient import COUNTER, MESSAGE, PATH, SHARES_KEPT, TEXT, TOLD_SEQUENCE, WEIGHT, WORD, Lenient
from .share import DOCUMENTS_AT_ONCE

API = "trimtab.dev/agent/v1"
"""Version of the answers; one that is not told is this one."""
ADAPTERS_TOLD = 4096
BASES_TOLD = 64
KEYS_TOLD = 64


class Answer(Lenient):
    """What is not known is null, not absent."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (camelCase)."""
        return self.model_dump(mode="json", by_alias=True)

    def to_text(self) -> str:
        """Return the same as text."""
        return self.model_dump_json(by_alias=True)


class EngineLimits(Answer):
    """What the engine says it can hold; None where it does not say."""

    max_loras: int | None = None
    max_lora_rank: int | None = None
    max_cpu_loras: int | None = None


class AdapterAnswer(Answer):
    """An adapter in the engine's own list, and the folder it was loaded from."""

    name: TEXT
    root: PATH | None = None


class EngineAnswer(Answer):
    """The engine, as it answered last; `instance` is the start that is meant, `harmed` what an adapter did to it."""

    answers: bool
    error: MESSAGE | None = None
    instance: TEXT | None = None
    harmed: MESSAGE | None = None
    limits: EngineLimits | None = None
    base_models: tuple[TEXT, ...] = Field(default=(), max_length=BASES_TOLD)
    adapters: tuple[AdapterAnswer, ...] = Field(default=(), max_length=ADAPTERS_TOLD)


class FailureAnswer(Answer):
    """Why a revision does not serve: a word, mostly one of `FailureReason`, and whether trying again is in vain."""

    reason: WORD
    message: MESSAGE = ""
    permanent: bool = False


class RevisionAnswer(Answer):
    """One revision: `loaded` as the engine lists it now, `probed` on this start of the engine."""

    name: TEXT
    digest: TEXT
    uri: PATH
    verified: bool = False
    rank: int | None = None
    loaded: bool = False
    probed: bool = False
    failed: FailureAnswer | None = None
    seconds: Mapping[TEXT, float] = Field(default={}, max_length=16)


class AliasAnswer(Answer):
    """Where an alias points: revisions by weight, or why it answers 503."""

    to: Mapping[TEXT, WEIGHT] = Field(default={}, max_length=16)
    pending: MESSAGE | None = None
    unavailable: MESSAGE | None = None

    @model_serializer
    def _one_of_three(self) -> dict[str, Any]:
        if self.to:
            return {"to": dict(self.to)}
        return {"unavailable": self.unavailable} if self.unavailable is not None else {"pending": self.pending}


class ShareAnswer(Answer):
    """What the pod holds of one rollout: the answer to `PUT`, and a member of that to `GET /v1/rollouts`."""

    namespace: TEXT = ""
    rollout: TEXT
    uid: TEXT
    sequence: TOLD_SEQUENCE
    aliases: Mapping[TEXT, AliasAnswer] = Field(default={}, max_length=16)
    revisions: tuple[RevisionAnswer, ...] = Field(default=(), max_length=16)


class GuardAnswer(Answer):
    """The guard's counts since the start of an engine, passed on as they are: what they hold is its own to define."""

    model_config = ConfigDict(extra="allow")

    instance: TEXT | None = None
    revisions: Mapping[TEXT, Mapping[str, Any]] = Field(default={}, max_length=1024)


class PodIdentity(Answer):
    """Who answers."""

    uid: TEXT = ""


class Truth(Answer):
    """What is true of a pod. `sequence` is the highest that it holds, of retired rollouts too."""

    engine: EngineAnswer
    sequence: TOLD_SEQUENCE = (0, 0)
    rollouts: tuple[ShareAnswer, ...] = Field(default=(), max_length=SHARES_KEPT)


class PodAnswer(Truth):
    """The answer to `GET /v1/rollouts`. `version` grows with every change; `agent` is the version of its program.

    `documents`: how many it takes in one request to `PUT /v1/rollouts`; an agent that does not say takes none there.
    """

    api: WORD = API
    version: COUNTER
    documents: COUNTER = 0
    agent: WORD = ""
    pod: PodIdentity = PodIdentity()
    keys: tuple[Annotated[str, Field(max_length=64)], ...] = Field(default=(), max_length=KEYS_TOLD)
    counts: GuardAnswer | None = None


class RefusalAnswer(Answer):
    """An answer of 4xx: the reason in a word, and what to do."""

    reason: WORD = ""
    message: MESSAGE = ""


class DocumentAnswer(Answer):
    """What came of one of several documents: what the pod now holds of its rollout, or why it was refused."""

    share: ShareAnswer | None = None
    refused: RefusalAnswer | None = None


class DocumentsAnswer(Answer):
    """The answer to `PUT /v1/rollouts`: of each document, in the order of the request."""

    answers: tuple[DocumentAnswer, ...] = Field(max_length=DOCUMENTS_AT_ONCE)
