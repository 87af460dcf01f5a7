"""The most memory that training takes, part by part.

What autograd keeps was counted on a Llama with peft's LoRA (torch 2.13, saved_tensors_hooks) for some forty sizes; the
terms below fit it within 6 %. What stands beside it in a moment (a weight that is dequantized, gradients of
activations, logits of a chunk) is from the code. `make bench-estimate` holds the sum against measured peaks.

All of it is what is in use. On a processor glibc keeps more: blocks that were freed stay in its heap for the next ones,
so a process takes more than tensors need, up to 1.6 times as much (docs/benchmarks.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..contract import Optimizer, QuantizationSettings, TrainingSettings
from ..contract.settings import QuantizationType
from ..training.machine.sizing import CHUNK, Costs, Sizing, computed_twice, plan, scores_of_layer
from .dimensions import Dimensions

NF4_BITS, NF4_PLAIN_BITS = 4.127, 4.5
"""Of a weight: 4, and for 64 weights an 8-bit constant with a 32-bit one for 256 of those; or a 32-bit one."""
STATE_BYTES = {
    Optimizer.ADAMW: 8.0,
    Optimizer.ADAMW_8BIT: 2.1,
    Optimizer.PAGED_ADAMW_8BIT: 2.1,
    Optimizer.SGD: 0.0,
}
"""Of an adapter's weight."""
PROCESS = {"cuda": 0, "cpu": 450 << 20}
"""What interpreter and libraries take of the memory that is counted."""
FULL_WIDTH = 4
"""Bytes of a weight that is trained."""
CHECKPOINT_WIDTH = 12
"""Bytes of a weight that is trained, in a checkpoint: itself and at most two numbers of the optimizer, in float32."""
SLACK = {"cuda": 1.03, "cpu": 1.0}
"""What an allocator rounds up to: CUDA's is assumed."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak, part by part."""

    base: int
    adapter: int  # what is trained, with gradients and what the optimizer keeps: all weights where there is no adapter
    activations: int
    moment: int
    process: int

    @property
    def peak(self) -> int:
        return self.base + self.adapter + self.activations + self.moment + self.process


@dataclass(frozen=True)
class Arithmetic:
    """Where it is computed: `cuda` or `cpu`, and the bytes of a number in products (2 or 4)."""

    device_type: str
    width: int


def costs(dims: Dimensions, quantization: QuantizationSettings, rank: int, where: Arithmetic, among: int = 1) -> Costs:
    """Return what `costs.costs` tells of the loaded model, which is what `train` cuts its batches by."""
    if dims.full:
        return _costs_of_all(dims, where)
    kept = sum(each.ins + each.outs for each in dims.adapted) * (4 + 2 * where.width)
    kept += 2 * where.width * max(1, dims.experts_at_once) * sum(each.sides for each in dims.joined)
    made = dims.made_anew * where.width
    parameters = trained_weights(dims, rank)
    base = _base(dims, quantization, where, among) + 4 * parameters
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=dims.layers * dims.hidden * where.width + kept // dims.layers,
        fixed=base + 16 * parameters + 3 * 4 * CHUNK * dims.vocabulary + 3 * made // dims.layers,
        kept_fixed=made,
        scores=dims.layers * scores_of_layer(dims.heads, where.width) if dims.eager else 0,
        scores_at_once=scores_of_layer(dims.heads, where.width) if dims.eager else 0,
    )


def _costs_of_all(dims: Dimensions, where: Arithmetic) -> Costs:
    """Return the costs where all weights are trained: they, their gradients and the optimizer's numbers in float32."""
    kept = sum(each.ins + each.outs for each in dims.linear) * (4 + where.width)
    head = 4 * dims.vocabulary * dims.hidden
    scores = scores_of_layer(dims.heads, where.width) if dims.eager else 0
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=dims.layers * dims.hidden * 4 + kept // dims.layers,
        fixed=(16 + _copied(where) + _checkpoint(where)) * dims.weights + 3 * 4 * CHUNK * dims.vocabulary + head,
        scores=dims.layers * scores,
        scores_at_once=scores,
    )


def _copied(where: Arithmetic) -> int:
    """Return the bytes of a weight's copy in the type of products, where that is not its own."""
    return where.width if where.width != FULL_WIDTH else 0


def _checkpoint(where: Arithmetic) -> int:
    """Return the bytes of a weight in a checkpoint that is being written, where that is in the same memory."""
    return CHECKPOINT_WIDTH if where.device_type == "cpu" else 0


def checkpoint_bytes(dims: Dimensions, rank: int, optimizer: Optimizer) -> int:
    """Return what a checkpoint takes in the memory of the host until it is on disk."""
    return int(trained_weights(dims, rank) * (FULL_WIDTH + STATE_BYTES[optimizer]))


def cut(
    dims: Dimensions,
    quantization: QuantizationSettings,
    training: TrainingSettings,
    *,
    rank: int,
    longest: int,
    memory: int,
    where: Arithmetic,
    among: int = 1,
) -> Sizing:
    """Return how `train` will cut its batches with so much memory."""
    return plan(training, longest, memory, costs(dims, quantization, rank, where, among), where.device_type)


def peak(
    dims: Dimensions,
    quantization: QuantizationSettings,
    training: TrainingSettings,
    *,
    rank: int,
    dropout: float,
    tokens: int,
    recomputed: float,
    where: Arithmetic,
    longest: int = 0,
    among: int = 1,
) -> Memory:
    """Return the peak of a training step with so many tokens in a forward pass.

    Args:
        recomputed: share of the layers whose activations are computed twice instead of kept.
        longest: tokens that one is compared with, where attention is eager.
        among: how many processes the base model is divided among.
    """
    width, layers = where.width, dims.layers
    layer = _kept(dims, rank, dropout, where) // layers
    if dims.eager:
        layer += scores_of_layer(dims.heads, width) * longest
    twice = sum(computed_twice(layers, recomputed))
    kept = twice * dims.hidden * width + (layers - twice) * layer + (layer if twice else 0)
    # Behind the last block: the norm's input in float32, its output, and the gradient that the loss leaves.
    ends = dims.hidden * (4 + 3 * width)
    if dims.full:  # the residual is float32 then, and beside the gradient of the embedding is that of the head
        kept += layers * dims.hidden * (4 - width)
    # A copy of each adapted tensor of experts, and for a moment the gradient of one layer's, and what that is made of.
    made = dims.made_anew * width
    of_all = _copied(where) * dims.weights if dims.full else 0
    copies = of_all + made // layers if twice == layers else made * (layers - twice) // layers
    largest = max((each.ins * each.outs for each in dims.linear), default=0)
    widest = max((max(each.ins, each.outs) for each in dims.linear), default=dims.hidden)
    backward = tokens * widest * 4 * width + max(largest * (4 + width), 2 * made // layers)
    loss = CHUNK * dims.vocabulary * (width + 4 + 4 + width) + tokens * dims.hidden * 2 * width
    return Memory(
        base=_base(dims, quantization, where, among),
        adapter=int(trained_weights(dims, rank) * (4 + 4 + STATE_BYTES[training.optimizer])),
        activations=int(SLACK[where.device_type] * (tokens * (kept + ends) + copies)),
        moment=max(backward, loss) + (4 * dims.vocabulary * dims.hidden if dims.full else 0),
        process=PROCESS[where.device_type],
    )


def _base(dims: Dimensions, quantization: QuantizationSettings, where: Arithmetic, among: int = 1) -> int:
    """Return the bytes of the base model; of a divided one a slice of all matrices, and the two largest units."""
    if dims.full:
        return 0  # what is trained is counted where adapters are
    bits = 8.0 * where.width
    if quantization.type is QuantizationType.NF4:
        bits = NF4_BITS if quantization.double_quantization else NF4_PLAIN_BITS
    linear = int(sum(each.ins * each.outs for each in dims.linear) * bits / 8)
    layers, tables = linear + dims.experts * where.width, dims.embedding * where.width
    if among == 1:
        return layers + tables + dims.rest * where.width
    unit = max(layers // dims.layers, dims.vocabulary * dims.hidden * where.width)
    return (layers + tables) // among + dims.rest * where.width + 2 * unit


def trained_weights(dims: Dimensions, rank: int) -> int:
    """Return how many weights are trained: those of the adapter, or all."""
    if dims.full:
        return dims.weights
    layers = sum(each.ins + each.outs for each in dims.adapted)
    return rank * (layers + sum(each.count * each.sides for each in dims.joined if each.adapted))


def _kept(dims: Dimensions, rank: int, dropout: float, where: Arithmetic) -> int:
    """Return the bytes of a token that autograd keeps of all blocks."""
    width = where.width
    # Norms keep their input in float32, twice a block; between layers that read the residual and those that write it,
    # everything is kept once, in the type of products.
    kept = 8 * dims.hidden * dims.layers + 4 * dims.heads * dims.layers
    for each in dims.linear:
        kept += width * (each.outs if each.ins == dims.hidden else each.ins)
    # The gate's activation, and what attention gives: the inputs of layers that write the residual.
    kept += sum(width * each.ins for each in dims.linear if each.ins != dims.hidden)
    kept += dims.experts_at_once * dims.layers * width * (4 * dims.expert_inner + 2 * dims.hidden)
    for each in dims.adapted:
        if dropout:
            mask = 1 if where.device_type == "cuda" else 4
            kept += (mask + width) * each.ins
        elif width == 2:
            kept += width * each.ins
        kept += (8 if width == 2 else 4) * rank
    return kept
