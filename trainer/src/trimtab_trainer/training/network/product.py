"""Linear layers with LoRA (arXiv 2106.09685) in one step: base product, adapter, and their sum, with its own gradient.

y = W x + s B A x. peft computes the two sides and their sum one by one, with a copy and three passes over y; here the
adapter's product is added in place, in both directions, and nothing is kept but x and A x. Adapters, types and layers
that this does not know stay with peft. `fuse` changes a model after it compared both ways on one layer of each kind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .derived import applied
from .division import show

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest difference from the plain way, of the largest value: sums are rounded in another order."""
PROBED_ROWS = 16


class _Product(torch.autograd.Function):
    """Inputs [n, in] for the base and for the adapter (with dropout they differ), A [rank, in], B [out, rank]."""

    @staticmethod
    def forward(  # noqa: PLR0917 as `apply` passes them
        ctx: Any, inputs: Tensor, dropped: Tensor, down: Tensor, up: Tensor, base: nn.Module, scaling: float
    ) -> Tensor:
        return _taken(ctx, inputs, dropped, down, up, base=base, scaling=scaling)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        kind = upstream.dtype
        toward_inner, to_down, to_up, down = _of_adapter(ctx, upstream)
        to_inputs = to_dropped = None
        if ctx.needs_input_grad[0]:
            to_inputs = upstream @ base_weight(ctx.base, kind)
        if ctx.needs_input_grad[1]:
            to_dropped = toward_inner @ down.to(kind)
        return to_inputs, to_dropped, to_down, to_up, None, None


class _ProductOfOne(torch.autograd.Function):
    """The same without dropout, where both products have one input, and its gradient is one sum."""

    @staticmethod
    def forward(  # noqa: PLR0917 as `apply` passes them
        ctx: Any, inputs: Tensor, down: Tensor, up: Tensor, base: nn.Module, scaling: float
    ) -> Tensor:
        return _taken(ctx, inputs, inputs, down, up, base=base, scaling=scaling)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        kind = upstream.dtype
        toward_inner, to_down, to_up, down = _of_adapter(ctx, upstream)
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = (upstream @ base_weight(ctx.base, kind)).addmm_(toward_inner, down.to(kind))
        return to_inputs, to_down, to_up, None, None


def _taken(
    ctx: Any, inputs: Tensor, dropped: Tensor, down: Tensor, up: Tensor, *, base: nn.Module, scaling: float
) -> Tensor:
    """Return the product [n, out], and keep what its gradients need."""
    kind = inputs.dtype
    output: Tensor = base(inputs)
    inner = dropped @ down.to(kind).t()
    ctx.save_for_backward(dropped, inner, down, up)
    ctx.base, ctx.scaling = base, scaling
    return output.addmm_(inner, up.to(kind).t(), alpha=scaling)


def _of_adapter(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of A x [n, rank], A and B, and A: under torch's checkpoint what was kept is given once."""
    dropped, inner, down, up = ctx.saved_tensors
    toward_inner = (upstream @ up.to(upstream.dtype)).mul_(ctx.scaling)
    to_down = (toward_inner.t() @ dropped).to(down.dtype)
    to_up = (upstream.t() @ inner).mul_(ctx.scaling).to(up.dtype)
    return toward_inner, to_down, to_up, down


def base_weight(base: nn.Module, kind: torch.dtype) -> Tensor:
    """Return the weight [out, in] of a base layer in a type, dequantized if it is in NF4."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    weight = base.weight
    assert isinstance(weight, Tensor)
    if isinstance(base, Linear4bit):
        found: Tensor = dequantize_4bit(weight.data.view(-1, 1), weight.quant_state)  # type: ignore[attr-defined]  # bitsandbytes has no types
        return found.to(kind)
    return weight.to(kind)


def product(
    inputs: Tensor, down: Tensor, up: Tensor, base: nn.Module, *, scaling: float, dropout: float = 0.0
) -> Tensor:
    """Return W x + s B A x [..., out] of inputs x [..., in]; on the adapter's side some of x is dropped."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    with torch.autocast(inputs.device.type, enabled=False):
        if dropout:
            found = applied(_Product, flat, functional.dropout(flat, dropout), down, up, base, scaling)
        else:
            found = applied(_ProductOfOne, flat, down, up, base, scaling)
    output: Tensor = found.view(*inputs.shape[:-1], -1)
    return output


def fuse(model: nn.Module) -> int:
    """Compute the linear layers of peft's model in one step from now on; return how many.

    Kinds of layers that come out otherwise than the plain way stay as they are.
    """
    from bitsandbytes.nn import Linear4bit
    from peft.tuners.lora.bnb import Linear4bit as QuantizedLora
    from peft.tuners.lora.layer import Linear as Lora

    layers = [
        each
        for each in model.modules()
        if isinstance(each, QuantizedLora | Lora) and type(each.base_layer) in (nn.Linear, Linear4bit) and _plain(each)
    ]
    kinds = {(type(each.base_layer), each.base_layer.weight.dtype): each for each in layers}
    right = set()
    for kind, layer in kinds.items():
        show(layer.base_layer.weight)
        if agrees(layer):
            right.add(kind)
    chosen = [each for each in layers if (type(each.base_layer), each.base_layer.weight.dtype) in right]
    for layer in chosen:
        layer.forward = functools.partial(_forward, layer, layer.forward)
    return len(chosen)


def agrees(layer: Any) -> bool:
    """Tell whether one step gives what two give, forward and gradients, on numbers that are not all zero."""
    kind = _type_of_products(layer)
    generator = torch.Generator().manual_seed(0)
    (name,) = layer.lora_A.keys()
    where = layer.base_layer.weight.device
    shapes = ((PROBED_ROWS, layer.in_features), layer.lora_A[name].weight.shape, layer.lora_B[name].weight.shape)
    inputs, down, up = (torch.randn(shape, generator=generator).to(where) for shape in shapes)
    inputs = inputs.to(kind)
    upstream = torch.randn((PROBED_ROWS, layer.out_features), generator=generator).to(where, kind)

    def plain(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = layer.base_layer(x)
        result = result + functional.linear(functional.linear(x, a.to(kind)), b.to(kind)) * layer.scaling[name]
        return result

    def fused(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return product(x, a, b, layer.base_layer, scaling=layer.scaling[name])

    found = []
    for way in (plain, fused):
        leaves = [each.clone().requires_grad_() for each in (inputs, down, up)]
        output = way(*leaves)
        found.append([output, *torch.autograd.grad(output, leaves, upstream)])
    return all(
        (one.float() - other.float()).abs().max() <= TOLERANCE[kind] * one.float().abs().max()
        for one, other in zip(*found, strict=True)
    )


def _plain(layer: Any) -> bool:
    """Tell whether an adapter is nothing but A and B: no variant such as DoRA, no bias, one of them."""
    return len(layer.lora_A) == 1 and not layer.lora_variant and not any(layer.lora_bias.values())


def _type_of_products(layer: Any) -> torch.dtype:
    base = layer.base_layer
    kind = getattr(base, "compute_dtype", None) or base.weight.dtype
    assert isinstance(kind, torch.dtype)
    return kind


def _forward(layer: Any, plain: Callable[..., Tensor], inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Take the place of a layer's forward; `plain` is peft's."""
    device = inputs.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
    (name,) = layer.lora_A.keys()
    alone = layer.active_adapters == [name] and not (layer.disable_adapters or layer.merged or args or kwargs)
    if not alone or inputs.dtype is not kind or kind is not _type_of_products(layer) or not inputs.numel():
        return plain(inputs, *args, **kwargs)
    dropped = layer.lora_dropout[name]
    dropout = dropped.p if isinstance(dropped, nn.Dropout) and dropped.training else 0.0
    return product(
        inputs,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        layer.base_layer,
        scaling=layer.scaling[name],
        dropout=dropout,
    )
