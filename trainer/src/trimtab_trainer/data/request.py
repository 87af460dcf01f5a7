"""What a view is to be made of, and which of it decides its content address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..contract import Cleaning, StoredDataset, TrainingSettings, digest_of
from ..storage import FileEntry
from .cleaning.steps import Columns
from .encoding.tokens import RowTokenizer
from .reading.formats import OF_METHOD, Detected, resolve
from .reading.source import Source

ROWS_VERSION = "trimtab.dev/rows/v7"
VIEW_VERSION = "trimtab.dev/view/v2"


@dataclass(frozen=True)
class Request:
    """What a view is to be made of; `tokenizer` is called only when rows have to be tokenised, also in processes.

    `chat_template` is the one to use instead of the base model's, which `tokenizer` has by then. `asked` is the data
    that Evaluations will ask.
    """

    sources: dict[str, Source]
    tokenizer_files: tuple[FileEntry, ...]
    tokenizer: Callable[[], RowTokenizer]
    dataset: StoredDataset
    training: TrainingSettings
    chat_template: str | None = None
    asked: tuple[Source, ...] = ()

    @property
    def cleaning(self) -> Cleaning:
        """How rows are cleaned."""
        return self.dataset.cleaning or Cleaning()

    @property
    def columns(self) -> Columns:
        """The columns that the settings name."""
        dataset = self.dataset
        audited = dataset.audit.columns if dataset.audit is not None else []
        balanced = [dataset.balance.column] if dataset.balance is not None else []
        stratified = [dataset.stratify_by] if dataset.stratify_by is not None else []
        return Columns(dataset.group_by, tuple(sorted({*audited, *balanced, *stratified})))

    def detected(self) -> Detected:
        """Return the format of the rows, read off the first one where nothing says it.

        Raises:
            DataInvalid: FORMAT_UNKNOWN, DATASET_MALFORMED.
        """
        dataset, records = self.dataset, self.sources["training"].records()
        return resolve(
            dataset.format, records, frozenset(dataset.ignore_keys), self.columns.names, self.training.method
        )

    @property
    def rows_digest(self) -> str:
        """The address of the rows: what is read, and how each row is understood."""
        sources = {name: [entry.to_json() for entry in source.files] for name, source in self.sources.items()}
        return digest_of({"version": ROWS_VERSION, "sources": sources, **self._understanding()})

    def view_digest(self, content: str) -> str:
        """Return the address of the view of rows with some content, whatever files they were read from."""
        return digest_of({"version": VIEW_VERSION, "content": content, **self._understanding(), **self.choices})

    @property
    def choices(self) -> dict[str, Any]:
        """What makes one view differ from another of the same rows; uris are in the digests by content."""
        dataset, training = self.dataset, self.training
        validation = dataset.validation.to_json() if dataset.validation else None
        test = dataset.test.to_json() if dataset.test else None
        for side in (validation, test):
            if side is not None and "uri" in side:
                side["uri"] = "its own"
        cleaning = self.cleaning.to_json()
        cleaning["evaluationData"] = sorted(entry.sha256 for source in self.asked for entry in source.files)
        return {
            "validation": validation,
            "test": test,
            "splitSeed": dataset.split_seed,
            "stratifyBy": dataset.stratify_by,
            "cleaning": cleaning,
            "balance": dataset.balance.to_json() if dataset.balance is not None else None,
            "maxSequenceLength": training.max_sequence_length,
            "packing": training.packing,
            "lossOn": training.loss_on.value,
            # Of a pair both answers have to fit, and they lie side by side.
            **({"paired": True} if training.method.is_paired else {}),
            # What is said of groups is in the view, so it is another one.
            **({"minimumShare": dataset.audit.minimum_share} if dataset.audit and dataset.audit.columns else {}),
        }

    def _understanding(self) -> dict[str, Any]:
        cleaning = self.cleaning
        return {
            "format": self.dataset.format.value,
            "tokenizer": [entry.to_json() for entry in sorted(self.tokenizer_files)],
            "ignoreKeys": sorted(self.dataset.ignore_keys),
            "chatTemplate": self.chat_template,
            "columns": [self.columns.group, *self.columns.counted],
            "exactDuplicates": cleaning.exact_duplicates.value,
            "blankTurns": cleaning.blank_turns.value,
            "invalidText": cleaning.invalid_text.value,
            # Rows of preferences are others than those of the same files that answers are learned from.
            **({} if (wanted := OF_METHOD[self.training.method]) is None else {"preferences": wanted.value}),
        }
