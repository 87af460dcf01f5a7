"""What vLLM takes of an adapter, told from its adapter_config.json before an accelerator is asked for. No torch.

vLLM 0.32, `vllm/lora/peft_helper.py` (`validate_legal`) and `vllm/config/lora.py` (`MaxLoRARanks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...contract import Reason
from ...errors import SettingsInvalid
from ...serving_limits import RANKS
from ..preparing.adapters import VerifiedAdapter


def check_adapters(adapters: Mapping[str, VerifiedAdapter | None]) -> None:
    """Refuse adapters that the engine would refuse, before it is started.

    Args:
        adapters: by their role: target, baseline, anchor; None is the base model alone.

    Raises:
        SettingsInvalid: ENGINE_REFUSED.
    """
    for role, adapter in adapters.items():
        why = trouble(adapter.config()) if adapter is not None else None
        if adapter is not None and why is not None:
            raise SettingsInvalid(
                f"the {role} at {adapter.uri} cannot be asked of vLLM: {why}; leave engine out to ask it by "
                "Transformers",
                Reason.ENGINE_REFUSED,
            )


def rank_of(config: dict[str, Any]) -> int:
    """Return the largest rank that an adapter_config.json names."""
    pattern = config.get("rank_pattern")
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=0)


def rank_for(rank: int) -> int:
    """Return the value of `--max-lora-rank` that a rank fits into."""
    return min((each for each in RANKS if each >= rank), default=RANKS[-1])


def trouble(config: dict[str, Any]) -> str | None:
    """Return what vLLM does not take of an adapter with this adapter_config.json, None if it takes it."""
    if config.get("use_dora"):
        return "it is a DoRA"
    if rank_of(config) > RANKS[-1]:
        return f"its rank is {rank_of(config)}, and vLLM takes at most {RANKS[-1]}"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "it has biases"
    for name in ("modules_to_save", "layer_replication", "alora_invocation_tokens", "use_bdlora", "use_qalora"):
        if config.get(name):
            return f"its {name} is set"
    return None
