"""RMSNorm, gated products and rotary embeddings in one Triton kernel each, forward and backward.

They read and write each number once where torch goes over it four to nine times, and keep their inputs alone. Sums are
in float32, no input is overwritten, and nothing is added up in an order of chance. Rounding is where transformers
rounds, so that the two differ in the last digit of the type at most, and in few places. `elementwise` decides what
computes by them; nothing else imports this, because it takes Triton.

liger-kernel 0.8.5 has the same: its kernels overwrite what autograd keeps for others, most of them do not run in the
interpreter of the Triton that torch pins (so no test could hold them without a GPU), and it takes 2 s to import.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .derived import applied

ELEMENTS = 2048
"""Numbers that one program of a kernel takes, unless a row is longer."""
LONGEST_ROW = 65536
"""Numbers in a row that a program holds at most."""


def rms_norm(inputs: Tensor, weight: Tensor, eps: float, *, offset: int, rounded: bool) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * (offset + w) of x [..., n] and w [n] of the same type.

    Args:
        inputs, weight: x and w.
        eps: what is added to the mean.
        offset: 1 in Gemma's, whose weights are differences from 1.
        rounded: the product with w is one of numbers in the type of x (Llama's), else it is in float32.

    Raises:
        ValueError: n is more than LONGEST_ROW.
    """
    if inputs.shape[-1] > LONGEST_ROW:
        raise ValueError(f"a row of {inputs.shape[-1]} numbers is longer than {LONGEST_ROW}")
    return applied(_Norm, inputs, weight, eps, offset, rounded)


def gated(gate: Tensor, up: Tensor, *, gelu: bool) -> Tensor:
    """Return f(gate) * up of two [..., n] of the same type; f is SiLU, or GELU by tanh (arXiv 1606.08415, 2)."""
    return applied(_Gated, gate, up, gelu)


def gated_halves(both: Tensor, *, gelu: bool) -> Tensor:
    """Return f(gate) * up [..., n] of one [..., 2 n], of which gate is the first half and up the second."""
    return applied(_GatedHalves, both, gelu)


def turned(inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x * cos + rotate_half(x) * sin (arXiv 2104.09864) of heads x [B, heads, T, n] and angles [B or 1, T, m].

    Of x the first m are turned, and the others stay. The result has the same shape, and lies in memory as
    [B, T, heads, n].
    """
    return applied(_Turned, inputs, cos, sin)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, eps: float, offset: int, rounded: bool) -> Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        output = torch.empty_like(rows)
        _norm_forward[_grid(rows)](rows, weight, output, *rows.shape, eps, offset, rounded, **_tile(rows))
        ctx.save_for_backward(rows, weight)
        ctx.settings = (eps, offset, rounded)
        return output.view(inputs.shape)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        rows, weight = ctx.saved_tensors
        eps, offset, rounded = ctx.settings
        above = upstream.reshape(rows.shape).contiguous()
        to_inputs = torch.empty_like(rows)
        _norm_backward[_grid(rows)](rows, weight, above, to_inputs, *rows.shape, eps, offset, rounded, **_tile(rows))
        to_weight = None
        if ctx.needs_input_grad[1]:
            wide = rows.float()
            normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
            to_weight = (above.float() * normed).sum(0).to(weight.dtype)
        return to_inputs.view(upstream.shape), to_weight, None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, gelu: bool) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        output = torch.empty_like(gate)
        _gated_forward[_blocks(gate)](gate, up, output, gate.numel(), 0, gelu, False, ELEMENTS)
        ctx.save_for_backward(gate, up)
        ctx.gelu = gelu
        return output

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
        _gated_backward[_blocks(gate)](
            gate, up, upstream.contiguous(), to_gate, to_up, gate.numel(), 0, ctx.gelu, False, ELEMENTS
        )
        return to_gate, to_up, None


class _GatedHalves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, gelu: bool) -> Tensor:
        both = both.contiguous()
        gate, up = both.chunk(2, -1)
        output = torch.empty(gate.shape, dtype=both.dtype, device=both.device)
        _gated_forward[_blocks(gate)](gate, up, output, gate.numel(), gate.shape[-1], gelu, True, ELEMENTS)
        ctx.save_for_backward(both)
        ctx.gelu = gelu
        return output

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (both,) = ctx.saved_tensors
        to_both = torch.empty_like(both)
        (gate, up), (to_gate, to_up) = both.chunk(2, -1), to_both.chunk(2, -1)
        _gated_backward[_blocks(gate)](
            gate, up, upstream.contiguous(), to_gate, to_up, gate.numel(), gate.shape[-1], ctx.gelu, True, ELEMENTS
        )
        return to_both, None


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(inputs, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _turn(upstream, cos, sin, back=True), None, None


def _turn(inputs: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    lines, heads, length, whole = inputs.shape
    size = cos.shape[-1]
    inputs = inputs if inputs.stride(-1) == 1 else inputs.contiguous()
    cos, sin = (each.contiguous().expand(lines, length, size) for each in (cos, sin))
    output = torch.empty((lines, length, heads, whole), dtype=inputs.dtype, device=inputs.device).transpose(1, 2)
    if size < whole:
        output[..., size:] = inputs[..., size:]
    _turn_kernel[(lines * length,)](
        inputs,
        cos,
        sin,
        output,
        length,
        heads,
        size // 2,
        *inputs.stride()[:3],
        *output.stride()[:3],
        *cos.stride()[:2],
        back,
        triton.next_power_of_2(heads),
        triton.next_power_of_2(size // 2),
    )
    return output


def _tile(rows: Tensor) -> dict[str, int]:
    """Return how many rows a program takes, and how long they are to it."""
    width = triton.next_power_of_2(rows.shape[1])
    return {"ROWS": max(1, ELEMENTS // width), "WIDTH": width, "num_warps": 4 if width <= ELEMENTS else 8}


def _grid(rows: Tensor) -> tuple[int]:
    return (triton.cdiv(rows.shape[0], _tile(rows)["ROWS"]),)


def _blocks(numbers: Tensor) -> tuple[int]:
    return (triton.cdiv(numbers.numel(), ELEMENTS),)


@triton.jit
def _norm_forward(
    inputs,
    weight,
    output,
    rows,
    width,
    eps,
    OFFSET: tl.constexpr,
    ROUNDED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there = (row < rows)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    kind = output.dtype.element_ty
    x = tl.load(inputs + place, mask=there, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32) + OFFSET
    normed = x * tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)[:, None]
    if ROUNDED:
        normed = normed.to(kind).to(tl.float32)
    tl.store(output + place, (normed * w[None, :]).to(kind), mask=there)


@triton.jit
def _norm_backward(
    inputs,
    weight,
    upstream,
    to_inputs,
    rows,
    width,
    eps,
    OFFSET: tl.constexpr,
    ROUNDED: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    there = (row < rows)[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    kind = to_inputs.dtype.element_ty
    x = tl.load(inputs + place, mask=there, other=0.0).to(tl.float32)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32) + OFFSET
    above = tl.load(upstream + place, mask=there, other=0.0).to(tl.float32) * w[None, :]
    if ROUNDED:
        above = above.to(kind).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)[:, None]
    normed = x * scale
    along = (tl.sum(above * normed, axis=1) / width)[:, None]
    tl.store(to_inputs + place, (scale * (above - normed * along)).to(kind), mask=there)


@triton.jit
def _gated_forward(gate, up, output, count, width, GELU: tl.constexpr, HALVES: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < count
    at = place
    if HALVES:  # of lines that are twice as wide
        at = place + place // width * width
    kind = output.dtype.element_ty
    x = tl.load(gate + at, mask=there, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=there, other=0.0).to(tl.float32)
    inner = x
    if GELU:  # (1 + tanh(z)) / 2 is the sigmoid of 2 z, where z = sqrt(2 / pi) (x + 0.044715 x^3)
        inner = 2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x)
    active = (x * tl.sigmoid(inner)).to(kind).to(tl.float32)
    tl.store(output + place, (active * u).to(kind), mask=there)


@triton.jit
def _gated_backward(
    gate,
    up,
    upstream,
    to_gate,
    to_up,
    count,
    width,
    GELU: tl.constexpr,
    HALVES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < count
    at = place
    if HALVES:
        at = place + place // width * width
    kind = to_gate.dtype.element_ty
    x = tl.load(gate + at, mask=there, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=there, other=0.0).to(tl.float32)
    above = tl.load(upstream + place, mask=there, other=0.0).to(tl.float32)
    inner, slope = x, 1.0
    if GELU:
        inner = 2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x)
        slope = 2.0 * 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * x * x)
    share = tl.sigmoid(inner)
    active = (x * share).to(kind).to(tl.float32)
    toward_active = (above * u).to(kind).to(tl.float32)
    tl.store(to_up + at, (above * active).to(kind), mask=there)
    tl.store(to_gate + at, (toward_active * (share + x * share * (1.0 - share) * slope)).to(kind), mask=there)


@triton.jit
def _turn_kernel(
    inputs,
    cos,
    sin,
    output,
    length,
    heads,
    half,
    of_line,
    of_head,
    of_token,
    to_line,
    to_head,
    to_token,
    angle_line,
    angle_token,
    BACK: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    line, token = tl.program_id(0).to(tl.int64) // length, tl.program_id(0).to(tl.int64) % length
    head, column = tl.arange(0, HEADS), tl.arange(0, HALF)
    there = (head < heads)[:, None] & (column < half)[None, :]
    angle = line * angle_line + token * angle_token + column
    near, far = column < half, column + half
    first_cos = tl.load(cos + angle, mask=near, other=0.0).to(tl.float32)[None, :]
    second_cos = tl.load(cos + angle + half, mask=near, other=0.0).to(tl.float32)[None, :]
    first_sin = tl.load(sin + angle, mask=near, other=0.0).to(tl.float32)[None, :]
    second_sin = tl.load(sin + angle + half, mask=near, other=0.0).to(tl.float32)[None, :]
    place = line * of_line + token * of_token + head[:, None] * of_head
    first = tl.load(inputs + place + column[None, :], mask=there, other=0.0).to(tl.float32)
    second = tl.load(inputs + place + far[None, :], mask=there, other=0.0).to(tl.float32)
    kind = output.dtype.element_ty
    if BACK:
        left, right = first * first_cos + second * second_sin, second * second_cos - first * first_sin
    else:
        left, right = first * first_cos - second * first_sin, second * second_cos + first * second_sin
    place = line * to_line + token * to_token + head[:, None] * to_head
    tl.store(output + place + column[None, :], left.to(kind), mask=there)
    tl.store(output + place + far[None, :], right.to(kind), mask=there)
