"""Hold `estimate` against measured peaks of training steps; the last line is JSON.

    make bench-estimate

Six settings on models of random weights: four that the terms of `estimating/memory.py` were fitted on, two that they
were not (another family with grouped attention and a large vocabulary; plain LoRA in float32 with activations computed
twice). Each runs in a process of its own, so that its peak is its own. On an accelerator the peak is what tensors took;
on a processor it is anonymous memory, what a control group cannot take back: files that are mapped do not count. What
is estimated is what is in use, so there glibc is told to give back every block of `GIVEN_BACK` bytes or more when it is
freed. By itself it keeps them in its heap, which takes more memory and less time; how much more depends on the order of
all blocks before. `--heap` measures that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.contract import RunConfig, StoredBaseModel
from trimtab_trainer.estimating.dimensions import dimensions
from trimtab_trainer.estimating.memory import Arithmetic, peak
from trimtab_trainer.training.machine import hardware
from trimtab_trainer.training.network.adapter import add_adapter
from trimtab_trainer.training.network.model import load_base

from tests.trainer.train import runs

STEPS = 2
SECONDS = 900
GIVEN_BACK = 1 << 20
HEAP = "--heap"


@dataclass(frozen=True)
class Setting:
    """A model and how it is trained; `fitted` tells whether the estimate has seen it before."""

    name: str
    fitted: bool
    kind: str = "llama"
    hidden: int = 512
    inner: int = 1408
    layers: int = 8
    heads: int = 8
    pairs: int = 8
    vocabulary: int = 8192
    tied: bool = False
    rank: int = 16
    dropout: float = 0.05
    quantization: str = "NF4"
    compute: str = "BFloat16"
    batch: int = 4
    length: int = 512
    recomputed: bool = False


SETTINGS = (
    Setting("small, all kept", True, batch=3),
    Setting("wide MLP, float32", True, inner=2816, layers=6, compute="Float32", batch=2, length=384),
    Setting("activations twice", True, layers=10, batch=5, recomputed=True),
    Setting(
        "few tokens, large vocabulary", True, hidden=768, inner=2048, layers=6, vocabulary=49152, tied=True, batch=1,
        length=256,
    ),
    Setting(
        "qwen2, grouped attention", False, kind="qwen2", hidden=640, inner=1792, heads=10, pairs=2,
        vocabulary=32768, rank=32, dropout=0.0, batch=2, length=640,
    ),
    Setting(
        "plain LoRA, float32, twice", False, hidden=768, inner=1536, layers=6, heads=12, pairs=4, rank=8,
        quantization="None", compute="Float32", batch=3, length=384, recomputed=True,
    ),
)  # fmt: skip


def make(setting: Setting, folder: Path) -> None:
    """Write a model of random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        setting.kind,
        hidden_size=setting.hidden,
        intermediate_size=setting.inner,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        num_key_value_heads=setting.pairs,
        vocab_size=setting.vocabulary,
        tie_word_embeddings=setting.tied,
        max_position_embeddings=4096,
    )
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")


def run_config(setting: Setting, root: Path) -> RunConfig:
    return runs.run_config(
        root,
        lora={"rank": setting.rank, "dropout": setting.dropout},
        quantization={"type": setting.quantization, "computeType": setting.compute},
        training={
            "maxSteps": STEPS,
            "batchSize": setting.batch,
            "microBatchSize": setting.batch,
            "maxSequenceLength": setting.length,
        },
    )


def measured(setting: Setting, root: Path) -> dict[str, Any]:
    """Train a few steps in this process; return what was estimated and measured."""
    hardware.configure()
    where = hardware.device()
    config = run_config(setting, root)
    compute = hardware.compute_type(config.quantization.compute_type, where)
    with anonymous_peak(where) as seen:
        base = load_base(root / "base", config.quantization, compute, where)
        model = add_adapter(base, config.lora, compute, 1)
        if setting.recomputed:
            model.checkpoint_activations()
        rows = [[3 + (7 * row + token) % 380 for token in range(setting.length)] for row in range(setting.batch)]
        trainer = runs.trainer(root / "base", root, config, runs.unpacked(rows), model=model)
        loaded = seen()
        for _ in range(STEPS):
            trainer.step()
        found = seen()
    files = find_base_model(StoredBaseModel(uri=(root / "base").as_uri()))
    dims = dimensions(read_shapes(files), files.config, config.lora)
    told = peak(
        dims,
        config.quantization,
        config.training,
        rank=setting.rank,
        dropout=setting.dropout,
        tokens=setting.batch * setting.length,
        recomputed=setting.recomputed,
        where=Arithmetic(where.type, compute.itemsize),
    )
    return {
        "name": setting.name,
        "fitted": setting.fitted,
        "estimated_mib": round(told.peak / 2**20),
        "measured_mib": round(found / 2**20),
        "loaded_mib": round(loaded / 2**20),
        "error": round(told.peak / found - 1, 4),
        "error_without_libraries": round((told.peak - told.process) / (found - told.process) - 1, 4),
        "parts_mib": {part: round(size / 2**20) for part, size in asdict(told).items()},
    }


class anonymous_peak:
    """Follow the most memory of this process, or of tensors on its accelerator, until closed."""

    def __init__(self, where: torch.device) -> None:
        self._where, self._most, self._done = where, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> anonymous_peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def __call__(self) -> int:
        """Return the most bytes so far."""
        if self._where.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._where))
        return max(self._most, self._now())

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def main() -> int:
    if len(sys.argv) == 3:
        setting = SETTINGS[int(sys.argv[1])]
        print(json.dumps(measured(setting, Path(sys.argv[2]))))
        return 0
    allocator = {} if HEAP in sys.argv else {"MALLOC_MMAP_THRESHOLD_": str(GIVEN_BACK)}
    results = []
    for number, setting in enumerate(SETTINGS):
        with tempfile.TemporaryDirectory() as folder:
            make(setting, Path(folder) / "base")
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, __file__, str(number), folder],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **allocator},
            )
            if done.returncode:
                print(done.stderr[-3000:], file=sys.stderr)
                return 1
            results.append(json.loads(done.stdout.splitlines()[-1]) | {"seconds": round(time.monotonic() - began)})
            print(json.dumps(results[-1]), flush=True)
    worst = max((abs(each["error"]) for each in results), default=0.0)
    unseen = max(abs(each["error"]) for each in results if not each["fitted"])
    without = max(abs(each["error_without_libraries"]) for each in results)
    figures = {"worst_error": worst, "worst_error_not_fitted": unseen, "worst_error_without_libraries": without}
    print(json.dumps({"device": hardware.describe(hardware.device()), **figures, "settings": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
