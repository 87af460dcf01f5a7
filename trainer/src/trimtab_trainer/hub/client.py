"""`Hub`: one repository of a hub, through huggingface_hub, with bounded patience and every file verified."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, hf_hub_download, set_client_factory
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.hf_api import RepoFile

from .. import folders
from ..certificates import check_authorities
from ..contract import Credentials, HubSource
from ..contract.parsing import Unreadable
from ..errors import HubFailed, SettingsInvalid
from ..quota import PATIENCE_SECONDS, retry_after
from ..storage import FileEntry, ObjectDamaged
from .keys import read_hub_keys
from .refusal import OverQuota, damaged, named

T = TypeVar("T")

ATTEMPTS = 4
"""Of a question, the first included; 1, 2 and 4 s lie between them, or what the hub asks for if that is longer."""
CONNECT_SECONDS, TIMEOUT_SECONDS = 5, 30
MOST_FILES = 10_000
READ_BYTES = 1 << 20
LICENSE = re.compile(r"license:([A-Za-z0-9][A-Za-z0-9._+-]{0,63})")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

for _library in ("huggingface_hub", "httpx2", "httpcore2"):
    # Their warnings hold URLs, which a hub may have signed; what they raise is told by name.
    logging.getLogger(_library).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class HubFile:
    """One file of a listing.

    Attributes:
        sha256: of a large file, which the hub keeps apart; None of one that git itself holds.
        blob: git's SHA-1 of what git holds, which of a large file is a pointer.
    """

    path: str
    size: int
    sha256: str | None
    blob: str


class Hub:
    """A repository, as one token sees it.

    Every method raises a `TrainerError` with a named reason, see `refusal`.
    """

    def __init__(self, source: HubSource, credentials: Credentials | None) -> None:
        self.source = source
        self._keys = read_hub_keys(credentials)
        self.endpoint = self._keys.endpoint
        # Without a token of ours none is looked for in the environment or the home directory.
        self._token: str | bool = self._keys.token or False
        check_authorities()
        self._api = HfApi(endpoint=self._keys.endpoint, token=self._token)
        set_client_factory(_client)

    def resolve(self, commit: str | None = None) -> tuple[str, str | None]:
        """Return the commit that the revision (or this commit) is now, and the license that the repository names."""
        revision = commit or self.source.revision
        asked = self._api.model_info if self.source.kind == "model" else self._api.dataset_info
        info = self._ask(lambda: asked(self.source.repository, revision=revision, timeout=TIMEOUT_SECONDS))
        found = str(info.sha or "")
        if not COMMIT.fullmatch(found) or (commit is not None and found != commit):
            raise HubFailed(f"{self._keys.endpoint} names no commit for {self.source.uri}; is it a hub?")
        matches = (LICENSE.fullmatch(str(tag)) for tag in info.tags or [])
        return found, next((match[1] for match in matches if match), None)

    def files(self, commit: str, folder: str = "", *, deep: bool = False) -> dict[str, HubFile]:
        """Return the files of a folder at a commit by their path, and of all folders below it where `deep`.

        A folder that is not there has none.
        """

        def listing() -> list[RepoFile]:
            tree = self._api.list_repo_tree(
                self.source.repository,
                folder.strip("/") or None,
                recursive=deep,
                revision=commit,
                repo_type=self.source.kind,
            )
            try:
                return list(islice((each for each in tree if isinstance(each, RepoFile)), MOST_FILES + 1))
            except EntryNotFoundError:
                return []

        found = self._ask(listing)
        if len(found) > MOST_FILES:
            raise SettingsInvalid(
                f"{self.source.uri} holds more than {MOST_FILES} files; name a folder or a file of it in the uri"
            )
        return {file.path: file for file in map(self._checked, found)}

    def download(self, commit: str, file: HubFile, folder: Path) -> Path:
        """Download one file, compare it with what the listing says of it, and return where it lies.

        Raises:
            HubFailed: SOURCE_DAMAGED where it is not what the listing says.
        """
        folders.remove(folder)
        path = Path(
            self._ask(
                lambda: hf_hub_download(
                    self.source.repository,
                    file.path,
                    repo_type=self.source.kind,
                    revision=commit,
                    local_dir=folder,
                    cache_dir=folder / ".cache",
                    endpoint=self._keys.endpoint,
                    token=self._token,
                )
            )
        )
        self._verify(path, file)
        return path

    def _verify(self, path: Path, file: HubFile) -> None:
        sha256, blob, size = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), path.stat().st_size
        blob.update(f"blob {size}\0".encode())
        with path.open("rb") as opened:
            while chunk := opened.read(READ_BYTES):
                sha256.update(chunk)
                if file.sha256 is None:
                    blob.update(chunk)
        place = f"{self.source.repository}: {file.path}"
        if size != file.size:
            raise damaged(f"{place} came with {size} bytes, but the hub says {file.size}")
        found, said = (sha256.hexdigest(), file.sha256) if file.sha256 else (blob.hexdigest(), file.blob)
        if found != said:
            raise damaged(f"{place} came with the digest {found}, but the hub says {said}")

    def _checked(self, file: RepoFile) -> HubFile:
        """Return a file of a listing, which is data: what it names may be anything."""
        sha256 = str(file.lfs.sha256) if file.lfs is not None else None
        try:
            entry = FileEntry.of({"path": file.path, "size": file.size, "sha256": sha256 or "0" * 64})
        except (Unreadable, ObjectDamaged) as error:
            raise SettingsInvalid(f"{self.source.uri} has a file that cannot be mirrored: {error}") from error
        return HubFile(entry.path, entry.size, sha256, str(file.blob_id))

    def _ask(self, question: Callable[[], T]) -> T:
        """Return what the hub answers; what may be cured by asking again is asked again, a few times."""
        attempt = 1
        while True:
            try:
                return question()
            except Exception as error:  # the library wraps what happened in many ways; what is not known is raised
                known = named(error, self.source, self._keys)
                if known is None:
                    raise
                asked_for = known.retry_after if isinstance(known, HubFailed) else None
                pause = max(2 ** (attempt - 1), asked_for or 0)  # a date that is past asks for nothing
                if not isinstance(known, HubFailed) or attempt == ATTEMPTS or pause > PATIENCE_SECONDS:
                    raise known from None
            time.sleep(pause)
            attempt += 1


def _client() -> httpx2.Client:
    return httpx2.Client(follow_redirects=True, event_hooks={"request": [_bounded], "response": [_within_patience]})


def _within_patience(response: httpx2.Response) -> None:
    """End here where the library would wait, as long as a hub says, for hours if need be."""
    if response.status_code == 429 and (retry_after(response.headers) or 0) > PATIENCE_SECONDS:
        raise OverQuota(response.headers)


def _bounded(request: httpx2.Request) -> None:
    """Bound how long a request waits: the library asks for most listings without any limit."""
    given = request.extensions.get("timeout") or {}
    limits = {key: given.get(key) or TIMEOUT_SECONDS for key in ("read", "write", "pool")}
    request.extensions["timeout"] = {**limits, "connect": CONNECT_SECONDS}
