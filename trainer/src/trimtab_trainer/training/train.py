"""The train stage: from what `prepare` wrote to a published adapter. `__main__` calls `train`.

Everything it does before the first step, and after the last, can be thrown away and done again by the next attempt,
so there a signal ends it at once; in between `loop` sees to checkpoints.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ..base.architecture import read_shapes, target_modules, target_parameters
from ..base.base_model import fetch_base_model, find_base_model
from ..base.layers import reach
from ..contract import Artifact, MirroredSource, Prepared, Reason, RunConfig, StoredBaseModel, Summary
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
from .batches import Batches
from .checkpoint import Checkpoints
from .costs import costs
from .exhausted import is_out_of_memory
from .initial import check_initial_adapter, fetch_initial_weights
from .loop import Trainer
from .model import frozen_hash, load_base
from .product import fuse
from .sizing import plan
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

    Raises:
        Interrupted: told to stop; what was done is in a checkpoint.
        OutOfMemory: one sequence at a time does not fit.
        TrainerError: settings, data or storage do not allow it.
    """
    stop = stop or Interruption()
    with stop.listening():
        store = open_store(config.output.uri, config.output.credentials)
        checkpoints = Checkpoints(
            store, config, prepared.run_digest, attempt, scratch=scratch, report=report, board=progress
        )
        try:
            with stop.at_once():
                progress.update(activity="Loading")
                done = read_result(store, prepared.run_digest, report)
                if done is not None:
                    report("this run has its result already", digest=done.digest)
                    return done.artifact, done.summary
                hardware.configure()
                folder = fetch_base_model(config.base_model, scratch / "base-model", prepared.base_model_digest)
                view = load_view(store, prepared.view_digest, scratch)
                trainer, resumed_from = build(
                    config,
                    prepared,
                    folder,
                    view,
                    checkpoints,
                    scratch=scratch,
                    stop=stop,
                    report=report,
                    board=progress,
                )
            trainer.run()
            with stop.at_once():
                progress.update(activity="Publishing")
                artifact, summary = finish(
                    store,
                    config,
                    prepared,
                    view,
                    trainer,
                    base_folder=folder,
                    scratch=scratch,
                    report=report,
                    origin=origin,
                )
            with stop.later():
                checkpoints.delete_all()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(
                    f"the memory does not suffice for this base model ({str(error).partition(chr(10))[0]}); raise the "
                    "memory limit, or take a smaller model or quantization.type: NF4"
                ) from error
            raise
        finally:
            checkpoints.settle()
    report("published", uri=artifact.uri, digest=artifact.digest, step=summary.step, test_loss=summary.test_loss)
    return artifact, summary.model_copy(update={"resumed_from_step": resumed_from})


def build(
    config: RunConfig,
    prepared: Prepared,
    folder: Path,
    view: View,
    checkpoints: Checkpoints,
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
        load_weights(model, fetch_initial_weights(initial, scratch), initial.uri)
    if unreached := reached.unreached(len(parameters)):
        report.warn("experts are out of reach", warning=unreached)
    training = Batches(view.train)
    validation = Batches(view.validation) if view.validation is not None else None
    check_vocabulary(model, view)
    fused = fuse(model.peft)
    if settings.packing:
        model.attend_by_rows()
    check_forward(model, settings.packing)
    cost = costs(model)
    sizing = plan(settings, int(training.lengths.max()), hardware.memory(where), cost, where.type)
    if sizing.recomputed:
        model.checkpoint_activations(sizing.recomputed)
    total = total_steps(settings, len(training))
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
    )
    board.micro_batch.set(sizing.micro_batch)
    board.update(total_steps=total)
    trainer = Trainer(
        config,
        model,
        training,
        validation,
        total_steps=total,
        micro_batch=sizing.micro_batch,
        checkpoints=checkpoints,
        base_hash=base_hash,
        stop=stop,
        report=report,
        board=board,
    )
    resumed_from = None
    for checkpoint in checkpoints.newest_first():
        try:
            trainer.resume(checkpoint)
        except ValueError as error:
            report.warn("checkpoint is not one of this run", step=checkpoint.state.step, error=str(error))
            continue
        resumed_from = checkpoint.state.step
        report("resumed", step=resumed_from, total_steps=total)
        break
    return trainer, resumed_from


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
    test = measure(published, Batches(view.test) if view.test is not None else None, trainer.stop)
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
        machine=machine(where, compute_type),
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


def machine(where: torch.device, compute_type: torch.dtype) -> dict[str, Any]:
    """Return what the adapter was trained on and with, for the records."""
    return {
        "device": hardware.describe(where),
        "accelerators": 1 if where.type == "cuda" else 0,
        "computeType": str(compute_type).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
    }
