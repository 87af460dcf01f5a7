"""`Endpoint`: whom to tell, of what, in which form. A list of them is the chart's `notifications`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from trimtab_trainer.contract import Model

from ..kinds import KINDS
from .transitions import VERDICTS, Transition

ENDPOINTS_MAXIMUM = 16
URL_LENGTH = 2048
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
REASONS = {
    name: frozenset(
        reason for condition in (kind.summary, *VERDICTS) for reason in kind.crd.reasons.get(condition, ("", {}))[1]
    )
    for name, kind in KINDS.items()
}
"""By kind, the reasons that may be told."""


class Format(StrEnum):
    """In which form a change is told."""

    CLOUD_EVENTS = "CloudEvents"
    SLACK = "Slack"


class Endpoint(Model):
    """One receiver. Empty lists choose everything.

    Its Secret, a folder of files here, may hold `url`, where the address is a secret itself, and `key`, what requests
    are signed with.
    """

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=NAME)]
    url: Annotated[str, Field(max_length=URL_LENGTH)] = ""
    secret_name: Annotated[str, Field(max_length=253)] = ""
    format: Format = Format.CLOUD_EVENTS
    cluster: Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)?$")] = ""
    kinds: Annotated[list[str], Field(max_length=len(KINDS))] = Field(default=[])
    reasons: Annotated[list[str], Field(max_length=256)] = Field(default=[])
    namespaces: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=256)] = Field(default=[])

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if url and (trouble := trouble_of(url)):
            raise ValueError(trouble)
        return url

    @field_validator("kinds")
    @classmethod
    def _are_kinds(cls, kinds: list[str]) -> list[str]:
        for each in kinds:
            if each not in KINDS:
                raise ValueError(_unknown("kind", each, KINDS))
        return kinds

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        known = {reason for kind in self.kinds or KINDS for reason in REASONS[kind]}
        for each in self.reasons:
            if each not in known:
                raise ValueError(_unknown(f"reason of {' or '.join(self.kinds) or 'any kind'}", each, known))
        if not self.url and not self.secret_name:
            raise ValueError("it has neither url nor secretName, so there is nowhere to send to")
        if self.format == Format.CLOUD_EVENTS and not self.secret_name:
            raise ValueError("CloudEvents are signed: name a Secret with a file key in secretName")
        return self

    def wants(self, transition: Transition) -> bool:
        """Tell whether a change is told here."""
        return (
            (not self.kinds or transition.kind in self.kinds)
            and (not self.reasons or transition.reason in self.reasons)
            and (not self.namespaces or transition.namespace in self.namespaces)
        )


def trouble_of(url: str) -> str:
    """Return why nothing can be sent to an address, in words that do not repeat it; empty where it is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "the url is none"
    if parts.scheme not in ("http", "https") or not host:
        return "the url must begin with https:// or http:// and a host"
    if parts.username is not None or parts.password is not None:
        return "the url must not hold a name or a password: put all of it into the Secret, as the file url"
    if parts.fragment or len(url) > URL_LENGTH or any(not each.isprintable() or each.isspace() for each in url):
        return f"the url must have no fragment, no blanks, and at most {URL_LENGTH} characters"
    return ""


def _unknown(what: str, word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    rest = f"; did you mean {near[0]}?" if near else f", of which there are {', '.join(sorted(known))}"
    return f"{word} is no {what}{rest}"
