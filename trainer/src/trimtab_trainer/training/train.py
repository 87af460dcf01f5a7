"""The train stage: from what `prepare` wrote to a published adapter. `__main__` calls `train`.

Everything it does before the first step, and after the last, can be thrown away and done again by the next attempt,
so there a signal ends it at once; in between `loop` sees to checkpoints.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..base.architecture import read_shapes, target_modules, target_parameters
from ..base.base_model import fetch_base_model, find_base_model
from ..base.layers import reach
from ..contract import Artifact, MirroredSource, Prepared, Rank, Reason, RunConfig, Stage, StoredBaseModel, Summary
from ..data.view import View, load_view, total_steps
from ..errors import OutOfMemory, SettingsInvalid
from ..interruption import Interruption
from ..probe import check_forward
from ..progress import ProgressBoard
from ..publishing.publish import export, measure, publish
from ..publishing.result import read_result
from ..report import Report
from ..reporting.answers import answer_held_out
from ..storage import Store, open_store
from . import hardware
from .adapter import Adapted, add_adapter, load_adapter
from .checkpoint import Checkpoints
from .costs import costs
from .distributed.checkpoints import newest_first
from .distributed.processes import Place
from .distributed.sharing import check_batch, uneven
from .distributed.world import World
from .exhausted import is_out_of_memory
from .hardware import memory_peak
from .initial import check_initial_adapter, fetch_initial_weights
from .loop import Trainer
from .methods.reference import References
from .methods.splits import preferences_in, reference_identity, splits_of
from .model import frozen_hash, load_base
from .product import fuse
from .sizing import Sizing, plan
from .targets import check_layers


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
                loaded = load(
                    config, prepared, checkpoints, world, scratch=scratch, stop=stop, report=report, board=progress
                )
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
                loaded = load(
                    config, prepared, checkpoints, world, scratch=scratch, stop=stop, report=report, board=board
                )
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


@dataclass(frozen=True)
class Loaded:
    """A run that is ready for its next step."""

    base_folder: Path
    view: View
    trainer: Trainer
    resumed_from: int | None

    def run(self, world: World) -> tuple[Rank, ...]:
        """Train to the end; return what each process used, if there are several, and need the others no more."""
        self.trainer.run()
        if world.size == 1:
            return ()
        # Not to be interrupted: the leader's last checkpoint may still be on its way, and it is told to stop by itself.
        world.meet(Interruption())
        where = self.trainer.model.device
        ranks = world.gather(Rank(device=hardware.describe(where)[:128], memory_peak_bytes=memory_peak(where)))
        world.leave()
        return tuple(ranks)


def load(
    config: RunConfig,
    prepared: Prepared,
    checkpoints: Checkpoints,
    world: World,
    *,
    scratch: Path,
    stop: Interruption,
    report: Report,
    board: ProgressBoard,
) -> Loaded:
    """Put base model and data in place, once for all processes of this machine, and build the trainer."""
    hardware.configure(world.size, world.rank)
    check_batch(config.training, world.size)
    world.join()
    store, base = open_store(config.output.uri, config.output.credentials), scratch / "base-model"
    folder = world.leader_first(
        lambda: fetch_base_model(config.base_model, base, prepared.base_model_digest), stop, then=lambda: base
    )
    view = world.leader_first(
        lambda: load_view(store, prepared.view_digest, scratch),
        stop,
        then=lambda: load_view(store, prepared.view_digest, scratch, there=True),
    )
    trainer, resumed_from = build(
        config, prepared, folder, view, checkpoints, world, scratch=scratch, stop=stop, report=report, board=board
    )
    return Loaded(folder, view, trainer, resumed_from)


def build(  # noqa: PLR0917 what is loaded, and what it is for
    config: RunConfig,
    prepared: Prepared,
    folder: Path,
    view: View,
    checkpoints: Checkpoints,
    world: World,
    *,
    scratch: Path,
    stop: Interruption,
    report: Report,
    board: ProgressBoard,
) -> tuple[Trainer, int | None]:
    """Load the model, plan the micro-batch, and resume; return the trainer and the step it goes on from."""
    settings = config.training
    where = hardware.device()
    compute_type = hardware.compute_type(config.quantization.compute_type, where)
    files = find_base_model(StoredBaseModel(uri=folder.as_uri()))
    shapes = read_shapes(files)
    layers = target_modules(shapes, config.lora, files.config)
    parameters = target_parameters(shapes, config.lora, files.config)
    reached = reach(shapes, files.config)
    base = load_base(folder, config.quantization, compute_type, where)
    base_hash = frozen_hash(base)
    model = add_adapter(base, config.lora, compute_type, settings.seed, reached.left_out)
    check_layers(model, layers, parameters)
    if (initial := check_initial_adapter(config, prepared.base_model_digest, layers, parameters)) is not None:
        load_weights(model, fetch_initial_weights(initial, scratch / f"rank-{world.rank}"), initial.uri)
    if unreached := reached.unreached(len(parameters)):
        report.warn("experts are out of reach", warning=unreached)
    splits = splits_of(view, settings)
    training = splits["train"]
    check_vocabulary(model, view)
    fused = fuse(model.peft)
    if settings.packing:
        model.attend_by_rows()
    check_forward(model, settings.packing)
    cost = costs(model)
    memory = hardware.memory(where, processes=world.size)
    sizing = plan(settings, training.longest, memory, cost, where.type)
    world.meet(stop)  # however long each took to load
    sizing = alike(sizing, base_hash, world)
    if sizing.recomputed:
        model.checkpoint_activations(sizing.recomputed)
    total = total_steps(settings, len(training))
    if (waiting := uneven(settings, world.size)) is not None:
        report.warn("accelerators wait", warning=waiting)
    report(
        "model loaded",
        device=hardware.describe(where),
        compute_type=str(compute_type).removeprefix("torch."),
        threads=torch.get_num_threads(),
        adapter_parameters=sum(p.numel() for p in model.parameters.values()),
        target_modules=list(model.target_modules),
        adapted=len(layers) + len(parameters),
        attention=model.attention,
        fused=fused,
        micro_batch=sizing.micro_batch,
        checkpoint_activations=sizing.recomputed > 0,
        recomputed_layers=sizing.recomputed,
        sequences=len(training),
        total_steps=total,
        world_size=world.size,
    )
    board.update(total_steps=total)
    trainer = Trainer(
        config,
        model,
        training,
        splits.get("validation"),
        total_steps=total,
        micro_batch=sizing.micro_batch,
        checkpoints=checkpoints,
        base_hash=base_hash,
        stop=stop,
        report=report,
        board=board,
        world=world,
    )
    board.micro_batch.set(trainer.micro_batch)
    trainer.test = splits.get("test")
    if settings.method.needs_reference:
        board.update(activity="Comparing")
        identity = reference_identity(config, prepared, compute_type)
        references = References(checkpoints.store, identity, scratch / f"rank-{world.rank}", stop, report)
        compared, with_adapter = preferences_in(splits), initial is not None
        # The others find what the leader stored.
        world.leader_first(lambda: references.give(model, compared, with_adapter=with_adapter), stop)
    resumed_from = None
    for checkpoint in newest_first(checkpoints, world, stop):
        try:
            trainer.resume(checkpoint)
        except ValueError as error:
            report.warn("checkpoint is not one of this run", step=checkpoint.state.step, error=str(error))
            continue
        resumed_from = checkpoint.state.step
        report("resumed", step=resumed_from, total_steps=total)
        break
    return trainer, resumed_from


def alike(sizing: Sizing, base_hash: str, world: World) -> Sizing:
    """Return the plan that suits every process.

    Raises:
        RuntimeError: they do not have the same base model in memory.
    """
    found = world.gather((sizing, base_hash))
    if len({base for _, base in found}) > 1:
        raise RuntimeError(f"the frozen base is not the same in all {world.size} processes, so their sums mean nothing")
    return Sizing(min(each.micro_batch for each, _ in found), max(each.recomputed for each, _ in found))


def load_weights(model: Adapted, file: Path, uri: str) -> None:
    """Set the weights of a fresh adapter to those of one that was published.

    Raises:
        SettingsInvalid: they are of other modules than this model's.
    """
    try:
        model.load_adapter_tensors(load_file(file))
    except ValueError as error:
        raise SettingsInvalid(
            f"lora.initialAdapter at {uri} does not fit these settings: {error}; set lora.targetModules and "
            "lora.targetParameters to what it was trained with"
        ) from error


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
    weights, step = model.adapter_tensors(), state.step
    if config.training.early_stopping is not None and state.best is not None:
        weights, step = trainer.checkpoints.best_weights(state.best), state.best.step
    folder = scratch / "adapter"
    export(
        config, prepared, weights, model, base_folder, folder=folder, chat_template=view.chat_template, origin=origin
    )
    compute_type, where, targets = model.compute_type, model.device, len(model.target_modules)
    base = model.remove()
    if frozen_hash(base) != trainer.base_hash:
        raise RuntimeError("the frozen base model changed during training, so nothing is published")
    published = load_adapter(base, folder, compute_type)
    test = measure(published, trainer.test, trainer.objective, trainer.stop)
    report(
        "exported adapter measured",
        step=step,
        targets=targets,
        test_loss=test and round(test.adapter, 6),
        base_test_loss=test and round(test.base, 6),
    )
    held_out = answer_held_out(
        published, base_folder, view.test, chat_template=view.chat_template, stop=trainer.stop, report=report
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
        machine=machine(where, compute_type, ranks),
        ranks=ranks,
        report=report,
        origin=origin,
    )
    return artifact, summary.model_copy(update={"checkpoint_step": trainer.checkpoints.newest_step})


def check_vocabulary(model: Adapted, view: View) -> None:
    """Refuse tokens that the model has no embedding for.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    size = int(model.causal.get_input_embeddings().weight.shape[0])
    largest = max(int(s.tokens.max()) for s in (view.train, view.validation, view.test) if s is not None)
    if largest >= size:
        raise SettingsInvalid(
            f"the tokenizer makes token {largest}, but the base model has only {size} embeddings; "
            "take the tokenizer that belongs to the model",
            Reason.BASE_MODEL_INVALID,
        )


def machine(where: torch.device, compute_type: torch.dtype, ranks: tuple[Rank, ...] = ()) -> dict[str, Any]:
    """Return what the adapter was trained on and with, for the records."""
    size = max(1, len(ranks))
    return {
        "device": hardware.describe(where),
        "accelerators": size if where.type == "cuda" else 0,
        "worldSize": size,
        **({"ranks": [rank.to_json() for rank in ranks]} if ranks else {}),
        "computeType": str(compute_type).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }
