"""What serving engines would not take of an adapter, told before it is trained: vLLM 0.32, `vllm/lora`.

These are warnings: an adapter may be meant for something else than an AdapterRollout.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base.layers import JOINED
from .contract import LoraSettings

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's `--max-lora-rank` (`MaxLoRARanks`)."""


def serving_warnings(lora: LoraSettings, parameters: Sequence[str]) -> list[str]:
    """Return what an engine would refuse or waste, a sentence each.

    Args:
        lora: the settings.
        parameters: names of the joined tensors of experts that they adapt.
    """
    warnings = []
    if lora.use_dora:
        warnings.append(
            "lora.useDora: engines do not serve DoRA, so an AdapterRollout of this adapter will be refused; leave "
            "it out if the adapter is to be served"
        )
    if lora.rank not in RANKS:
        fits = min(rank for rank in RANKS if rank >= lora.rank)
        warnings.append(
            f"lora.rank: vLLM has no --max-lora-rank {lora.rank}; serve this adapter with {fits}, whose room it takes"
        )
    adapted = {name.rpartition(".")[2] for name in parameters}
    if adapted and adapted != set(JOINED):
        warnings.append(
            f"lora.targetParameters: vLLM serves adapters of experts where {' and '.join(JOINED)} are both adapted, "
            "and of those kinds that it holds joined itself; an AdapterRollout of this adapter will be refused"
        )
    elif adapted:
        warnings.append(
            "lora.targetParameters: vLLM serves adapters of experts of those kinds alone that it holds joined itself, "
            "as gpt_oss and qwen3_vl_moe; an AdapterRollout for another is refused"
        )
    return warnings
