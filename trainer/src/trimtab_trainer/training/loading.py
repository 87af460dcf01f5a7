"""From what `prepare` wrote to a trainer that is ready for its next step: base model, adapter, data, plan, checkpoint.

`train` calls it, in each of several processes alike; what they have to agree on is asked here, before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from ..base.architecture import find_targets, read_shapes
from ..base.base_model import BaseModel, fetch_base_model, find_base_model
from ..contract import Prepared, Rank, Reason, RunConfig, StoredBaseModel
from ..data.view import View, load_view, total_steps
from ..errors import SettingsInvalid
from ..estimating.dimensions import dimensions
from ..estimating.division import check_divisible, smallest
from ..estimating.memory import Arithmetic
from ..interruption import Interruption
from ..probe import check_forward
from ..progress import ProgressBoard
from ..report import Report
from ..storage import open_store
from .batches import Batches
from .checkpoint import Checkpoints
from .distributed.checkpoints import newest_first
from .distributed.sharing import check_batch, uneven
from .distributed.world import World
from .loop import Trainer
from .machine import hardware
from .machine.costs import costs
from .machine.hardware import memory_peak
from .machine.sizing import Sizing, plan
from .methods.reference import References
from .methods.splits import preferences_in, reference_identity, splits_of
from .network.adapter import Adapted, add_adapter
from .network.division import Division
from .network.elementwise import fuse_elementwise
from .network.full import train_fully
from .network.initial import check_initial_adapter, fetch_initial_weights
from .network.model import frozen_hash, load_base, some
from .network.product import fuse
from .network.targets import check_layers
from .network.trained import Trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Loaded:
    """A run that is ready for its next step."""

    base_folder: Path
    view: View
    trainer: Trainer
    resumed_from: int | None

    def run(self, world: World) -> tuple[Rank, ...]:
        """Train to the end; return what each process used, if there are several.

        The others are needed no more, unless the base model is divided among them: then by the leader (`finish`).
        """
        self.trainer.run()
        if world.size == 1:
            return ()
        holding = self.trainer.model.holding
        # Not to be interrupted: the leader's last checkpoint may still be on its way, and it is told to stop by itself.
        world.meet(Interruption())
        where = self.trainer.model.device
        ranks = world.gather(Rank(device=hardware.describe(where)[:128], memory_peak_bytes=memory_peak(where)))
        if not world.leads:
            holding.serve()  # what is published is measured by the leader
        if not (world.leads and holding.divided):
            world.leave()
        return tuple(ranks)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What a run is loaded from and by whom, and the steps of it in their order.

    Attributes:
        scratch: a folder that the processes of this pod share.
    """

    config: RunConfig
    prepared: Prepared
    checkpoints: Checkpoints
    world: World
    scratch: Path
    stop: Interruption
    report: Report
    board: ProgressBoard

    def load(self) -> Loaded:
        """Put base model and data in place, once for all processes of this pod, and build the trainer."""
        config, world = self.config, self.world
        hardware.configure(world.local_size, world.local_rank)
        check_batch(config.training, world.size)
        world.join(f"{self.prepared.run_digest} in attempt {self.checkpoints.attempt}", self.stop)
        folder, view = self.fetch()
        splits = splits_of(view, config.training)
        model, base_hash = self.load_model(folder, view, longest=splits["train"].longest)
        trainer = self.make_trainer(model, base_hash, splits)
        if config.training.method.needs_reference:
            self.compare(trainer, splits)
        return Loaded(folder, view, trainer, self.resume(trainer))

    def fetch(self) -> tuple[Path, View]:
        """Return the folder of the base model, and the data."""
        config, prepared, base = self.config, self.prepared, self.scratch / "base-model"
        store = open_store(config.output.uri, config.output.credentials)
        folder = self.world.pod_first(
            lambda: fetch_base_model(config.base_model, base, prepared.base_model_digest), self.stop, then=lambda: base
        )
        view = self.world.pod_first(
            lambda: load_view(store, prepared.view_digest, self.scratch),
            self.stop,
            then=lambda: load_view(store, prepared.view_digest, self.scratch, there=True),
        )
        return folder, view

    def load_model(self, folder: Path, view: View, *, longest: int) -> tuple[Trained, str]:
        """Load the base model, divided if it has to be, and make it one that is trained.

        Args:
            longest: tokens of the longest sequence.

        Returns:
            The model, and the hash of its base.
        """
        config, where = self.config, hardware.device()
        compute_type = hardware.compute_type(config.quantization.compute_type, where)
        files = find_base_model(StoredBaseModel(uri=folder.as_uri()))
        memory = hardware.memory(where, processes=self.world.local_size)
        self.world.meet(self.stop)  # however long each took to fetch them
        arithmetic = Arithmetic(where.type, min(4, compute_type.itemsize))
        division = divide(config, files, arithmetic, self.world, longest=longest, memory=memory, report=self.report)
        # Weights that are trained themselves are in float32, whatever products are made in.
        kind = compute_type if config.adapter is not None else torch.float32
        base = load_base(folder, config.quantization, kind, where, division)
        if division is not None:
            self.world.meet(self.stop)  # they need each other from here on
        base_hash = frozen_hash(base)
        if config.adapter is None:
            model: Trained = train_fully(base, read_shapes(files), compute_type)
        else:
            model = self.adapt(base, files, compute_type)
        check_vocabulary(model, view)
        if isinstance(model, Adapted):
            model.fused = fuse(model.module)
        fuse_elementwise(model)
        if config.training.packing:
            model.attend_by_rows()
        self.world.meet(self.stop)  # they agree on what they find
        check_forward(model, config.training.packing, self.world.gather)
        return model, base_hash

    def adapt(self, base: PreTrainedModel, files: BaseModel, compute_type: torch.dtype) -> Adapted:
        """Put the adapter of the run on its base model: a fresh one, or the one that it goes on from."""
        config = self.config
        assert config.adapter is not None
        targets = find_targets(read_shapes(files), config.adapter, files.config)
        model = add_adapter(base, config.adapter, compute_type, config.training.seed, targets.reached.left_out)
        check_layers(model, targets.modules, targets.parameters)
        initial = check_initial_adapter(config, self.prepared.base_model_digest, targets)
        if initial is not None:
            load_weights(model, fetch_initial_weights(initial, self.own), initial.uri)
        if unreached := targets.reached.unreached(len(targets.parameters)):
            self.report.warn("experts are out of reach", warning=unreached)
        return model

    def make_trainer(self, model: Trained, base_hash: str, splits: Mapping[str, Batches]) -> Trainer:
        """Plan the passes, as every process can make them, and return the trainer before its first step."""
        config, settings, world, training = self.config, self.config.training, self.world, splits["train"]
        memory = hardware.memory(model.device, processes=world.local_size)  # without what libraries took meanwhile
        sizing = plan(settings, training.longest, memory, costs(model), model.device.type)
        world.meet(self.stop)  # however long each took to load
        same_kernels(model, world, self.report)
        sizing = alike(sizing, base_hash, model, world)
        if sizing.recomputed and not model.checkpoint_activations(sizing.recomputed):
            self.report.warn("activations are kept: this kind of model cannot compute them twice")
        total = total_steps(settings, len(training))
        if (waiting := uneven(settings, world.size)) is not None:
            self.report.warn("accelerators wait", warning=waiting)
        self.report(
            "model loaded",
            device=hardware.describe(model.device),
            compute_type=str(model.compute_type).removeprefix("torch."),
            threads=torch.get_num_threads(),
            trained_parameters=sum(p.numel() for p in model.parameters.values()),
            target_modules=list(model.target_modules) if isinstance(model, Adapted) else None,
            attention=model.attention,
            fused=model.fused,
            kernels=model.kernels.counts(),
            base_divided_among=world.size if model.holding.divided else 1,
            micro_batch=sizing.micro_batch,
            checkpoint_activations=model.recomputed > 0,
            recomputed_layers=model.recomputed,
            sequences=len(training),
            total_steps=total,
            world_size=world.size,
        )
        self.board.update(total_steps=total)
        trainer = Trainer(
            config,
            model,
            training,
            splits.get("validation"),
            total_steps=total,
            micro_batch=sizing.micro_batch,
            checkpoints=self.checkpoints,
            base_hash=base_hash,
            stop=self.stop,
            report=self.report,
            board=self.board,
            world=world,
        )
        self.board.micro_batch.set(trainer.micro_batch)
        trainer.test = splits.get("test")
        return trainer

    def compare(self, trainer: Trainer, splits: Mapping[str, Batches]) -> None:
        """Give preferences what the model says of them before training; the others find what the leader stored."""
        self.board.update(activity="Comparing")
        config, model = self.config, trainer.model
        identity = reference_identity(config, self.prepared, model.compute_type)
        references = References(self.checkpoints.store, identity, self.own, self.stop, self.report)
        compared = preferences_in(splits)
        with_adapter = config.adapter is not None and config.adapter.initial_adapter is not None
        model.holding.leader_first(
            lambda: references.give(model, compared, with_adapter=with_adapter), self.world, self.stop
        )

    def resume(self, trainer: Trainer) -> int | None:
        """Go on from the newest checkpoint that is one of this run; return its step."""
        for checkpoint in newest_first(self.checkpoints, self.world, self.stop):
            step = checkpoint.state.step
            try:
                trainer.resume(checkpoint)
            except ValueError as error:
                self.report.warn("checkpoint is not one of this run", step=step, error=str(error))
                continue
            self.report("resumed", step=step, total_steps=trainer.total_steps)
            return step
        self.checkpoints.forget()
        return None

    @property
    def own(self) -> Path:
        """A folder of this process alone."""
        return self.scratch / f"rank-{self.world.rank}"


def divide(
    config: RunConfig,
    files: BaseModel,
    where: Arithmetic,
    world: World,
    *,
    longest: int,
    memory: int,
    report: Report,
) -> Division | None:
    """Return how the base model is divided among the processes; None where each of them holds all of it.

    Args:
        where: it is computed.
        world: all processes.
        longest: tokens of the longest sequence.
        memory: bytes that this process may plan with.
        report: is told.

    Raises:
        SettingsInvalid: it has to be, and cannot.
    """
    dims = dimensions(read_shapes(files), files.config, config.adapter)
    sizes = smallest(dims, config, longest=longest, memory=memory, where=where, processes=world.size)
    if not world.any(sizes.among > 1):
        return None
    check_divisible(config)
    report(
        "the base model is divided: one process does not hold it",
        among=world.size,
        base_bytes=sizes.whole.base,
        base_bytes_of_each=sizes.divided.base,
        least_bytes_undivided=sizes.whole.peak,
        memory_bytes=memory,
    )
    return Division(world)


def alike(sizing: Sizing, base_hash: str, model: Trained, world: World) -> Sizing:
    """Return the plan that suits every process.

    Raises:
        RuntimeError: they do not have the same base model in memory, or have loaded another one than is gathered.
    """
    found = world.gather((sizing, base_hash, model.holding.differing()))
    if len({base for _, base, _ in found}) > 1 or any(differing for *_, differing in found):
        ranks = [f"{rank} ({some(differing)})" for rank, (*_, differing) in enumerate(found) if differing]
        differs = f": what is gathered is not what these loaded: rank {', '.join(ranks)}" if ranks else ""
        raise RuntimeError(
            f"the frozen base is not the same in all {world.size} processes, so their sums mean nothing{differs}"
        )
    return Sizing(min(each.micro_batch for each, *_ in found), max(each.recomputed for each, *_ in found))


def load_weights(model: Adapted, file: Path, uri: str) -> None:
    """Set the weights of a fresh adapter to those of one that was published.

    Raises:
        SettingsInvalid: they are of other modules than this model's.
    """
    try:
        model.load_trained_tensors(load_file(file))
    except ValueError as error:
        raise SettingsInvalid(
            f"lora.initialAdapter at {uri} does not fit these settings: {error}; set lora.targetModules and "
            "lora.targetParameters to what it was trained with"
        ) from error


def same_kernels(model: Trained, world: World, report: Report) -> None:
    """Compute by kernels what every process can, and no more; say what one of them could not."""
    kernels = model.kernels
    found = world.gather((kernels.parts, kernels.trouble))
    kernels.keep(tuple(part for part in kernels.parts if all(part in parts for parts, _ in found)))
    for part, reason in {part: why for _, trouble in found for part, why in trouble.items()}.items():
        report.warn("a kernel is not used, the plain way is", part=part, reason=reason)


def check_vocabulary(model: Trained, view: View) -> None:
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
