"""The mirror stage: what a configuration names on a hub comes to lie in its output, verified, once.

A commit never changes, so a note of it in the output says what it was mirrored as, and whoever finds that note asks the
hub for nothing more. A file goes to the output as soon as it is verified, to its content address: what is killed goes
on with the file it was at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..contract import (
    Credentials,
    EvaluationConfig,
    HubSource,
    Mirrored,
    MirroredSource,
    Reason,
    RunConfig,
    hub_sources,
)
from ..errors import SettingsInvalid
from ..evaluate.harness.builtin import check_source
from ..folders import remove
from ..prepare import check_writable
from ..progress import ProgressBoard
from ..report import Report
from ..storage import FileEntry, ObjectDamaged, ObjectMissing, Store, commit, open_store, whole
from ..storage.manifest import join
from .choosing import Chosen, Repository, choose
from .client import Hub, HubFile
from .notes import prefix_of, read_note, write_note


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
    _check_builtin(config)
    remove(scratch / "hub")
    found, chosen = [], []
    for number, (uri, credentials) in enumerate(hub_sources(config).items()):
        source = HubSource.parse(uri)
        if source is None:
            raise SettingsInvalid(f"{uri} is no URI of a hub: hf://org/name@revision, hf://datasets/org/name@revision")
        one = _look(source, credentials, known.of(uri), output, scratch / "hub" / str(number), report)
        if isinstance(one, Chosen):
            chosen.append(one)
        found.append(there := one.found if isinstance(one, Chosen) else one)
        if source.kind == "model":
            check_pin(source, there, config.base_model.digest)
    # Whatever can be refused has been, before the first large file is fetched.
    board.update(step=0, total_steps=sum(len(each.files) + len(each.papers) for each in chosen))
    for each in chosen:
        _Mirroring(each, output, report, board).run()
    for there in found:
        report("mirrored", **there.to_json(), at=there.location(config.output.uri))
    return Mirrored(sources=tuple(found))


def _check_builtin(config: RunConfig | EvaluationConfig) -> None:
    """Refuse tasks of the harness that are none, or that ask another data set than the one that is named.

    Raises:
        SettingsInvalid: HARNESS_TASK_NOT_FOUND, HARNESS_TASK_REFUSED.
    """
    for task in config.tasks if isinstance(config, EvaluationConfig) else ():
        if task.builtin is not None and (source := HubSource.parse(task.dataset.uri or "")) is not None:
            check_source(task, source)


def check_pin(source: HubSource, found: MirroredSource, pin: str | None) -> None:
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


def _look(  # noqa: PLR0917 each of them once
    source: HubSource,
    credentials: Credentials | None,
    before: MirroredSource | None,
    output: Store,
    scratch: Path,
    report: Report,
) -> MirroredSource | Chosen:
    """Return what a source was mirrored as, or what of it has to be; a commit that is there asks the hub nothing."""
    revision = before.commit if before is not None else source.commit
    if revision is not None and (there := read_note(output, source, revision)) is not None:
        return there
    hub = Hub(source, credentials)
    commit_hash, license_name = hub.resolve(revision)
    report("revision resolved", uri=source.uri, commit=commit_hash)
    if (there := read_note(output, source, commit_hash)) is not None:
        return there
    return choose(Repository(source, commit_hash, license_name, hub, scratch))


@dataclass(frozen=True)
class _Mirroring:
    """One repository on its way into the output."""

    chosen: Chosen
    output: Store
    report: Report
    board: ProgressBoard

    def run(self) -> None:
        """Bring every file that is not there yet, then the manifest, then the note."""
        found, repository = self.chosen.found, self.chosen.repository
        prefix = prefix_of(found)
        if whole(self.output, prefix) is None:
            self._fill(prefix)
        write_note(self.output, repository.source, found)

    def _fill(self, prefix: str) -> None:
        chosen, repository = self.chosen, self.chosen.repository
        there = {info.path: info.size for info in self.output.list(f"{prefix}/")}
        for entry in sorted(chosen.entries, key=lambda each: each.size):
            if there.get(join(prefix, entry.path)) != entry.size or not self._holds(prefix, entry):
                self._bring(prefix, entry.path, chosen.files[entry.path])
            self._count()
        papers = []
        for name, file in sorted(chosen.papers.items()):
            # By commit: a README may change while the model does not, and then both mirrors have one address.
            papers.append(self._bring(prefix, str(PurePosixPath("source", repository.commit, name)), file))
            self._count()
        document = {
            "source": {
                "endpoint": repository.hub.endpoint,
                "kind": repository.source.kind,
                "repository": repository.source.repository,
                "commit": repository.commit,
                "license": repository.license,
            },
            "digest": chosen.found.digest,
            "files": [entry.to_json() for entry in (*chosen.entries, *papers)],
        }
        # Another job may have mirrored the same bytes of another commit meanwhile, which is as good.
        if not commit(self.output, prefix, document) and whole(self.output, prefix) is None:
            raise ObjectDamaged(
                f"{self.output.address(prefix)} holds other bytes for the same content address; delete it, it is made "
                "again"
            )

    def _holds(self, prefix: str, entry: FileEntry) -> bool:
        """Tell whether the output has these very bytes: an attempt that was killed may have brought them."""
        try:
            return self.output.digest(join(prefix, entry.path), entry.size).sha256 == entry.sha256
        except (ObjectMissing, ObjectDamaged):
            return False

    def _bring(self, prefix: str, name: str, file: HubFile) -> FileEntry:
        """Copy a file that was verified on its way here; a large one leaves the scratch folder at once."""
        local = self.chosen.repository.fetch(file)
        entry = self.output.upload(local, join(prefix, name))
        if file.sha256 is not None:
            local.unlink()
        self.report("file mirrored", file=file.path, bytes=entry.size, sha256=entry.sha256)
        return FileEntry(name, entry.size, entry.sha256)

    def _count(self) -> None:
        self.board.update(step=self.board.read().step + 1)
