"""What lies between the products of a base model, in one kernel each: RMSNorm, gated products, rotary embeddings.

On CUDA torch computes each of them in four to nine passes over memory; a kernel takes one. `fuse_elementwise` puts it
in the place of single modules' forward, never of a class or a function of transformers, and only where

- the code of the module is that which the kernel was written for: compared, not guessed from its name;
- one of each kind (class, widths, type) comes out as in the plain way, forward and gradient, with its own weights.

What does not, or cannot be compiled here (no C compiler, an old driver), stays as it is, and it is told why. On a
processor nothing is changed and no kernel imported, but under Triton's interpreter (TRITON_INTERPRET=1), for tests.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .model import LanguageModel, brief

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest difference from the plain way, of the largest value: one rounding in the type, and a little."""
PROBED_ROWS = 16
NORM, GATED, ROTARY = "RMSNorm", "gated product", "rotary embedding"
ROTATE = "apply_rotary_pos_emb"
"""What models call, by this name in their own file, to turn heads."""


@dataclass(frozen=True)
class Candidate:
    """A module that a kernel was written for.

    Attributes:
        part: which kernel.
        kind: one module of each is compared.
        module: whose forward this would take the place of.
        forward: by the kernel, where what it is given has the type that was compared; else as ever.
        kernel, plain: functions of `leaves` that have to be the same.
        leaves: numbers to compare on.
    """

    part: str
    kind: Hashable
    module: nn.Module
    forward: Callable[..., Any]
    kernel: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    leaves: list[Tensor]


def usable(where: torch.device) -> bool:
    """Tell whether kernels may be tried: on an accelerator, or where Triton's interpreter is asked for."""
    return where.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def fuse_elementwise(model: LanguageModel) -> None:
    """Compute by kernels from now on what they are for in the text part of a model; `model.kernels` tells what."""
    if not usable(model.device):
        return
    tried: dict[Hashable, str | None] = {}
    for each in candidates(model):
        if each.kind not in tried:
            tried[each.kind] = trouble(each)
        reason = tried[each.kind]
        if reason is None:
            each.module.forward = each.forward
            model.kernels.modules.setdefault(each.part, []).append(each.module)
        else:
            model.kernels.trouble.setdefault(each.part, f"{reason} ({type(each.module).__name__})")


def candidates(model: LanguageModel) -> Iterator[Candidate]:
    """Yield the modules of the text part that a kernel was written for; none whose forward is another's already."""
    for module in model.text.modules():
        for look in (_norm, _gated, _rotary):
            found = None if "forward" in vars(module) else look(module, model.compute_type)
            if found is not None:
                yield found


def trouble(each: Candidate) -> str | None:
    """Return why a kernel may not take the place of the plain way; None if it gives the same."""
    try:
        plain, kernel = (_with_gradients(way, each.leaves) for way in (each.plain, each.kernel))
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever there is between Triton and a program of this accelerator
        return f"it cannot be run, {brief(error)}"
    tolerance = TOLERANCE[each.leaves[0].dtype]
    apart = [
        (one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1e-30)
        for one, other in zip(plain, kernel, strict=True)
    ]
    furthest = float(torch.stack(apart).max())  # no number if any of them is none, other than Python's max
    if furthest <= tolerance:
        return None
    return f"it differs from the plain way by {furthest:.1g} of the largest number, and may by {tolerance:g}"


def _with_gradients(way: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    own = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    with torch.enable_grad():
        output = way(*own)
    upstream = _numbers(output.shape, output.dtype, output.device, seed=len(leaves))
    return [output.detach(), *torch.autograd.grad(output, own, upstream)]


def _numbers(shape: tuple[int, ...], kind: torch.dtype, where: torch.device, seed: int = 0) -> Tensor:
    """Return numbers of which none is zero and none is large, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(where, kind)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two functions have the same code: but for texts, names of variables and where it stands."""

    def code(function: Any) -> Any:
        found = getattr(function, "__code__", None)
        if found is None:
            return function
        constants = tuple(each for each in found.co_consts if not isinstance(each, str))
        return found.co_code, found.co_names, found.co_argcount, constants

    return bool(code(one) == code(other))


def _same_method(one: type, other: type, name: str) -> bool:
    return _same(getattr(one, name, None), getattr(other, name, None))


def _are(kind: torch.dtype, *tensors: Tensor) -> bool:
    return all(each.dtype is kind and each.numel() > 0 for each in tensors)


@functools.cache
def _norms() -> tuple[tuple[type[nn.Module], int, bool], ...]:
    """Return classes of RMSNorm, what they add to weights, and whether they round before these are multiplied."""
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

    return (LlamaRMSNorm, 0, True), (GemmaRMSNorm, 1, False), (Olmo2RMSNorm, 0, False)


def _norm(module: nn.Module, _: torch.dtype) -> Candidate | None:
    weight, own = getattr(module, "weight", None), type(module)
    if not isinstance(weight, Tensor) or weight.ndim != 1 or weight.dtype not in TOLERANCE:
        return None
    made: Any = module
    known = [each for each in _norms() if all(_same_method(own, each[0], name) for name in ("forward", "_norm"))]
    if not known:
        return None
    offset, rounded = known[0][1:]
    eps, plain = float(made.variance_epsilon if hasattr(made, "variance_epsilon") else made.eps), module.forward
    kernel = functools.partial(_by_norm, eps=eps, offset=offset, rounded=rounded)

    def forward(hidden: Tensor) -> Any:
        return kernel(hidden, made.weight) if _are(weight.dtype, hidden) else plain(hidden)

    def plainly(hidden: Tensor, weight: Tensor) -> Any:
        return torch.func.functional_call(module, {"weight": weight}, (hidden,))

    leaves = [_numbers((PROBED_ROWS, *weight.shape), weight.dtype, weight.device), weight]
    return Candidate(NORM, (own, weight.shape, weight.dtype, eps), module, forward, kernel, plainly, leaves)


def _by_norm(hidden: Tensor, weight: Tensor, *, eps: float, offset: int, rounded: bool) -> Tensor:
    from .triton_kernels import rms_norm

    return rms_norm(hidden, weight, eps, offset=offset, rounded=rounded)


def _gated(module: nn.Module, kind: torch.dtype) -> Candidate | None:
    from transformers.activations import ACT2FN
    from transformers.models.llama.modeling_llama import LlamaMLP
    from transformers.models.phi3.modeling_phi3 import Phi3MLP

    made: Any = module
    own = type(module).forward
    halves = _same(own, Phi3MLP.forward)
    if not (halves or _same(own, LlamaMLP.forward)) or kind not in TOLERANCE:
        return None
    gelu = {type(ACT2FN[name]): "gelu" in name for name in ("silu", "swish", "gelu_pytorch_tanh")}
    act, width = made.activation_fn if halves else made.act_fn, getattr(made.down_proj, "in_features", None)
    if type(act) not in gelu or width is None:
        return None
    kernel = functools.partial(_by_halves if halves else _by_gate, gelu=gelu[type(act)])

    def plainly(gate: Tensor, up: Tensor) -> Tensor:
        product: Tensor = act(gate) * up
        return product

    def plainly_halved(both: Tensor) -> Tensor:
        return plainly(*both.chunk(2, -1))

    def forward(hidden: Tensor) -> Any:
        gate, up = made.gate_proj(hidden), made.up_proj(hidden)
        return made.down_proj((kernel if _are(kind, gate, up) else plainly)(gate, up))

    def forward_halved(hidden: Tensor) -> Any:
        both = made.gate_up_proj(hidden)
        return made.down_proj((kernel if _are(kind, both) else plainly_halved)(both))

    where = _device(module)
    shapes = [(PROBED_ROWS, 2 * width)] if halves else [(PROBED_ROWS, width)] * 2
    return Candidate(
        GATED,
        (type(module), type(act), width, kind),
        module,
        forward_halved if halves else forward,
        kernel,
        plainly_halved if halves else plainly,
        [_numbers(shape, kind, where, seed) for seed, shape in enumerate(shapes)],
    )


def _by_gate(gate: Tensor, up: Tensor, *, gelu: bool) -> Tensor:
    from .triton_kernels import gated

    return gated(gate, up, gelu=gelu)


def _by_halves(both: Tensor, *, gelu: bool) -> Tensor:
    from .triton_kernels import gated_halves

    return gated_halves(both, gelu=gelu)


@functools.cache
def _rotations() -> tuple[tuple[Any, bool], ...]:
    """Return functions that turn heads, and whether they leave the end of each as it is where angles are fewer."""
    from transformers.models.gpt_neox import modeling_gpt_neox
    from transformers.models.llama import modeling_llama
    from transformers.models.phi3 import modeling_phi3

    known = ((modeling_llama, False), (modeling_phi3, True), (modeling_gpt_neox, True))
    return tuple((getattr(each, ROTATE), partly) for each, partly in known)


def _rotary(module: nn.Module, kind: torch.dtype) -> Candidate | None:
    from transformers.models.llama.modeling_llama import rotate_half

    own = type(module).forward
    if not isinstance(own, FunctionType) or ROTATE not in own.__code__.co_names or kind not in TOLERANCE:
        return None
    plain = own.__globals__.get(ROTATE)
    half = getattr(plain, "__globals__", {}).get("rotate_half")
    size = getattr(module, "head_dim", None) or getattr(module, "head_size", None)
    heads = getattr(getattr(module, "config", None), "num_attention_heads", 1)
    known = [partly for each, partly in _rotations() if _same(plain, each)]
    if not known or not _same(half, rotate_half) or size is None:
        return None
    where, angles = _device(module), size // 4 * 2 if known[0] else size
    cos, sin = (_numbers((1, PROBED_ROWS, angles), kind, where, seed) for seed in (1, 2))
    return Candidate(
        ROTARY,
        (type(module), size, heads, kind),
        module,
        MethodType(_rebound(own, kind, partly=known[0]), module),
        lambda heads: _by_turning(heads, cos, sin),
        lambda heads: plain(heads, heads, cos, sin)[0],  # type: ignore[misc]  # its type is not known
        [_numbers((1, PROBED_ROWS, heads, size), kind, where).transpose(1, 2)],
    )


def _by_turning(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    from .triton_kernels import turned

    return turned(heads, cos, sin)


@functools.cache
def _rebound(forward: FunctionType, kind: torch.dtype, *, partly: bool) -> FunctionType:
    """Return the forward of an attention class that turns heads by the kernel, or their beginnings where these may be
    fewer than they have numbers; the class keeps its own."""
    plain = forward.__globals__[ROTATE]

    def rotate(queries: Tensor, keys: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        fits = queries.shape[-1] >= cos.shape[-1] if partly else queries.shape[-1] == cos.shape[-1]
        if unsqueeze_dim != 1 or not _are(kind, queries, keys, cos, sin) or not fits:
            return plain(queries, keys, cos, sin, unsqueeze_dim)
        return _by_turning(queries, cos, sin), _by_turning(keys, cos, sin)

    known = {**forward.__globals__, ROTATE: rotate}
    found = FunctionType(forward.__code__, known, forward.__name__, forward.__defaults__, forward.__closure__)
    found.__kwdefaults__ = forward.__kwdefaults__
    return found


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
