"""What the model said of each answer before training: computed once, with the adapter off or as it was given.

There is never a second model: a fresh adapter changes nothing, so the base alone is the reference, and with
`lora.initialAdapter` that adapter is. The values are stored under the digest of all that decides them, for retries and
for the trials of a sweep, and are believed only if they name exactly that and a few of them are found again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ...contract import digest_of
from ...folders import emptied, remove
from ...interruption import Interruption
from ...report import Report
from ...storage import MANIFEST, ObjectDamaged, ObjectMissing, Store, fetch, store_folder
from ...storage.layout import reference_prefix
from ..network.trained import Trained
from ..validation import TOKENS_PER_BATCH, evaluating, in_parts
from .batches import PreferenceBatches, Reference
from .log_probabilities import log_probabilities, sums

VERSION = "trimtab.dev/reference/v1"
FILE = "reference.safetensors"
CHECKED_UNITS = 4
"""Pairs or rows of which stored values are computed again."""
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Most by which they may differ, as a share: batches of other shapes add up in another order."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


Splits = Mapping[str, PreferenceBatches]
"""By the names of sides."""


def answer_log_probabilities(
    model: Trained, split: PreferenceBatches, indices: Int64, stop: Interruption, size: int | None = None
) -> Float32:
    """Return the log-probability of each answer of some pairs or rows, in their order, without dropout or gradient.

    Args:
        model: with its adapter, or without where that is off.
        split: the answers.
        indices: of sequences, int64[n].
        stop: ends it.
        size: sequences of a forward pass; so many as make a few thousand tokens if absent.

    Raises:
        OutOfMemory: a single pair or row does not fit.
    """
    size = size or max(1, TOKENS_PER_BATCH[model.device.type] // split.longest)
    found = np.zeros(len(split.wanted), np.float32)

    def some(chosen: Int64) -> tuple[Int64, Float32]:
        batch = split.lay(chosen, model.device)
        values = log_probabilities(model.hidden(batch), batch.targets, model.head, chosen=batch.chosen)
        counts = batch.answer_tokens + batch.asked_tokens
        return batch.places, sums(torch.where(batch.is_answer, values, 0.0), counts).cpu().numpy()

    with evaluating(model, stop):
        for places, answers in in_parts(some, model, split, indices, size, stop):
            found[places] = answers
    return found[split.places(indices)]


class References:
    """Computes references, or finds them in storage."""

    def __init__(
        self, store: Store, identity: dict[str, Any], scratch: Path, stop: Interruption, report: Report
    ) -> None:
        """Take what decides the values.

        Args:
            store: of the output.
            identity: everything that decides them: base, initial adapter, rows and arithmetic, as JSON.
            scratch: a folder.
            stop: ends it.
            report: is told which it was.
        """
        self._store, self._stop, self._report = store, stop, report
        self._identity = {"version": VERSION, **identity}
        self._prefix = reference_prefix(digest_of(self._identity))
        self._folder = scratch / "reference"

    def give(self, model: Trained, splits: Splits, *, with_adapter: bool) -> None:
        """Give each side its reference; arguments as of `found`."""
        for name, reference in self.found(model, splits, with_adapter=with_adapter).items():
            splits[name].reference = reference

    def found(self, model: Trained, splits: Splits, *, with_adapter: bool) -> dict[str, Reference]:
        """Return the reference of each side.

        Args:
            model: as it is before the first step.
            splits: the answers of each side.
            with_adapter: the adapter is the one that was given, not a fresh one.
        """
        stored = self._stored(splits)
        with nullcontext() if with_adapter else model.base_alone():
            if stored is not None and self._holds(model, splits, stored):
                self._report("reference log-probabilities are there already", prefix=self._prefix)
                return stored
            computed = {name: self._computed(model, split) for name, split in splits.items()}
            if not self._put(computed, replaced=stored is not None):
                # Another attempt was first; whoever comes next goes by what it stored, so this one does too.
                first = self._stored(splits)
                if first is not None and self._holds(model, splits, first):
                    return first
        answers = sum(len(each.answers) for each in computed.values())
        self._report("reference log-probabilities computed", answers=answers, with_adapter=with_adapter)
        return computed

    def _computed(self, model: Trained, split: PreferenceBatches) -> Reference:
        def every(batches: PreferenceBatches) -> Float32:
            return answer_log_probabilities(model, batches, np.arange(len(batches)), self._stop)

        return Reference(every(split), every(split.mismatched) if split.mismatched is not None else None)

    def _stored(self, splits: Splits) -> dict[str, Reference] | None:
        """Return what is in storage if it names exactly what is asked for, and is whole; else None."""
        remove(self._folder)
        try:
            manifest = fetch(self._store, self._prefix, self._folder)
            if manifest is None:
                return None
            if manifest.document.get("identity") != self._identity:
                raise ValueError("it is of another model, other rows or another arithmetic")
            arrays = load_file(self._folder / FILE)
            found = {
                name: Reference(
                    _checked(arrays[name], len(split.wanted)),
                    _checked(arrays[f"{name}-mismatched"], len(split)) if split.mismatched is not None else None,
                )
                for name, split in splits.items()
            }
        except (ObjectMissing, ObjectDamaged, ValueError, KeyError, SafetensorError, OSError) as error:
            self._report.warn("stored reference log-probabilities are not believed", error=str(error)[:300])
            return None
        return found

    def _holds(self, model: Trained, splits: Splits, stored: Mapping[str, Reference]) -> bool:
        """Compute a few values again: whatever their name says, those of another model are not used."""
        for name, split in splits.items():
            chosen = np.unique(np.linspace(0, len(split) - 1, CHECKED_UNITS).round().astype(np.int64))
            now = answer_log_probabilities(model, split, chosen, self._stop)
            then = stored[name].answers[split.places(chosen)]
            limit = TOLERANCES[model.compute_type] * np.maximum(1.0, np.abs(now))
            if bool((np.abs(now - then) > limit).any()):
                self._report.warn(
                    "stored reference log-probabilities are not found again, they are computed", side=name
                )
                return False
        return True

    def _put(self, computed: Mapping[str, Reference], *, replaced: bool) -> bool:
        """Store what was computed; False means that others are there."""
        emptied(self._folder)
        arrays = {name: each.answers for name, each in computed.items()}
        arrays |= {
            f"{name}-mismatched": each.mismatched for name, each in computed.items() if each.mismatched is not None
        }
        save_file(arrays, self._folder / FILE)
        if replaced:
            self._store.delete([f"{self._prefix}/{MANIFEST}"])
        try:
            store_folder(self._store, self._folder, self._prefix, {"version": VERSION, "identity": self._identity})
        except ObjectDamaged:
            return False
        return True


def _checked(values: npt.NDArray[Any], length: int) -> Float32:
    if values.dtype != np.float32 or values.shape != (length,) or not bool(np.isfinite(values).all()):
        raise ValueError("its values are not those of the rows")
    return values
