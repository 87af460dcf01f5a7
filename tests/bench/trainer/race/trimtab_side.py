"""Our side of the race: the trainer's loop as `train` builds it, on a store of local files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from .work import ALPHA, GRADIENT_NORM, LEARNING_RATE, RANK, SEED, Clock, Work, packed


def run(work: Work, started: float) -> dict[str, Any]:
    """Train and return the figures of `Clock`, and with what the last step ran: the loop has a remedy for memory."""
    from trimtab_trainer.training.distributed.processes import Place
    from trimtab_trainer.training.distributed.world import World
    from trimtab_trainer.training.machine import hardware

    world = World(Place.told(os.environ))
    hardware.configure(world.local_size, world.local_rank)
    world.join()
    from trimtab_trainer.contract.settings import ComputeType
    from trimtab_trainer.training.network.adapter import add_adapter
    from trimtab_trainer.training.network.elementwise import fuse_elementwise
    from trimtab_trainer.training.network.model import load_base
    from trimtab_trainer.training.network.product import fuse
    from trimtab_trainer.training.schedule import sequences_of_step

    from tests.trainer.train.runs import run_config, trainer

    steps = work.steps + 1
    data = packed(work.length, work.batch * min(steps, 50))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        config = run_config(
            root,
            lora={"rank": RANK, "alpha": ALPHA, "dropout": work.dropout},
            quantization={"computeType": work.compute},
            training={
                "maxSteps": steps,
                "batchSize": work.batch,
                "microBatchSize": work.micro_batch,
                "learningRate": LEARNING_RATE,
                "maxGradientNorm": GRADIENT_NORM,
                "schedule": "Constant",
                "warmupRatio": 0.0,
                "seed": SEED,
                "maxSequenceLength": max(64, work.length),
            },
        )
        where = hardware.device()
        kind = hardware.compute_type(ComputeType(work.compute), where)
        model = add_adapter(load_base(work.base_model, config.quantization, kind, where), config.lora, kind, SEED)
        fuse(model.peft)
        if work.kernels:
            fuse_elementwise(model)
        model.attend_by_rows()
        loop = trainer(work.base_model, root, config, data, model=model, world=world)
        lengths = loop.training.lengths
        tokens = [int(lengths[sequences_of_step(config.training, len(data), step)].sum()) for step in range(steps)]
        clock = Clock(started, tokens)
        for _ in range(steps):
            loop.step()
            clock.step_ended()
            clock.losses.append(loop.state.recent[-1][0] / loop.state.recent[-1][1])
        world.leave()
        return {
            **clock.figures(hardware.memory_peak(where) or 0),
            "kernels": list(model.kernels.parts),
            "micro_batch": loop.micro_batch,
            "recomputed": model.recomputed,
        }
