"""What both sides of the race are given: the base model, packed sequences of text, the adapter to begin with, the
settings, and how they are timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from trimtab_trainer.data.packing import pack
from trimtab_trainer.data.view import Sequences

ROOT = Path(__file__).resolve().parents[4]
RANK, ALPHA, LEARNING_RATE, GRADIENT_NORM, SEED = 16, 32, 2e-4, 1.0, 17
SUPERVISED = 0.6
"""Share of each row that has a loss: its end."""
SHORTEST_ROW = 24

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 384,
}
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LLAMA_8B = {**LLAMA_1B, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
TINY = {**SMALL, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
SHAPES = {"smollm2": SMOLLM2, "small": SMALL, "tiny": TINY, "1b": LLAMA_1B, "8b": LLAMA_8B}


@dataclass(frozen=True)
class Work:
    """One turn of a side.

    Attributes:
        micro_batch: sequences of a forward pass.
        batch: sequences of a step.
        length: tokens that a sequence has at most.
        steps: that are timed, after one that is not.
        dropout: of the adapter.
        rows: TRL's sequences lie one a line, with positions of their own, instead of joined in one line.
        compute: type of products, as in the settings.
        kernels: RMSNorm, gated products and rotary embeddings are computed by kernels, where they can be.
    """

    base_model: Path
    micro_batch: int
    batch: int
    length: int
    steps: int
    dropout: float = 0.0
    rows: bool = True
    compute: str = "Auto"
    kernels: bool = True


def make_model(folder: Path, shape: str) -> Path:
    """Write a Llama of random weights in one of the shapes; large ones are made on the accelerator."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=True)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if where == "cuda" else torch.float32
    with torch.device(where):
        model = AutoModelForCausalLM.from_config(config, dtype=kind)  # never in float32: the 8B would take 32 GB
    model.save_pretrained(folder)
    del model
    if where == "cuda":
        torch.cuda.empty_cache()
    return folder


def text_rows(length: int) -> Iterator[npt.NDArray[np.int32]]:
    """Yield rows of bytes of the project's own documents, of all lengths up to `length`."""
    text = b"".join(file.read_bytes() for file in sorted((ROOT / "docs").glob("*.md")))
    random, start = np.random.default_rng(SEED), 0
    while start + length < len(text):
        end = start + int(random.integers(min(SHORTEST_ROW, length // 2), length * 3 // 4))
        yield np.frombuffer(text[start:end], np.uint8).astype(np.int32) + 3
        start = end


def packed(length: int, count: int) -> Sequences:
    """Return `count` sequences of up to `length` tokens, with several rows in each."""
    rows: list[npt.NDArray[np.int32]] = []
    enough = length * count * 5 // 4
    for row in text_rows(length):
        rows.append(row)
        enough -= len(row)
        if enough <= 0:
            break
    packs = pack(np.array([len(row) for row in rows]), length)[:count]
    if len(packs) < count:
        raise ValueError(f"the documents make {len(packs)} sequences of {length} tokens, and {count} are asked for")
    chosen = [rows[index] for one in packs for index in one]
    positions = np.concatenate([np.arange(len(row), dtype=np.int32) for row in chosen])
    supervised = np.concatenate([np.arange(len(row)) >= max(1, int(len(row) * (1 - SUPERVISED))) for row in chosen])
    sizes = [sum(len(rows[index]) for index in one) for one in packs]
    return Sequences(
        np.concatenate(chosen),
        positions,
        supervised,
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.array([len(one) for one in packs], np.int32),
    )


@dataclass
class Clock:
    """Times the steps of a side; `started` is when its process began, by the monotonic clock."""

    started: float
    tokens_per_step: list[int]

    def __post_init__(self) -> None:
        self._ends: list[float] = []
        self._processor: list[float] = []
        self.losses: list[float] = []

    def step_ended(self) -> None:
        self._ends.append(time.monotonic())
        self._processor.append(time.process_time())

    def figures(self, peak: int) -> dict[str, Any]:
        """Return tokens a second of the middle step, seconds to the end of the first, MiB at most, and the losses.

        Tokens by seconds of processors are told too: on a machine that does other work they are the steadier figure.
        """
        return {
            "tokens_per_second": self._rate(self._ends),
            "tokens_per_processor_second": self._rate(self._processor),
            "start_to_first_step_seconds": round(self._ends[0] - self.started, 2),
            "peak_mib": peak >> 20,
            "losses": [round(loss, 5) for loss in self.losses],
        }

    def _rate(self, ends: list[float]) -> float:
        taken = [end - begin for begin, end in itertools.pairwise(ends)]
        return round(median(tokens / t for tokens, t in zip(self.tokens_per_step[1:], taken, strict=True)), 1)


Side = Callable[[Work, float], dict[str, Any]]
