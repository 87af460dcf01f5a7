"""What a mutant is: a fault that trainers have had, how it is put back into this one, and the test that turns red."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Trap(Enum):
    """What goes wrong in trainers: first the eighteen that their users complain about, then what is silent."""

    ACCUMULATION = "gradient accumulation over rows of different lengths"
    NEVER_STOPS = "the model never stops answering"
    ALL_MASKED = "nothing is supervised, and it trains all the same"
    SEAM = "the seam between prompt and answer"
    TWO_BEGINNINGS = "two beginning-of-text tokens"
    PACKING = "packed rows see each other"
    MERGING = "what is published is not what was trained"
    RESUMING = "a resumed run is another run"
    STORED = "checkpoints in object storage"
    PREEMPTION = "preemption"
    EVALUATION_MEMORY = "memory runs out in evaluations"
    TRAINING_MEMORY = "memory runs out in the middle of a run"
    SAVING = "what is saved cannot be loaded"
    PRECISION = "precision, and losses that are no number"
    LEAKS = "training rows among the held-out ones"
    VOCABULARY = "a tokenizer that is larger than the embedding"
    BATCH_SIZE = "figures that depend on the batch size"
    HISTORY = "templates that rewrite earlier turns"
    REPACKED = "bitsandbytes repacks frozen weights"
    ROLES = "roles of other formats"
    KEYS = "keys that are dropped without a word"
    WEIGHTS = "turns that are not to be learned"
    LAST_TURN = "the last turn alone"
    CONTROL = "control tokens in what people wrote"
    TOO_LONG = "rows that are too long"
    UNTRAINED = "an end of turn that the base never trained"
    REACH = "what of the model is adapted"
    SHAPES = "rsLoRA, DoRA and the adapter's scale"
    INITIAL = "the adapter that a run goes on from"
    NEAR = "near duplicates"
    SPLITS = "splits that move"
    HUB = "bytes of a hub"
    DEVICE = "an accelerator that is not used"
    TOGETHER = "processes that train together"
    GATE = "a gate that opens for what it has not seen"


class Stale(Exception):
    """The text that a mutant replaces is not in its file, or not once: the code has moved on, and the entry has not."""


@dataclass(frozen=True)
class Mutant:
    """A fault, put back by replacing a text of a file.

    Attributes:
        name: in a few words, unique.
        trap: what it is an instance of.
        wrong: what becomes of a run that has it, where nobody notices.
        file: below `trainer/src/trimtab_trainer`.
        old, new: the text, which is in the file exactly once, and what stands in its place.
        test: the test that must turn red, as pytest names it, below `tests/trainer`.
    """

    name: str
    trap: Trap
    wrong: str
    file: str
    old: str
    new: str
    test: str

    @property
    def source(self) -> str:
        """Path of the file in the tree."""
        return f"trainer/src/trimtab_trainer/{self.file}"

    @property
    def node(self) -> str:
        """Name of the test in the tree."""
        return f"tests/trainer/{self.test}"

    @property
    def test_file(self) -> str:
        """Path of the test's file in the tree."""
        return self.node.partition("::")[0]

    def put_back(self, text: str) -> str:
        """Return the file's text with the fault.

        Raises:
            Stale
        """
        if (count := text.count(self.old)) != 1:
            raise Stale(f"{self.name}: {self.source} holds its old text {count} times, not once; write the entry anew")
        return text.replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Put the fault into a copy of the tree.

        Raises:
            Stale
        """
        file = root / self.source
        file.write_text(self.put_back(file.read_text()))
