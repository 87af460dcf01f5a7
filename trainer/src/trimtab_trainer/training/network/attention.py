"""Attention of packed sequences row by row, registered with transformers under the name BY_ROWS.

Under a mask of [B, 1, T, T] every token is compared with all of its line, and on CUDA FlashAttention is out of reach.
Here each row is computed alone: on CUDA all in one call of variable lengths (torch.nn.attention.varlen), elsewhere one
after another, causal without a mask, which on a processor takes half to two thirds of the time. What is no packed
batch goes to torch's own attention as transformers calls it. `model.LanguageModel` turns it on, and `probe` makes sure
that a model hands the layout through to every layer; where it does not, attention stays under masks.

Models that transformers runs in its eager attention (soft caps on scores, sinks) and those whose layers attend by
chunks keep that, under masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .rows import RowLayout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BY_ROWS, UNDER_MASKS = "trimtab_by_rows", "sdpa"
"""Names of attention functions in transformers."""
LAYOUT = "row_layout"
"""The argument by which models hand the layout through to attention."""
FLASH_HEADS = 256
"""Largest head that FlashAttention computes."""
FLASH_CAPABILITY = (8, 0)
AWKWARD_HEADS, ROOMY = range(193, 225), ((8, 0), (9, 0))
"""Sizes of heads of which it computes gradients on these accelerators alone (A100, H100)."""

_laid: ContextVar[bool] = ContextVar("laid", default=False)


def supports_rows(model: PreTrainedModel) -> bool:
    """Tell whether a model's attention can be computed by rows: it calls torch's, and knows of windows what to pass.

    Models that support FlashAttention pass window and scale to the attention function, because it makes no mask.
    """
    config = model.config.get_text_config()
    return (
        config._attn_implementation == UNDER_MASKS
        and bool(getattr(model, "_supports_flash_attn", False))
        and getattr(config, "attention_chunk_size", None) is None
    )


def attend_by_rows(model: PreTrainedModel) -> None:
    """Compute packed batches by rows from now on, in a model that `supports_rows`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(BY_ROWS, attention)
    AttentionMaskInterface.register(BY_ROWS, mask)
    model.set_attn_implementation(BY_ROWS)


def attend_under_masks(model: PreTrainedModel) -> None:
    """Compute packed batches as transformers does."""
    model.set_attn_implementation(UNDER_MASKS)


@contextmanager
def laid() -> Iterator[None]:
    """Make no masks for causal attention: the layers are given the layout."""
    token = _laid.set(True)
    try:
        yield
    finally:
        _laid.reset(token)


def mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Return the mask that transformers asks for, None where the layout takes its place (`sdpa_mask`'s arguments)."""
    from transformers.masking_utils import sdpa_mask

    causal = not (kwargs.get("use_vmap") or kwargs.get("allow_is_bidirectional_skip"))
    if _laid.get() and causal and kwargs.get("attention_mask") is None:
        return None
    made: Tensor | None = sdpa_mask(*args, **kwargs)
    return made


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return attention [B, T, heads, head size] of queries [B, heads, T, head size]; transformers' attention function.

    `row_layout` among the arguments says where rows lie; without it, or with a mask, it is torch's own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    plainly: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward
    layout: RowLayout | None = kwargs.pop(LAYOUT, None)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if layout is None or attention_mask is not None or not causal or query.shape[2] != sum(layout.lines[0]):
        return plainly(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    if any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "s_aux")):
        return plainly(module, query, key, value, layout.mask(window), **kwargs)
    dropout, scale = float(kwargs.get("dropout") or 0.0), kwargs.get("scaling")
    if runs_flash(query, value, dropout):
        return by_lengths(query, key, value, layout, window=window, scale=scale), None
    return by_rows(query, key, value, layout, window=window, scale=scale, dropout=dropout), None


def runs_flash(query: Tensor, value: Tensor, dropout: float = 0.0) -> bool:
    """Tell whether attention of variable lengths can be computed in one call, by FlashAttention."""
    return (
        query.is_cuda
        and torch.version.cuda is not None
        and (capability := torch.cuda.get_device_capability(query.device)) >= FLASH_CAPABILITY
        and not (query.shape[-1] in AWKWARD_HEADS and capability not in ROOMY)
        and _type_of_products(query) in (torch.bfloat16, torch.float16)
        and query.shape[-1] == value.shape[-1] <= FLASH_HEADS
        and query.shape[-1] % 8 == 0
        and not dropout
    )


def by_lengths(
    query: Tensor, key: Tensor, value: Tensor, layout: RowLayout, *, window: int | None, scale: float | None
) -> Tensor:
    """Return attention [B, T, heads, head size] of all rows in one call; see `by_rows`."""
    from torch.nn.attention.varlen import varlen_attn

    lines, heads, width, size = query.shape
    kind = _type_of_products(query)
    q, k, v = (
        each.transpose(1, 2).reshape(lines * width, each.shape[1], size).to(kind) for each in (query, key, value)
    )
    longest = layout.longest
    output = varlen_attn(
        q,
        k,
        v,
        layout.starts,
        layout.starts,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None or window >= longest else window - 1, 0),
        enable_gqa=heads != key.shape[1],
    )
    assert isinstance(output, Tensor)
    return output.view(lines, width, heads, size)


def by_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: RowLayout,
    *,
    window: int | None,
    scale: float | None,
    dropout: float = 0.0,
) -> Tensor:
    """Return attention [B, T, heads, head size], one row after another.

    Args:
        query: [B, heads, T, head size].
        key, value: [B, groups of heads, T, head size].
        window: tokens that one attends to at most, itself among them; all before it if absent.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.device.type != "cpu":
        # There torch computes grouped heads by FlashAttention, or with the scores of all pairs of tokens in memory.
        key, value, groups = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), 1
    found = []
    for line, lengths in enumerate(layout.lines):
        # Split, not sliced: the gradient of a slice is a whole line of zeros.
        parts = zip(
            *(torch.split(each[line : line + 1], list(lengths), 2) for each in (query, key, value)), strict=True
        )
        for length, (q, k, v) in zip(lengths, parts, strict=True):
            near = None if window is None or length <= window else _near(length, window, query.device)
            row = functional.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=near,
                dropout_p=dropout,
                is_causal=near is None,
                scale=scale,
                enable_gqa=groups > 1,
            )
            found.append(row.transpose(1, 2))
    return torch.cat(found, 1).view(query.shape[0], query.shape[2], query.shape[1], -1)


def _near(length: int, window: int, where: torch.device) -> Tensor:
    distance = torch.arange(length, device=where)[:, None] - torch.arange(length, device=where)
    return (distance >= 0) & (distance < window)


def _type_of_products(query: Tensor) -> torch.dtype:
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
