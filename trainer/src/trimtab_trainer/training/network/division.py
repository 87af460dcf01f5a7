"""The frozen base model, whole in each process, or divided among them where one accelerator does not hold it.

Divided, each process keeps one slice of the bytes of every matrix, its quantization constants included, as they are in
memory. What computes together is a unit: the embedding, a layer, the output head. A unit is gathered from all just
before it computes, the next one meanwhile, and given back after that: forward, and again backward. So it computes with
the same bytes, and each process holds its slices and two units. Adapters, norms and biases are whole everywhere.

All processes gather the same units in the same order, whatever each of them has to compute. That order is fixed for a
pass, and a process without a batch, or one whose memory ran out in the middle, takes part to its end.

A unit's weights stay the same tensors: the memory behind them is given back and taken again, as in FSDP2 (torch,
`_fsdp_param.py`), so whatever keeps them (autograd, peft, bitsandbytes) has them again when it needs them.
"""

from __future__ import annotations

import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...contract import Reason
from ...errors import SettingsInvalid
from ...interruption import Interruption
from ..distributed.world import World
from ..machine.exhausted import is_out_of_memory
from .checksums import checksums

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALIGNMENT = 256
"""Bytes at which a tensor begins in its unit, as where an accelerator's allocator puts one."""
READ_IN_TURN = "HF_DEACTIVATE_ASYNC_LOAD"
PASS, DONE = -1, -2
"""What a leader that computes alone announces, beside the number of a unit that it asks for."""


class Whole:
    """A base model of which each process has all: nothing has to be agreed on in a pass."""

    divided, held = False, 0

    def together(self, here: bool, stop: Interruption) -> bool:
        """Tell whether there is another pass: where this process has one."""
        stop.check()
        return here

    def passing(self, stop: Interruption, *, training: bool) -> AbstractContextManager[None]:
        """Return the context of one pass."""
        return nullcontext()

    def working(self, stop: Interruption, world: World) -> AbstractContextManager[None]:
        """Return the context of passes, which a signal ends at once."""
        return world.working(stop)

    def alone(self) -> AbstractContextManager[None]:
        """Return the context in which the leader computes without the others."""
        return nullcontext()

    def serve(self) -> None:
        """Help the leader, which is in `alone`; it needs no help."""

    def leader_first(self, work: Callable[[], object], world: World, stop: Interruption) -> None:
        """Do something in the leader, and in the others once that is done."""
        world.leader_first(work, stop)

    def differing(self) -> list[str]:
        """Return which weights are not those that this process loaded."""
        return []


class Division:
    """A base model divided among processes. Each calls the same methods in the same order."""

    divided = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.units: list[Unit] = []
        self._pass: list[Unit] = []  # of a forward pass, in order
        self._rest: deque[Unit] = deque()
        self._shown: Unit | None = None
        self._coming: tuple[Unit, Callable[[], None]] | None = None
        self._inside = self._alone = False

    # -- passes -------------------------------------------------------------------------------------------------------

    def together(self, here: bool, stop: Interruption, *, failed: bool = False) -> bool:
        """Tell whether any process has another pass, which all begin then.

        Args:
            here: whether this one has.
            stop: ends all if any of them was told to.
            failed: memory ran out here, in a pass that cannot be made smaller by this process alone.

        Raises:
            MemoryError: it did in some process.
        """
        if self._alone:
            stop.check()
            return here
        more, told, failures = self.world.sum([here, stop.requested, failed])
        if told:
            stop.request()
            stop.check()
        if failures:
            raise MemoryError("memory ran out in one of the processes")
        return more > 0

    @contextmanager
    def passing(self, stop: Interruption, *, training: bool) -> Iterator[None]:
        """Give the block of one pass, forward alone or with gradients; a process may have nothing to compute in it.

        Where memory runs out in one with gradients, all processes have to begin their step anew, and are told.

        Raises:
            MemoryError: instead of what it was in the library.
        """
        if self._alone:  # begins with the embedding
            yield
            return
        self._begin(training=training)
        self._inside = True
        try:
            yield
        except Exception as error:  # raised again, when all is as it was
            self._inside = False
            if is_out_of_memory(error):
                traceback.clear_frames(error.__traceback__)  # they keep activations
                self._finish()
                if training:
                    self.together(False, stop, failed=True)
            raise
        self._inside = False
        self._finish()

    @contextmanager
    def working(self, stop: Interruption, world: World) -> Iterator[None]:
        """Give the block of passes. A signal ends it between two of them, in all processes."""
        yield
        if not self._alone:
            self.world.stop_together(stop)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Give the block in which the leader alone computes, while the others `serve`."""
        self._finish()
        self._alone = True
        yield
        self._finish()
        self._alone = False
        self.world.announce(DONE)

    def serve(self) -> None:
        """Take part in what the leader, which is in `alone`, asks for, until it is done."""
        self._finish()
        while (asked := self.world.announce(DONE)) != DONE:
            self._rest = deque(self._pass if asked == PASS else [self.units[asked]])
            self._finish()

    def leader_first(self, work: Callable[[], object], world: World, stop: Interruption) -> None:
        """Do something in the leader, and then in all at once: what it computes again it computes with the others."""
        if world.leads:
            with self.alone():
                work()
        else:
            self.serve()
        work()

    def show(self, unit: Unit) -> None:
        """Have a unit's weights in memory until another one is shown, outside of passes."""
        if self._shown is unit:
            return
        self._finish()
        if self._alone:
            self.world.announce(self.units.index(unit))
        self._rest = deque([unit])
        self._next()

    def _begin(self, *, training: bool) -> None:
        self._finish()
        if self._alone:
            self.world.announce(PASS)
        # The head's gradient is made with the loss (`loss`), and the embedding needs none.
        backward = reversed(self._pass[1:-1]) if training else ()
        self._rest = deque([*self._pass, *backward])

    def _enter(self) -> None:
        """Begin a pass with the embedding, if none was begun (`passing`)."""
        if not self._inside:
            self._begin(training=torch.is_grad_enabled() and not self._alone)
        self._reach(self._pass[0])

    def _reach(self, unit: Unit) -> None:
        """Have a unit's weights in memory, which comes next in this pass, or later."""
        if self._shown is unit:
            return
        if unit not in self._rest:
            raise RuntimeError(f"{unit.name} computes out of turn, so this model cannot be divided among accelerators")
        while self._shown is not unit:
            self._next()

    def _finish(self) -> None:
        """Take part in the rest of a pass."""
        while self._rest:
            self._next()
        if self._shown is not None:
            self._shown.release()
            self._shown = None

    @torch.no_grad()
    def _next(self) -> None:
        if self._shown is not None:
            self._shown.release()
            self._shown = None
        unit = self._rest[0]
        # Taken off last: where there is no memory for it, the others wait for it all the same.
        _, arrived = self._coming or (unit, unit.gather(self.world))
        self._coming = None
        self._rest.popleft()
        arrived()
        self._shown = unit
        if self._rest:
            try:
                self._coming = self._rest[0], self._rest[0].gather(self.world)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._rest[0].release()  # it is gathered when it is needed

    # -- loading ------------------------------------------------------------------------------------------------------

    @contextmanager
    def loading(self, text_part: Callable[[Any], nn.Module]) -> Iterator[None]:
        """Give the block in which transformers loads a model: each unit is divided as soon as it is there.

        So no more than one of them is in memory whole. torch tells of modules and weights by its own hooks.
        """
        import transformers.modeling_utils
        from torch.nn.modules import module as hooks

        parents: dict[nn.Module, nn.Module] = {}
        waiting: dict[nn.Module, Unit] = {}

        def registered(parent: nn.Module, name: str, child: nn.Module | None) -> None:
            if child is not None:
                parents[child] = parent

        def loaded(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            if parameter is None or parameter.is_meta or hasattr(parameter, "unit"):
                return
            if not self.units:
                root = module
                while root in parents:
                    root = parents[root]
                self.units = _units(root, text_part)
                waiting.update({owner: unit for unit in self.units for owner in unit.owners})
            unit = waiting.get(module)
            if unit is not None and unit.take(module, name, parameter):
                unit.divide(self)

        handles = [
            hooks.register_module_module_registration_hook(registered),
            hooks.register_module_parameter_registration_hook(loaded),
        ]
        # It would take memory for the whole model at once, and threads would read ahead.
        warm_up = transformers.modeling_utils.caching_allocator_warmup
        transformers.modeling_utils.caching_allocator_warmup = lambda *_: None
        os.environ[READ_IN_TURN] = "1"
        try:
            yield
        finally:
            del os.environ[READ_IN_TURN]
            transformers.modeling_utils.caching_allocator_warmup = warm_up
            for handle in handles:
                handle.remove()

    def arrange(self, model: PreTrainedModel) -> None:
        """Have a model that was loaded gather its units when they compute.

        Raises:
            SettingsInvalid: BASE_MODEL_INVALID, it is not built of what is divided here.
        """
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        layers = [unit for unit in self.units if unit.module not in (embedding, head)]
        tables_are_there = all(hasattr(each.weight, "unit") for each in (embedding, head))
        if not layers or not tables_are_there or any(not unit.size for unit in layers):
            raise SettingsInvalid(
                f"one accelerator does not hold {type(model).__name__}, and its layers cannot be divided among "
                "several; take larger accelerators",
                Reason.BASE_MODEL_INVALID,
            )
        # Of a tied head both are one, whichever of them the files have.
        first, last = embedding.weight.unit, head.weight.unit
        self._pass = [first, *layers, last]
        self.units = list(dict.fromkeys(self._pass))
        model.division = self
        embedding.register_forward_pre_hook(lambda *_: self._enter())
        head.register_forward_pre_hook(lambda *_: self._reach(self._pass[-1]))
        for layer in layers:
            layer.module.register_forward_pre_hook(lambda *_, unit=layer: self._reach(unit))
            layer.module.register_forward_hook(lambda *seen, unit=layer: self._again(unit, seen[-1]))

    def _again(self, unit: Unit, output: Any) -> None:
        """Have a layer's weights in memory once more when the gradient of what it gave is there."""
        for tensor in torch.utils._pytree.tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: self._reach(unit))

    # -- what is held -------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes that this process holds of divided weights at most: its slices, and two units at a time."""
        return sum(len(unit.own) for unit in self.units) + 2 * max(unit.size for unit in self.units)

    def differing(self) -> list[str]:
        """Return the units whose weights, as gathered from all, are not those that this process loaded itself."""
        found = []
        for unit in self.units:
            self.show(unit)
            if not unit.is_as_loaded():
                found.append(unit.name)
        return found


class Unit:
    """Weights that are gathered together: those of `module` with two dimensions or more, and their constants.

    Attributes:
        name: of the module, for messages.
        own: uint8, this process's slice of all their bytes.
        size: bytes of all.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module
        self.owners = {
            each: {key for key, parameter in each.named_parameters(recurse=False) if parameter.ndim > 1}
            for each in module.modules()
        }
        self.owners = {owner: names for owner, names in self.owners.items() if names}
        self.own = torch.empty(0, dtype=torch.uint8)
        self.size = 0
        self._flat = self.own
        self._taken: list[nn.Parameter] = []
        self._places: list[tuple[Any, str]] = []
        self._checksums: list[Tensor] = []

    def take(self, owner: nn.Module, name: str, parameter: nn.Parameter) -> bool:
        """Note a weight that was loaded; tell whether it is the last one."""
        if name not in self.owners[owner]:
            return False
        self.owners[owner].remove(name)
        self._taken.append(parameter)
        return not any(self.owners.values())

    @torch.no_grad()
    def divide(self, division: Division) -> None:
        """Keep this process's slice of what was taken, and give the memory of the rest back."""
        world = division.world
        self._places = [place for parameter in self._taken for place in _places(parameter)]
        tensors = [getattr(holder, name).detach() for holder, name in self._places]
        starts, end = [], 0
        for tensor in tensors:
            starts.append(end)
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        each = -(-end // (world.size * ALIGNMENT)) * ALIGNMENT
        self.size, begin = each * world.size, each * world.rank
        self.own = torch.zeros(each, dtype=torch.uint8, device=tensors[0].device)
        for tensor, start in zip(tensors, starts, strict=True):
            data = tensor.contiguous().flatten().view(torch.uint8)
            self._checksums.append(checksums(data))
            first, last = max(start, begin), min(start + len(data), begin + each)
            if first < last:
                self.own[first - begin : last - begin] = data[first - start : last - start]
        kinds = [(tensor.dtype, tensor.shape) for tensor in tensors]
        for holder, name in self._places:
            setattr(holder, name, torch.empty(0, dtype=getattr(holder, name).dtype, device=self.own.device))
        del tensors, tensor, data
        self._flat = torch.empty(self.size, dtype=torch.uint8, device=self.own.device)
        for (holder, name), start, (dtype, shape) in zip(self._places, starts, kinds, strict=True):
            view = self._flat[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            setattr(holder, name, view)
        self.release()
        for parameter in self._taken:
            parameter.unit, parameter.division = self, division  # type: ignore[attr-defined]  # our own, on theirs
        self._taken = []

    def gather(self, world: World) -> Callable[[], None]:
        """Begin to gather all bytes; what is returned waits for them."""
        self._flat.untyped_storage().resize_(self.size)
        return world.collect(self._flat, self.own)

    def release(self) -> None:
        """Give the memory of gathered bytes back."""
        self._flat.untyped_storage().resize_(0)

    def is_as_loaded(self) -> bool:
        """Tell whether the weights, which are shown, are those that were divided here."""
        now = [checksums(getattr(holder, name)) for holder, name in self._places]
        return all(torch.equal(one, other) for one, other in zip(now, self._checksums, strict=True))


def show(parameter: Tensor) -> None:
    """Have a weight in memory if it is of a divided base model; all processes ask alike."""
    if (division := getattr(parameter, "division", None)) is not None:
        division.show(parameter.unit)  # type: ignore[attr-defined]  # set with it


def _places(parameter: nn.Parameter) -> list[tuple[Any, str]]:
    """Return where a weight's tensors are: its own, and of one in NF4 the constants of its blocks."""
    found: list[tuple[Any, str]] = [(parameter, "data")]
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        found.append((state, "absmax"))
        state = state.state2
    return found


def _units(root: Any, text_part: Callable[[Any], nn.Module]) -> list[Unit]:
    """Return the units of a language model whose weights are not there yet, in the order of a pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    names = {module: name for name, module in root.named_modules()}
    inside: set[nn.Module] = set()
    layers = []
    for module in text_part(root).modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            layers.append(module)
            inside.update(module.modules())
    modules: Sequence[nn.Module] = [root.get_input_embeddings(), *layers, root.get_output_embeddings()]
    return [Unit(names[module], module) for module in modules]
