"""The model card (README.md) of an exported model: what it was made of, and what that means."""

from __future__ import annotations

from ..contract import ExportFormat
from ..contract.settings import QuantizationType
from .request import Request


def model_card(request: Request) -> str:
    """Return the Markdown text: of what the model is made from alone, as its folder's name is."""
    config, quantization = request.config, request.quantization
    library = "llama.cpp" if config.format is ExportFormat.GGUF else "transformers"
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags: [trimtab, {config.format.value.lower()}]
---

# {request.name}

A language model of its own: a base model with a LoRA adapter merged into it by Trimtab. It needs neither any more.

| | |
| --- | --- |
| Adapter | `{request.adapter.digest}` |
| Base model | `{request.base_digest}` |
| Weights | {config.weight_type.value} |
| Training held the base in | {quantization.type.value}, computing in {request.compute_type} |

{_meaning(request)}

What the adapter was trained on, and how well it does, stands with the adapter. The licence is that of the base model.
"""


def _meaning(request: Request) -> str:
    rounding = (
        "Sums were computed in float32 and rounded once, to bfloat16: it is the model that was trained, up to that."
        if request.config.weight_type.value == "BFloat16"
        else "Sums were computed and stored in float32: it is the model that was trained."
    )
    if request.quantization.type is QuantizationType.NONE:
        return rounding
    return (
        f"The adapter was trained over the base in {request.quantization.type.value} and has learned to mend what "
        "that loses, so it was merged into these quantized weights, dequantized, and not into the original ones. "
        f"{rounding}"
    )
