"""The train stage: from what `prepare` wrote to a published adapter. `__main__` calls `train`.

Everything it does before the first step, and after the last, can be thrown away and done again by the next attempt,
so there a signal ends it at once; in between `loop` sees to checkpoints.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract import Artifact, MirroredSource, Prepared, Rank, RunConfig, Stage, Summary
from ..data.view import View
from ..errors import OutOfMemory
from ..interruption import Interruption
from ..progress import ProgressBoard
from ..publishing.publish import export, measure, publish
from ..publishing.result import read_result
from ..report import Report
from ..reporting.answers import answer_held_out
from ..storage import Store, open_store
from .checkpoint import Checkpoints
from .distributed.processes import Place
from .distributed.world import World
from .loading import Loading
from .loop import Trainer
from .machine import hardware
from .machine.exhausted import is_out_of_memory
from .network.adapter import Adapted, load_adapter
from .network.full import Full, load_full
from .network.model import frozen_hash
from .network.trained import Trained


def train(  # noqa: PLR0917 all of them in the order that they are needed
    config: RunConfig,
    prepared: Prepared,
    attempt: int,
    scratch: Path,
    report: Report,
    progress: ProgressBoard,
    stop: Interruption | None = None,
    origin: MirroredSource | None = None,
    place: Place | None = None,
) -> tuple[Artifact, Summary]:
    """Train a run, from its newest checkpoint if there is one, and publish its adapter.

    Args:
        config: the run.
        prepared: the digests and sizes that `prepare` found.
        attempt: counts the attempts of a run; part of the names of checkpoints.
        scratch: an empty folder for the base model, the data and files to upload.
        report: where events go.
        progress: where figures go.
        stop: listens to SIGTERM by itself if absent.
        origin: where the base model came from, if that is a hub.
        place: this process among several, all of which have the same scratch folder; alone if absent.

    Raises:
        Interrupted: told to stop; what was done is in a checkpoint.
        OutOfMemory: one sequence at a time does not fit.
        ProcessLost: another process is gone; what was done is in a checkpoint.
        TrainerError: settings, data or storage do not allow it.
    """
    stop, world = stop or Interruption(), World(place)
    with stop.listening():
        store = open_store(config.output.uri, config.output.credentials)
        checkpoints = Checkpoints(
            store, config, prepared.run_digest, attempt, scratch=scratch, report=report, board=progress
        )
        with _named_ends(checkpoints):
            with stop.at_once():
                progress.update(activity="Loading", world_size=world.size)
                # Of several processes, whoever started them has looked.
                done = read_result(store, prepared.run_digest, report) if world.size == 1 else None
                if done is not None:
                    report("this run has its result already", digest=done.digest)
                    return done.artifact, done.summary
                loaded = Loading(
                    config=config,
                    prepared=prepared,
                    checkpoints=checkpoints,
                    world=world,
                    scratch=scratch,
                    stop=stop,
                    report=report,
                    board=progress,
                ).load()
            ranks = loaded.run(world)
            with stop.at_once():
                progress.update(activity="Publishing")
                artifact, summary = finish(
                    store,
                    config,
                    prepared,
                    loaded.view,
                    loaded.trainer,
                    base_folder=loaded.base_folder,
                    scratch=scratch,
                    report=report,
                    ranks=ranks,
                    origin=origin,
                )
            with stop.later():
                checkpoints.delete_all()
    report("published", uri=artifact.uri, digest=artifact.digest, step=summary.step, test_loss=summary.test_loss)
    return artifact, summary.model_copy(update={"resumed_from_step": loaded.resumed_from})


def follow(  # noqa: PLR0917 as of `train`
    config: RunConfig, prepared: Prepared, attempt: int, scratch: Path, report: Report, stop: Interruption, place: Place
) -> None:
    """Train with the process that leads, which `train` is; nothing is published here.

    Raises:
        TrainerError: as of `train`.
    """
    world, own = World(place), scratch / f"rank-{place.rank}"
    board = ProgressBoard(config.run.uid, attempt, Stage.TRAIN)
    with stop.listening():
        store = open_store(config.output.uri, config.output.credentials)
        checkpoints = Checkpoints(store, config, prepared.run_digest, attempt, scratch=own, report=report, board=board)
        with _named_ends(checkpoints):
            with stop.at_once():
                loaded = Loading(
                    config=config,
                    prepared=prepared,
                    checkpoints=checkpoints,
                    world=world,
                    scratch=scratch,
                    stop=stop,
                    report=report,
                    board=board,
                ).load()
            loaded.run(world)


@contextmanager
def _named_ends(checkpoints: Checkpoints) -> Iterator[None]:
    """Give the block of a run: too little memory has a name, and a checkpoint on its way gets there."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"the memory does not suffice for this base model ({str(error).partition(chr(10))[0]}); raise the "
                "memory limit, or take a smaller model or quantization.type: NF4"
            ) from error
        raise
    finally:
        checkpoints.settle()


def finish(
    store: Store,
    config: RunConfig,
    prepared: Prepared,
    view: View,
    trainer: Trainer,
    *,
    base_folder: Path,
    scratch: Path,
    report: Report,
    ranks: tuple[Rank, ...] = (),
    origin: MirroredSource | None = None,
) -> tuple[Artifact, Summary]:
    """Export the best or the last weights, test the exported files, and publish them."""
    state, model = trainer.state, trainer.model
    trainer.optimizer.state.clear()  # of a whole model it is twice the weights
    if config.training.early_stopping is not None and state.best is not None:
        weights, step = trainer.checkpoints.best_weights(state.best), state.best.step
    else:
        weights, step = model.trained_tensors(copy=False), state.step
    folder = scratch / "published"
    export(
        config, prepared, weights, model, base_folder, folder=folder, chat_template=view.chat_template, origin=origin
    )
    compute_type, where, holding = model.compute_type, model.device, model.holding
    kernels = model.kernels.parts  # before it is taken apart
    with holding.alone():
        published = load_published(trainer, weights, folder=folder, base_folder=base_folder)
        del weights
        test = measure(published, trainer.test, trainer.objective, trainer.stop)
        held_out = answer_held_out(
            published, base_folder, view.test, chat_template=view.chat_template, stop=trainer.stop, report=report
        )
    trainer.world.leave()
    report(
        "exported files measured",
        step=step,
        test_loss=test and round(test.adapter, 6),
        base_test_loss=test and round(test.base, 6),
    )
    artifact, summary = publish(
        store,
        config,
        prepared,
        view=view,
        folder=folder,
        state=state,
        published_step=step,
        test=test,
        held_out=held_out,
        machine=machine(where, compute_type, ranks, divided=holding.divided, kernels=kernels),
        ranks=ranks,
        report=report,
        origin=origin,
    )
    return artifact, summary.model_copy(update={"checkpoint_step": trainer.checkpoints.newest_step})


def load_published(trainer: Trainer, weights: dict[str, Tensor], *, folder: Path, base_folder: Path) -> Trained:
    """Load what was exported as anybody would; what was trained computes no more.

    Raises:
        RuntimeError: a base model that was frozen is not what it was.
        ValueError: some of the weights did not arrive.
    """
    model = trainer.model
    if isinstance(model, Full):
        return load_full(folder, base_folder, model, weights)
    assert isinstance(model, Adapted)
    base = model.remove()
    if frozen_hash(base) != trainer.base_hash:
        raise RuntimeError("the frozen base model changed during training, so nothing is published")
    return load_adapter(base, folder, model.compute_type)


def machine(
    where: torch.device,
    compute_type: torch.dtype,
    ranks: tuple[Rank, ...] = (),
    *,
    divided: bool = False,
    kernels: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return what the adapter was trained on and with, for the records."""
    return {
        "device": hardware.describe(where),
        "accelerators": max(1, len(ranks)) if where.type == "cuda" else 0,
        **({"worldSize": len(ranks), "ranks": [rank.to_json() for rank in ranks]} if ranks else {}),
        **({"baseModel": f"divided among {len(ranks)}"} if divided else {}),
        **({"kernels": list(kernels)} if kernels else {}),
        "computeType": str(compute_type).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }
