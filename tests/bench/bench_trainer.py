"""Tokens per second of the training loop beside a plain loop of peft and transformers, on the same model and data.

    python tests/bench/bench_trainer.py [--base-model FOLDER] [--steps 4] [--rounds 2]

Each side runs in a process of its own, in turn, so that peak memory and start are its own and a busy machine meets
both. The plain loop is what a careful person writes: the same NF4 base, adapters, packing and micro-batches, and the
model's own loss. Without --base-model a model of SmolLM2-135M's shape with random weights is made. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
ROWS, LENGTH, PACKED, SUPERVISED = 4, 512, 4, 0.6
"""Sequences of a micro-batch, their tokens, rows packed into each, and the share of tokens with a loss."""


def main() -> None:
    """Run both sides in turn, or one of them (--side)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--base-model", type=Path, help="folder of a base model; one is made if absent")
    parser.add_argument("--steps", type=int, default=4, help="steps that are timed, after one that is not")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side")
    parser.add_argument("--side", choices=("trimtab", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.base_model, options.steps)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.base_model or make_model(Path(scratch) / "base")
        figures: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side, found in figures.items():
                command = [sys.executable, __file__, "--side", side, "--base-model", str(folder)]
                answer = subprocess.run(
                    [*command, "--steps", str(options.steps)], check=True, capture_output=True, text=True
                )
                found.append(json.loads(answer.stdout.splitlines()[-1]))
                print(f"{side:8} {found[-1]}", flush=True)
    medians = {
        side: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for side, found in figures.items()
    }
    speed = medians["trimtab"]["tokens_per_second"] / medians["plain"]["tokens_per_second"]
    memory = medians["trimtab"]["peak_mib"] / medians["plain"]["peak_mib"]
    print(json.dumps({**medians, "speed_ratio": round(speed, 3), "memory_ratio": round(memory, 3)}))


def make_model(folder: Path) -> Path:
    """Write a random model of SmolLM2-135M's shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            vocab_size=49152,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    return folder


def data(vocabulary: int) -> Any:
    """Return packed sequences of random tokens."""
    import numpy as np
    from trimtab_trainer.data.view import Sequences

    random = np.random.default_rng(0)
    row = LENGTH // PACKED
    positions = np.tile(np.arange(row, dtype=np.int32), ROWS * PACKED)
    return Sequences(
        random.integers(3, vocabulary, ROWS * LENGTH).astype(np.int32),
        positions,
        positions >= row * (1 - SUPERVISED),
        np.arange(ROWS + 1, dtype=np.int64) * LENGTH,
        np.full(ROWS, PACKED, np.int32),
    )


def timed(step: Any, steps: int) -> dict[str, float]:
    """Run one step that is not timed and some that are; return the figures."""
    step()
    first = time.monotonic() - STARTED
    taken = []
    for _ in range(steps):
        started = time.monotonic()
        step()
        taken.append(time.monotonic() - started)
    return {
        "tokens_per_second": round(ROWS * LENGTH / statistics.median(taken), 1),
        "start_to_first_step_seconds": round(first, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def trimtab(folder: Path, steps: int) -> dict[str, float]:
    """Time our loop, without storage."""
    from trimtab_trainer.training import hardware

    hardware.configure()
    from trimtab_trainer.contract.settings import ComputeType
    from trimtab_trainer.training.adapter import add_adapter
    from trimtab_trainer.training.model import load_base

    from tests.trainer.train.runs import run_config, trainer

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        training = {"maxSteps": 1000, "batchSize": ROWS, "microBatchSize": ROWS}
        config = run_config(root, lora={"rank": 16, "alpha": 32, "dropout": 0.05}, training=training)
        where = hardware.device()
        kind = hardware.compute_type(ComputeType.AUTO, where)
        model = add_adapter(load_base(folder, config.quantization, kind, where), config.lora, kind, 1)
        vocabulary = int(model.causal.get_input_embeddings().weight.shape[0])
        return timed(trainer(folder, root, config, data(vocabulary), model=model).step, steps)


def plain(folder: Path, steps: int) -> dict[str, float]:
    """Time the plain loop."""
    from trimtab_trainer.training import hardware

    hardware.configure()
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from trimtab_trainer.contract.settings import ComputeType
    from trimtab_trainer.training.batches import Batches

    where = hardware.device()
    kind = hardware.compute_type(ComputeType.AUTO, where)
    scheme = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=kind
    )
    base = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=kind, quantization_config=scheme, local_files_only=True, device_map={"": where}
    )
    model = get_peft_model(
        base,
        LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear"),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    batches = Batches(data(int(base.get_input_embeddings().weight.shape[0])))
    batch = batches.lay(np.arange(ROWS), where)
    model.train()

    def step() -> None:
        logits = model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, steps)


SIDES = {"trimtab": trimtab, "plain": plain}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
