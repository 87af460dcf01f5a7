"""What was mirrored of a hub: in the status, in the arguments of pods, and for those who read what another mirrored."""

from __future__ import annotations

from trimtab_trainer.contract import Mirrored, MirroredSource, Stage

from trimtab_operator.api import WorkStatus
from trimtab_operator.api.finetunejob import BaseModelSource, OutputTarget
from trimtab_operator.api.work import MirroredStatus

from .attempts.attempt import Attempt
from .subject import S


def note_mirrored(status: S, mirrored: Mirrored) -> S:
    """Return the status with what mirroring found."""
    found = [
        MirroredStatus(uri=each.uri, commit=each.commit, digest=each.digest, license=each.license)
        for each in mirrored.sources
    ]
    return status.model_copy(update={"mirrored": found})


def mirrored_of(status: WorkStatus) -> Mirrored | None:
    """Return what mirroring found, None before that."""
    if status.mirrored is None:
        return None
    found = tuple(
        MirroredSource(uri=each.uri, commit=each.commit, digest=each.digest, license=each.license)
        for each in status.mirrored
    )
    return Mirrored(sources=found)


def located(status: WorkStatus, source: BaseModelSource, output: OutputTarget) -> BaseModelSource:
    """Return a base model as others read it: from the mirror below the output, with its keys, if it was mirrored."""
    mirrored = mirrored_of(status)
    found = mirrored.of(source.uri) if mirrored is not None else None
    if found is None:
        return source
    return source.model_copy(update={"uri": found.location(output.uri), "secret_name": output.secret_name})


def mirroring(attempt: Attempt) -> str:
    """Return the message of an attempt that mirrors."""
    told = attempt.progress_in(Stage.MIRROR)
    done = f" ({told.step} of {told.total_steps} files)" if told is not None else ""
    return f"Job {attempt.name} copies what the spec names on a hub into the output, and verifies it{done}"
