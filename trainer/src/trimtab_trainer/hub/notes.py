"""What the output knows of a hub: notes of what a commit was mirrored as, and the mirrors themselves. Asks no hub."""

from __future__ import annotations

from pydantic import ValidationError

from ..contract import HubSource, Mirrored, MirroredSource, canonical_json
from ..contract.hub import DATA_FOLDER
from ..contract.parsing import Unreadable, read_object
from ..errors import MirrorMissing
from ..storage import ObjectDamaged, ObjectMissing, Store, whole
from ..storage.layout import source_path


def read_note(output: Store, source: HubSource, commit: str) -> MirroredSource | None:
    """Return what a commit was mirrored as, if that is all there; None means that it has to be mirrored."""
    path = source_path(source, commit)
    try:
        note = MirroredSource.model_validate({**read_object(output.read(path)), "uri": source.uri})
        there = note.commit == commit and whole(output, prefix_of(note)) is not None
    except ObjectMissing:
        return None
    except (Unreadable, ObjectDamaged, ValidationError):
        there = False
    if there:
        return note
    output.delete([path])  # it is put once, so what is not true any more has to go
    return None


def write_note(output: Store, source: HubSource, found: MirroredSource) -> None:
    """Put the note, once; the uri is left out, because a branch and a commit share it."""
    note = {key: value for key, value in found.to_json().items() if key != "uri"}
    output.put_once(source_path(source, found.commit), canonical_json(note))


def prefix_of(found: MirroredSource) -> str:
    """Return the folder of a mirror below the output: where its manifest lies."""
    return found.location("").removeprefix("/").partition(f"/{DATA_FOLDER}/")[0]


def check_there(output: Store, mirrored: Mirrored) -> None:
    """Refuse to begin with what was mirrored and is not there any more.

    Raises:
        MirrorMissing: a lifecycle rule deleted it, or a person.
    """
    for source in mirrored.sources:
        if whole(output, prefix_of(source)) is None:
            raise MirrorMissing(
                f"{output.address(prefix_of(source))}, the mirror of {source.uri}, is not there any more, or not "
                "whole; the mirror stage has to run again"
            )
