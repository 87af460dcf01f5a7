"""How long training takes on an accelerator: operations at the share of its peak that such runs reach, and weights that
are dequantized once a pass.

A token costs 4 operations a weight with a frozen base (forward, and backward to the activations alone), 6 where all
weights are trained, and 2 more where activations are computed twice. Published LoRA runs on H100 and A100 reach 30 to
43 % of the peak, counted so; QLoRA is taken at the lower end. Nothing of this was measured here: it says whether a run
takes an hour or a day.
"""

from __future__ import annotations

from ..contract import QuantizationSettings
from ..contract.settings import QuantizationType
from .devices import Device
from .dimensions import Dimensions

SHARE = 0.3
"""Of the peak, in products."""
DEQUANTIZED_BYTES = 2.5
"""Moved for each weight and pass: half a byte read, two written."""


def tokens_per_second(
    dims: Dimensions, quantization: QuantizationSettings, device: Device, tokens: int, *, recomputed: float
) -> float:
    """Return the tokens a second of passes of so many tokens, with a share of layers computed twice."""
    linear = sum(each.ins * each.outs for each in dims.linear) + dims.vocabulary * dims.hidden
    active = linear + 3 * dims.layers * dims.experts_at_once * dims.expert_inner * dims.hidden
    products = ((6 if dims.full else 4) + 2 * recomputed) * active * tokens / (SHARE * device.products)
    quantized = linear if quantization.type is QuantizationType.NF4 else 0
    moved = (2 + recomputed) * quantized * DEQUANTIZED_BYTES / device.bandwidth
    return tokens / (products + moved)
