"""Adapters that were really trained, and what they and what is made of them answer."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from trimtab_trainer.contract import Artifact, ExportConfig, Exported, QuantizationSettings, Stage
from trimtab_trainer.exporting.stage import export
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.adapter import load_adapter
from trimtab_trainer.training.network.model import load_base

from tests.trainer.tiny import VOCABULARY
from tests.trainer.train.stage import stage_run

CPU = torch.device("cpu")
NF4 = {"type": "NF4", "computeType": "Float32"}
TOKENS = torch.randint(3, 380, (4, 64), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Trained:
    """A base model and an adapter below one folder."""

    root: Path
    artifact: Artifact

    @property
    def adapter(self) -> Path:
        return self.root / "output" / "adapters" / self.artifact.digest.removeprefix("sha256:")

    def document(self, **changes: Any) -> dict[str, Any]:
        """Return the configuration of an export."""
        return {
            "run": {"name": "guide"},
            "baseModel": {"uri": f"file://{self.root}/base"},
            "adapter": {"uri": f"file://{self.adapter}"},
            "weightType": "Float32",
            "destination": {"uri": f"file://{self.root}/exported"},
        } | changes

    def export(self, scratch: Path, **changes: Any) -> tuple[Exported, Path]:
        """Export it; return what is told of it, and its folder."""
        made = export(
            ExportConfig.model_validate(self.document(**changes)), scratch, Report(stream=io.StringIO()), board()
        )
        return made, Path(made.uri.removeprefix("file://"))

    def logits(self, quantization: dict[str, Any], kind: torch.dtype = torch.float32) -> Tensor:
        """Return what the base model with the adapter on it answers, as it was trained."""
        settings = QuantizationSettings.model_validate(quantization)
        model = load_adapter(load_base(self.root / "base", settings, kind, CPU), self.adapter, kind)
        return answers(model.peft)


def trained(root: Path, make_base: Callable[[Path], Any] | None = None, **sections: Any) -> Trained:
    """Train an adapter that changes something, in float32; `make_base` writes the base model's folder."""
    training = {"learningRate": 0.02, "maxSteps": 4, "evaluateEverySteps": 100} | sections.pop("training", {})
    run = stage_run(root, training=training, make_base=make_base, **sections)
    return Trained(root, run.train()[0])


def board() -> ProgressBoard:
    """Return a fresh board."""
    return ProgressBoard("uid", 0, Stage.EXPORT)


def answers(model: Any, vocabulary: int = VOCABULARY) -> Tensor:
    """Return the logits of random tokens, float32."""
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=TOKENS % vocabulary, use_cache=False).logits.float()
    return found


def loaded(folder: Path, kind: torch.dtype = torch.float32) -> Tensor:
    """Return what a model in a folder answers that anybody loads with transformers."""
    return answers(AutoModelForCausalLM.from_pretrained(folder, dtype=kind))


def divergence(ours: Tensor, theirs: Tensor) -> float:
    """Return the Kullback-Leibler divergence of two models' next tokens, nats per token."""
    there, here = (functional.log_softmax(each.double(), -1).flatten(0, -2) for each in (ours, theirs))
    return float(functional.kl_div(here, there, reduction="batchmean", log_target=True))
