"""The tiny model as evaluations meet it: bare or with an adapter that does something, plain or in NF4."""

from __future__ import annotations

from pathlib import Path

import torch
from trimtab_trainer.training.network.model import LanguageModel

from tests.trainer.train.runs import CPU, adapted, plain_base, run_config, shake

KINDS = ("None", "NF4")


def bare_model(base: Path, quantization: str = "None") -> LanguageModel:
    """Return the tiny base model alone, in float32."""
    return LanguageModel(plain_base(base, quantization), torch.float32)


def adapted_model(base: Path, quantization: str = "None", scale: float = 0.05) -> LanguageModel:
    """Return the tiny model with an adapter that changes every answer."""
    model = adapted(base, run_config(base.parent, quantization={"type": quantization}))
    shake(model, scale)
    model.peft.eval()
    return model


__all__ = ["CPU", "KINDS", "adapted_model", "bare_model"]
