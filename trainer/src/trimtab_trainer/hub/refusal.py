"""The one place where a hub's errors become named reasons with a next step.

Messages hold neither URLs that a hub answered with, which may be signed, nor its own words.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from ..certificates import why_not_taken
from ..contract import HubSource, Reason
from ..errors import HubFailed, SettingsInvalid, TrainerError
from ..quota import retry_after
from .keys import HubKeys

WAY_OUT = (
    "let pods with the label trimtab.dev/stage: mirror out (a NetworkPolicy may forbid it), or name a mirror of the "
    "hub in HF_ENDPOINT"
)


class OverQuota(Exception):
    """A hub asks to be left alone for longer than this process waits; raised where the library would sleep."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.headers = headers


def named(error: BaseException, source: HubSource, keys: HubKeys) -> TrainerError | None:
    """Return what an error means for a source, None where it is no error of the hub's."""
    for each in _chain(error):
        if isinstance(each, TrainerError):
            return each
        if isinstance(each, OverQuota):
            return over_quota(each.headers, keys)
        if isinstance(each, HfHubHTTPError):
            return _answered(each, source, keys)
        if isinstance(each, httpx2.ConnectError) and why_not_taken(each) is not None:
            return SettingsInvalid(
                f"the certificate of {keys.endpoint} is not trusted; mount its authority's with a volume of the "
                "template, and name the file in SSL_CERT_FILE of template.env"
            )
        if isinstance(each, httpx2.HTTPError | httpx2.StreamError | httpx2.InvalidURL):
            return unreachable(keys, type(each).__name__)
    if isinstance(error, FileMetadataError):
        return HubFailed(f"{keys.endpoint} does not answer as a hub does; correct HF_ENDPOINT in {keys.source}")
    if isinstance(error, XetDownloadError) or type(error).__module__.partition(".")[0] == "hf_xet":
        return HubFailed(f"the hub's Xet storage could not be read ({type(error).__name__}); {WAY_OUT}")
    if isinstance(error, OSError) and error.errno is None and "onsistency check" in str(error):
        return damaged(f"{source.repository}: a file came in another length than the hub says")
    if isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT):
        return unreachable(keys, type(error).__name__)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from: huggingface_hub wraps what happened to a HEAD in another error."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def unreachable(keys: HubKeys, what: str) -> HubFailed:
    """Return the refusal of a hub that gives no answer."""
    return HubFailed(f"no answer from {keys.endpoint} ({what}); {WAY_OUT}")


def damaged(trouble: str) -> HubFailed:
    """Return the refusal of bytes that are not those the hub's listing tells of."""
    return HubFailed(
        f"{trouble}; nothing of it is kept. If that repeats, what stands between here and the hub changes files",
        Reason.SOURCE_DAMAGED,
    )


def _answered(error: HfHubHTTPError, source: HubSource, keys: HubKeys) -> TrainerError:
    status, repository = error.response.status_code, source.repository
    token = f"the token in {keys.source}" if keys.token else "no token"
    if isinstance(error, GatedRepoError):
        step = "the account of the token" if keys.token else "an account, and name a Secret with its HF_TOKEN"
        return SettingsInvalid(
            f"{repository} is gated, and may not be read with {token}; accept its terms at {_page(source, keys)} with "
            f"{step}",
            Reason.SOURCE_GATED,
        )
    if isinstance(error, RevisionNotFoundError):
        return SettingsInvalid(
            f"{repository} has no revision {source.revision}; take a branch, a tag or a commit of "
            f"{_page(source, keys)}",
            Reason.REVISION_NOT_FOUND,
        )
    if isinstance(error, DisabledRepoError):
        return SettingsInvalid(
            f"{repository} has been disabled by the hub; choose another repository", Reason.SOURCE_NOT_FOUND
        )
    if isinstance(error, EntryNotFoundError):
        return damaged(f"{repository}: a file of the listing is not there")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return SettingsInvalid(
            f"there is no {source.kind} {repository} at {keys.endpoint}, or it is private and may not be read with "
            f"{token}; correct the uri, or the HF_TOKEN of its Secret",
            Reason.SOURCE_NOT_FOUND,
        )
    if status in (401, 403):
        return SettingsInvalid(
            f"{keys.endpoint} denies access to {repository} with {token} ({status}); write a token that may read it "
            "into the Secret's HF_TOKEN",
            Reason.ACCESS_DENIED,
        )
    if status == 429:
        return over_quota(error.response.headers, keys)
    if status == 400:
        return SettingsInvalid(f"{keys.endpoint} does not understand what is asked of {source.uri}; correct the uri")
    return HubFailed(f"{keys.endpoint} answered {status}; it is asked again later")


def over_quota(headers: Mapping[str, str], keys: HubKeys) -> HubFailed:
    """Return the refusal of a hub that was asked too often."""
    seconds = retry_after(headers)
    when = f"it asks to be left alone for {seconds} s" if seconds is not None else "it does not say for how long"
    hint = "" if keys.token else "; requests with a token (HF_TOKEN) have a quota of their own"
    return HubFailed(
        f"{keys.endpoint} was asked too often from here (429), {when}{hint}", Reason.HUB_QUOTA_EXCEEDED, seconds
    )


def _page(source: HubSource, keys: HubKeys) -> str:
    return f"{keys.endpoint}/{'datasets/' if source.kind == 'dataset' else ''}{source.repository}"
