"""The mirror stage: what a configuration names on a hub comes to lie in its output, verified, once.

A commit never changes, so a note of it in the output says what it was mirrored as, and whoever finds that note asks the
hub for nothing more. A file goes to the output as soon as it is verified, at the content address that is known from the
listing before the first large file is fetched: what is killed goes on with the file it was at.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..architecture import check_architecture
from ..base_model import CONFIG, INDEX, BaseModel, choose_files, digest_of_entries, invalid
from ..contract import (
    EvaluationConfig,
    HubSource,
    Mirrored,
    MirroredSource,
    Reason,
    RunConfig,
    hub_sources,
)
from ..contract.hub import DATA_FOLDER
from ..data.source import LINES, PARQUET
from ..errors import DataInvalid, SettingsInvalid
from ..prepare import check_writable
from ..progress import ProgressBoard
from ..report import Report
from ..storage import FileEntry, ObjectDamaged, ObjectMissing, Store, commit, open_store, whole
from ..storage.manifest import join
from .client import Hub, HubFile
from .notes import prefix_of, read_note, write_note

PAPERS = ("license", "licence", "notice", "readme", "use_policy", "copying")
"""How the names of files begin that say what a repository is and on what terms: kept beside it."""
PAPER_BYTES = 4 << 20


@dataclass(frozen=True)
class Chosen:
    """What of a repository is taken.

    Attributes:
        files: by the name that each gets in the mirror.
        papers: license and README, by their name.
    """

    files: dict[str, HubFile]
    papers: dict[str, HubFile]


def mirror(
    config: RunConfig | EvaluationConfig, known: Mirrored, scratch: Path, report: Report, board: ProgressBoard
) -> Mirrored:
    """Bring every source of a hub into the output; return what each became.

    Args:
        known: what an earlier attempt of the same run found: its commits are taken again.

    Raises:
        SettingsInvalid, DataInvalid, StorageFailed, HubFailed: with a named reason and the next step.
    """
    output = open_store(config.output.uri, config.output.credentials)
    check_writable(output)
    found = []
    for uri, credentials in hub_sources(config).items():
        source = HubSource.parse(uri)
        if source is None:
            raise SettingsInvalid(f"{uri} is no URI of a hub: hf://org/name@revision, hf://datasets/org/name@revision")
        before = known.of(uri)
        commit_hash = before.commit if before is not None else source.commit
        there = read_note(output, source, commit_hash) if commit_hash is not None else None
        if there is None:
            hub = Hub(source, credentials)
            commit_hash, license_name = hub.resolve(commit_hash)
            report("revision resolved", uri=uri, commit=commit_hash)
            there = read_note(output, source, commit_hash)
            if there is None:
                shutil.rmtree(scratch / "hub", ignore_errors=True)
                one = _Mirroring(source, commit_hash, license_name, hub, output, scratch / "hub", report, board)
                there = one.run(config.base_model.digest if source.kind == "model" else None)
        if source.kind == "model":
            check_mirror(source, there, config.base_model.digest)
        report("mirrored", **there.to_json(), at=there.location(config.output.uri))
        found.append(there)
    return Mirrored(sources=tuple(found))


def check_mirror(source: HubSource, found: MirroredSource, pin: str | None) -> None:
    """Refuse a base model that is not the one that was asked for.

    Raises:
        SettingsInvalid: BASE_MODEL_CHANGED of a commit; REVISION_MOVED of a branch or a tag.
    """
    if pin is None or pin == found.digest:
        return
    told = f"digest {found.digest}, but {pin} is asked for"
    if source.commit is not None:
        raise SettingsInvalid(
            f"the base model {source.uri} has {told}; correct the commit or baseModel.digest", Reason.BASE_MODEL_CHANGED
        )
    raise SettingsInvalid(
        f"revision {source.revision} of {source.repository} is commit {found.commit} now, with {told}: it has moved; "
        "name the commit that has that digest as revision, or set baseModel.digest to the new one",
        Reason.REVISION_MOVED,
    )


@dataclass(frozen=True)
class _Mirroring:
    """One repository at one commit on its way into the output.

    Attributes:
        scratch: a folder of its own.
        fetched: local copies of the small files, whose hash no listing tells: they are fetched to know it.
    """

    source: HubSource
    commit: str
    license: str | None
    hub: Hub
    output: Store
    scratch: Path
    report: Report
    board: ProgressBoard
    fetched: dict[str, Path] = field(default_factory=dict)

    def run(self, pin: str | None) -> MirroredSource:
        """Mirror it; what is not the `pin` is refused before its large files are fetched."""
        chosen = self._model() if self.source.kind == "model" else self._dataset()
        entries = tuple(self._entry(name, file) for name, file in sorted(chosen.files.items()))
        found = MirroredSource(
            uri=self.source.uri, commit=self.commit, digest=digest_of_entries(entries), license=self.license
        )
        if self.source.kind == "model":
            check_mirror(self.source, found, pin)
        prefix = prefix_of(found)
        if whole(self.output, prefix) is None:
            self._fill(prefix, found, entries, chosen)
        write_note(self.output, self.source, found)
        return found

    def _model(self) -> Chosen:
        listing = self.hub.files(self.commit)

        sizes = choose_files(
            self.source.uri,
            {path: file.size for path, file in listing.items()},
            lambda: self._read_json(listing[INDEX]),
        )
        # What cannot be trained is refused before gigabytes of it are fetched.
        check_architecture(BaseModel(self.output, sizes, self._read_json(listing[CONFIG])))
        return Chosen({name: listing[name] for name in sizes}, _papers(listing))

    def _dataset(self) -> Chosen:
        path = self.source.path
        folder, _, file = path.rpartition("/")
        listing = self.hub.files(self.commit, folder, deep=not file)
        if file:
            listing = {name: each for name, each in listing.items() if name == path}
        if not listing:
            raise DataInvalid(
                f"there is nothing at {self.source.uri}; a folder of the repository ends with '/'",
                Reason.DATASET_NOT_FOUND,
            )
        readable = {name: each for name, each in listing.items() if name.endswith(LINES + PARQUET)}
        if not readable:
            raise DataInvalid(
                f"none of the {len(listing)} files at {self.source.uri} (such as {min(listing)}) is a .jsonl or "
                ".parquet file, plain or .gz or .zst; many hubs keep a converted copy at the revision "
                "refs/convert/parquet",
                Reason.DATASET_EMPTY,
            )
        cut = len(folder) + 1 if folder else 0
        papers = _papers(self.hub.files(self.commit) if path else listing)
        return Chosen({f"{DATA_FOLDER}/{name[cut:]}": each for name, each in readable.items()}, papers)

    def _entry(self, name: str, file: HubFile) -> FileEntry:
        if file.sha256 is not None:
            return FileEntry(name, file.size, file.sha256)
        return FileEntry.read(self._fetch(file), name)

    def _read_json(self, file: HubFile) -> dict[str, Any]:
        try:
            value = json.loads(self._fetch(file).read_bytes())
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise invalid(f"{file.path} of {self.source.uri} is no JSON object; choose another revision")
        return value

    def _fetch(self, file: HubFile) -> Path:
        """Return a local copy of a file; a small one is kept, since it is wanted again."""
        if (kept := self.fetched.get(file.path)) is not None:
            return kept
        folder = self.scratch / (f"small-{len(self.fetched)}" if file.sha256 is None else "large")
        local = self.hub.download(self.commit, file, folder)
        if file.sha256 is None:
            self.fetched[file.path] = local
        return local

    def _fill(self, prefix: str, found: MirroredSource, entries: tuple[FileEntry, ...], chosen: Chosen) -> None:
        """Bring every file that is not there yet, and then the manifest."""
        there = {info.path: info.size for info in self.output.list(f"{prefix}/")}
        self.board.update(total_steps=len(entries), step=0)
        for count, entry in enumerate(sorted(entries, key=lambda each: each.size), 1):
            if there.get(join(prefix, entry.path)) != entry.size or not self._holds(prefix, entry):
                self._bring(prefix, entry.path, chosen.files[entry.path])
            self.board.update(step=count)
        # By commit, because a README may change while the model does not, and both mirrors have one address.
        papers = [
            self._bring(prefix, str(PurePosixPath("source", self.commit, name)), file)
            for name, file in sorted(chosen.papers.items())
        ]
        document = {
            "source": {
                "endpoint": self.hub.endpoint,
                "kind": self.source.kind,
                "repository": self.source.repository,
                "commit": self.commit,
                "license": self.license,
            },
            "digest": found.digest,
            "files": [entry.to_json() for entry in (*entries, *papers)],
        }
        if commit(self.output, prefix, document) or whole(self.output, prefix) is not None:
            return
        raise ObjectDamaged(
            f"{self.output.address(prefix)} holds other bytes for the same content address; delete it, it is made again"
        )

    def _holds(self, prefix: str, entry: FileEntry) -> bool:
        """Tell whether the output has these very bytes: an attempt that was killed may have brought them."""
        try:
            found = self.output.digest(join(prefix, entry.path), entry.size)
        except (ObjectMissing, ObjectDamaged):
            return False
        return found.sha256 == entry.sha256

    def _bring(self, prefix: str, name: str, file: HubFile) -> FileEntry:
        local = self._fetch(file)
        entry = self.output.upload(local, join(prefix, name))
        if file.sha256 is not None:
            local.unlink()
        self.report("file mirrored", file=file.path, bytes=entry.size, sha256=entry.sha256)
        return FileEntry(name, entry.size, entry.sha256)


def _papers(listing: dict[str, HubFile]) -> dict[str, HubFile]:
    return {
        name: file
        for name, file in listing.items()
        if "/" not in name and name.lower().startswith(PAPERS) and file.size <= PAPER_BYTES
    }
