"""A judge of answers: who it is, what it is asked, and what it has to be worth. Settings of Evaluations."""

from __future__ import annotations

import socket
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, model_validator

from .model import Model, rules
from .run import Credentials, StoredBaseModel
from .settings import DIGEST, OBJECT_URI

ENDPOINT_URL = Annotated[str, Field(min_length=8, max_length=512, pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?$")]
ENDPOINT_MODEL = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
DEFAULT_MINIMUM_SCORE, DEFAULT_MAXIMUM_SCORE = 1, 5
LARGEST_SCORE = 10
LABELLED_ROWS = 20
"""Rows that people judged, without which `minimumAgreement` says nothing."""

METADATA_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data.ec2.internal")
METADATA_ADDRESSES = ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
"""Where machines of clouds are told who they are, beside link-local addresses: no judge answers there."""
IN_IPV6 = IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 as NAT64 writes them."""

MEASURED_BLIND = "minimumAgreement is measured on the rows' own answers, which a judge with showReference knows"
OF_RUBRICS = "minimumScore and maximumScore are for the mode Rubric"


def endpoint_trouble(url: str) -> str | None:
    """Return why no judge can be asked at a url, in words that do not repeat it; None where one may be."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "judge.endpoint.url is none: its host or its port cannot be read"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "judge.endpoint.url is http:// or https:// and a host, with a port or a path at most"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "judge.endpoint.url has no user, password, query or fragment; a key goes into its Secret, as API_KEY"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "judge.endpoint.url has no blanks, and no characters beyond ASCII"
    if ":" not in host and not all(0 < len(label) <= 63 for label in host.removesuffix(".").split(".")):
        return "judge.endpoint.url has a host that is no name: between its dots are 1 to 63 characters"
    if _is_metadata(host):
        return "judge.endpoint.url is where a cloud tells machines who they are, and no judge's; name a server"
    return None


def _is_metadata(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name in METADATA_NAMES:
        return True
    address = _address(name)
    if address is None:
        return False
    return address.is_link_local or str(address) in METADATA_ADDRESSES


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, in all the ways that C libraries read: 2852039166 is one."""
    try:
        found = ip_address(host)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if found in IN_IPV6:
            return IPv4Address(int(found) & 0xFFFFFFFF)
    return found


class JudgeMode(StrEnum):
    """What a judge is asked."""

    PAIRWISE = "Pairwise"
    """Which of two answers is better: the target's or the baseline's."""
    RUBRIC = "Rubric"
    """How good one answer is, as a whole number."""


class Judging(Model):
    """What the judge is asked of a task's answers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.mode) && self.mode == 'Rubric') || (!has(self.minimumScore) && !has(self.maximumScore))",
                OF_RUBRICS,
            ),
            (
                "(has(self.minimumScore) ? self.minimumScore : 1) < (has(self.maximumScore) ? self.maximumScore : 5)",
                "minimumScore must be below maximumScore",
            ),
            ("!has(self.minimumAgreement) || !has(self.showReference)", MEASURED_BLIND),
        )
    )

    mode: JudgeMode | None = Field(
        default=None,
        description="mode: Pairwise, the target's answer beside the baseline's (the default), or Rubric, a score of "
        "each.",
    )
    instructions: str = Field(
        min_length=1, max_length=4_000, description="instructions to the judge: what makes an answer good, or a score."
    )
    minimum_score: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST_SCORE - 1,
        description=f"minimumScore of a Rubric; {DEFAULT_MINIMUM_SCORE} if absent.",
    )
    maximum_score: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_SCORE,
        description=f"maximumScore of a Rubric; {DEFAULT_MAXIMUM_SCORE} if absent.",
    )
    show_reference: Literal[True] | None = Field(
        default=None, description="showReference: true shows the judge the row's own answer too."
    )
    minimum_agreement: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="minimumAgreement with people, on rows with their judgement (columns worse or score); a judge "
        f"below it decides nothing (JudgeUnreliable). Needs {LABELLED_ROWS} such rows.",
    )

    @property
    def chosen_mode(self) -> JudgeMode:
        return self.mode or JudgeMode.PAIRWISE

    @property
    def scores(self) -> tuple[int, int]:
        """Return the lowest and the highest score."""
        low = DEFAULT_MINIMUM_SCORE if self.minimum_score is None else self.minimum_score
        return low, DEFAULT_MAXIMUM_SCORE if self.maximum_score is None else self.maximum_score

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chosen_mode is not JudgeMode.RUBRIC and (self.minimum_score, self.maximum_score) != (None, None):
            raise ValueError(OF_RUBRICS)
        if self.scores[0] >= self.scores[1]:
            raise ValueError("minimumScore must be below maximumScore")
        if self.minimum_agreement is not None and self.show_reference is not None:
            raise ValueError(MEASURED_BLIND)
        return self


class StoredEndpoint(Model):
    """An OpenAI-compatible server: <url>/chat/completions is asked."""

    url: ENDPOINT_URL
    model: ENDPOINT_MODEL
    credentials: Credentials | None = None


class StoredJudgeModel(Model):
    """A model in object storage, pinned by its digest."""

    uri: OBJECT_URI
    digest: DIGEST
    credentials: Credentials | None = None

    @property
    def as_base_model(self) -> StoredBaseModel:
        """Return the same, as any base model is found."""
        return StoredBaseModel(uri=self.uri, digest=self.digest, credentials=self.credentials)


class StoredJudge(Model):
    """Who judges: an endpoint, or a model that this process loads once the answers are there."""

    endpoint: StoredEndpoint | None = None
    model: StoredJudgeModel | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.endpoint is None) == (self.model is None):
            raise ValueError("exactly one of endpoint and model must be set")
        return self
