"""What of a repository is taken, and the content address that follows from it, before any large file is fetched.

A listing tells the hash of large files; small ones, which git holds, are fetched to know theirs. So whatever can be
refused (a model of an unknown kind, pickles, a wrong digest, data that nobody can read) is refused in seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base.architecture import check_architecture
from ..base.base_model import CONFIG, INDEX, BaseModel, choose_files, digest_of_entries, invalid
from ..contract import HubSource, MirroredSource, Reason
from ..contract.hub import DATA_FOLDER
from ..data.reading.source import is_data
from ..errors import DataInvalid
from ..storage import FileEntry, open_store
from .client import Hub, HubFile

PAPERS = ("license", "licence", "notice", "readme", "use_policy", "copying")
"""How the names of files begin that say what a repository is and on what terms: kept beside it."""
PAPER_BYTES = 4 << 20


@dataclass(frozen=True)
class Repository:
    """A repository at a commit.

    Attributes:
        license: as the repository names it.
        scratch: a folder of its own.
        fetched: local copies of small files, by their path.
    """

    source: HubSource
    commit: str
    license: str | None
    hub: Hub
    scratch: Path
    fetched: dict[str, Path] = field(default_factory=dict)

    def fetch(self, file: HubFile) -> Path:
        """Return a verified local copy of a file; a small one is kept, since it is wanted again."""
        if (kept := self.fetched.get(file.path)) is not None:
            return kept
        folder = self.scratch / (f"small-{len(self.fetched)}" if file.sha256 is None else "large")
        local = self.hub.download(self.commit, file, folder)
        if file.sha256 is None:
            self.fetched[file.path] = local
        return local

    def read_json(self, file: HubFile) -> dict[str, Any]:
        """Return a JSON object of a model.

        Raises:
            SettingsInvalid: BASE_MODEL_INVALID.
        """
        try:
            value = json.loads(self.fetch(file).read_bytes())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise invalid(f"{file.path} of {self.source.uri} is no JSON object; choose another revision")
        return value

    def entry(self, name: str, file: HubFile) -> FileEntry:
        """Return what a manifest says of a file under another name."""
        if file.sha256 is not None:
            return FileEntry(name, file.size, file.sha256)
        return FileEntry.read(self.fetch(file), name)


@dataclass(frozen=True)
class Chosen:
    """What of a repository is taken.

    Attributes:
        found: what it becomes.
        files: the files that the digest is of, by the name that each gets in the mirror.
        papers: license and README, by their name.
    """

    repository: Repository
    found: MirroredSource
    entries: tuple[FileEntry, ...]
    files: dict[str, HubFile]
    papers: dict[str, HubFile]


def choose(repository: Repository) -> Chosen:
    """Return what is taken of a repository.

    Raises:
        SettingsInvalid, DataInvalid: nothing of it can be used.
        HubFailed: the hub does not answer.
    """
    source = repository.source
    files, listing = _of_model(repository) if source.kind == "model" else _of_dataset(repository)
    entries = tuple(repository.entry(name, file) for name, file in sorted(files.items()))
    found = MirroredSource(
        uri=source.uri, commit=repository.commit, digest=digest_of_entries(entries), license=repository.license
    )
    papers = {
        name: file
        for name, file in listing.items()
        if "/" not in name and name.lower().startswith(PAPERS) and file.size <= PAPER_BYTES
    }
    return Chosen(repository, found, entries, files, papers)


def _of_model(repository: Repository) -> tuple[dict[str, HubFile], dict[str, HubFile]]:
    """Return the files of a model, and of the repository's top folder."""
    listing = repository.hub.files(repository.commit)
    sizes = choose_files(
        repository.source.uri,
        {path: file.size for path, file in listing.items()},
        lambda: repository.read_json(listing[INDEX]),
    )
    local = open_store(repository.scratch.absolute().as_uri(), None)
    check_architecture(BaseModel(local, sizes, repository.read_json(listing[CONFIG])))
    return {name: listing[name] for name in sizes}, listing


def _of_dataset(repository: Repository) -> tuple[dict[str, HubFile], dict[str, HubFile]]:
    """Return the readable files of a data set below its path, and those of the repository's top folder."""
    hub, commit, path, uri = repository.hub, repository.commit, repository.source.path, repository.source.uri
    folder, _, file = path.rpartition("/")
    listing = hub.files(commit, folder, deep=not file)
    below = {name: each for name, each in listing.items() if not file or name == path}
    if not below:
        raise DataInvalid(
            f"there is nothing at {uri}; a folder of the repository ends with '/'", Reason.DATASET_NOT_FOUND
        )
    readable = {name: each for name, each in below.items() if is_data(name)}
    if not readable:
        raise DataInvalid(
            f"none of the {len(below)} files at {uri} (such as {min(below)}) is a .jsonl, .json, .csv or .parquet "
            "file, plain or .gz or .zst; many hubs keep a converted copy at the revision refs/convert/parquet",
            Reason.DATASET_EMPTY,
        )
    cut = len(folder) + 1 if folder else 0
    top = hub.files(commit) if folder else listing
    return {f"{DATA_FOLDER}/{name[cut:]}": each for name, each in readable.items()}, top
