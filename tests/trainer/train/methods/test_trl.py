"""Losses and gradients are those of TRL's own trainers, on the same tokens and with the same adapter, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trimtab_trainer.contract import RunConfig
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.training.methods.batches import PreferenceBatches
from trimtab_trainer.training.methods.figures import PreferenceSums
from trimtab_trainer.training.methods.mismatched import mismatched
from trimtab_trainer.training.methods.objective import objective_of
from trimtab_trainer.training.network.adapter import Adapted

from tests.trainer.train.methods.preferences import Answer, random_answers, side, with_reference
from tests.trainer.train.runs import CPU, adapted, run_config, shake

UNITS, LIMIT = 6, 128
LABELS = [True, False, True, True, False, False]
COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DPO": ({"method": "DPO", "preference": {"beta": 0.3}}, {"loss_type": "sigmoid", "beta": 0.3}),
    "DPO, hinge": ({"method": "DPO", "preference": {"loss": "Hinge"}}, {"loss_type": "hinge"}),
    "IPO": ({"method": "DPO", "preference": {"loss": "IPO", "beta": 0.5}}, {"loss_type": "ipo", "beta": 0.5}),
    "robust DPO": (
        {"method": "DPO", "preference": {"loss": "Robust", "labelSmoothing": 0.2}},
        {"loss_type": "robust", "label_smoothing": 0.2},
    ),
    "KTO": (
        {"method": "KTO", "preference": {"beta": 0.2, "desirableWeight": 1.5, "undesirableWeight": 0.7}},
        {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.7},
    ),
    "ORPO": ({"method": "ORPO", "preference": {"beta": 0.4}}, {"beta": 0.4}),
}


def padded(rows: list[list[int]], value: int = 0) -> Tensor:
    """Return rows of one length, padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def as_trl(answers: list[Answer], prefix: str = "") -> dict[str, Tensor]:
    """Return answers as TRL's collators give them."""
    return {
        f"{prefix}input_ids": padded([p + a for p, a in answers]),
        f"{prefix}attention_mask": padded([[1] * len(p + a) for p, a in answers]),
        f"{prefix}completion_mask": padded([[0] * len(p) + [1] * len(a) for p, a in answers]),
    }


def trl_loss(method: str, model: Adapted, tiny: Path, root: Path, units: list[list[Answer]]) -> tuple[Tensor, Any]:
    """Return what TRL's trainer says of a batch, and its figures."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    kind = METHODS[method][0]["method"]
    configs = {"DPO": DPOConfig, "KTO": KTOConfig, "ORPO": ORPOConfig}
    trainers = {"DPO": DPOTrainer, "KTO": KTOTrainer, "ORPO": ORPOTrainer}
    row = {"prompt": "a", "chosen": "b", "rejected": "c"} if kind != "KTO" else {"prompt": "a", "completion": "b"}
    rows = [row | ({"label": bool(number % 2)} if kind == "KTO" else {}) for number in range(UNITS)]
    arguments = configs[kind](
        output_dir=str(root), per_device_train_batch_size=UNITS, max_length=LIMIT, **COMMON, **METHODS[method][1]
    )
    trainer = trainers[kind](
        model=model.peft,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast.from_pretrained(str(tiny)),
    )
    # TRL keeps a copy of an adapter that it is given, as the reference: what is given is fresh, and says what the base
    # says. Only now it learns something.
    shake(model)
    model.peft.train()
    if kind == "ORPO":
        batch: dict[str, Tensor] = {}
        for name, number in (("chosen", 0), ("rejected", 1)):
            answers = [unit[number] for unit in units]
            laid = as_trl(answers)
            batch |= {f"{name}_input_ids": laid["input_ids"], f"{name}_attention_mask": laid["attention_mask"]}
            batch[f"{name}_labels"] = laid["input_ids"].masked_fill(laid["completion_mask"] == 0, -100)
        loss, figures = trainer.get_batch_loss_metrics(model.peft, batch)
        return loss, figures
    if kind == "DPO":
        inputs = as_trl([unit[number] for number in (0, 1) for unit in units])
    else:
        answers = [unit[0] for unit in units]
        others = [(prompt, answers[number - 1][1]) for number, (prompt, _) in enumerate(answers)]
        inputs = as_trl(answers) | as_trl(others, "KL_") | {"label": torch.tensor(LABELS)}
    loss = trainer.compute_loss(model.peft, inputs)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def own_loss(
    model: Adapted, config: RunConfig, sequences: Sequences, root: Path, *, micro_batch: int, side_by_side: bool
) -> tuple[float, PreferenceSums]:
    """Return what is said of the same batch here; gradients are left in the parameters."""
    training = config.training
    split = PreferenceBatches(sequences, side_by_side=side_by_side, with_prompts=training.method.value == "ORPO")
    if training.method.value == "KTO":
        split.mismatched = PreferenceBatches(mismatched(sequences, LIMIT), side_by_side=side_by_side)
    if training.method.needs_reference:
        with_reference(split, model, root)
    shake(model)
    indices = np.arange(len(split))
    step = objective_of(training).begin(model, split, indices, micro_batch, Interruption())
    total = 0.0
    model.peft.train()
    for batch in split.micro_batches(indices, micro_batch, CPU):
        loss = step(model.hidden(batch), batch, model.head) / step.weight
        loss.backward()
        total += loss.item()
    assert step.sums is not None
    return total, step.sums


def gradient_of(model: Adapted) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("method", METHODS)
def test_loss_gradient_and_figures_are_those_of_trl(tiny: Path, tmp_path: Path, method: str) -> None:
    # TRL makes the adapter of a quantized base bfloat16, so the base is none here.
    config = run_config(tmp_path, training=METHODS[method][0], quantization={"type": "None"})
    kind = config.training.method.value
    units = random_answers(UNITS, 1 if kind == "KTO" else 2, seed=3)
    sequences = side(units, LABELS if kind == "KTO" else None)
    theirs = adapted(tiny, config)
    expected, figures = trl_loss(method, theirs, tiny, tmp_path / "trl", units)
    expected.backward()
    wanted = gradient_of(theirs)
    assert max(float(each.abs().max()) for each in wanted.values()) > 1e-4, "a gradient of nothing proves nothing"
    for micro_batch, side_by_side in ((UNITS, False), (UNITS, True), (2, True)):
        model = adapted(tiny, config)
        root = tmp_path / f"{micro_batch}-{side_by_side}"
        loss, sums = own_loss(model, config, sequences, root, micro_batch=micro_batch, side_by_side=side_by_side)
        assert loss == pytest.approx(expected.item(), abs=1e-5)
        found = gradient_of(model)
        assert found.keys() == wanted.keys()
        for name, each in found.items():
            assert torch.allclose(each, wanted[name], rtol=1e-4, atol=1e-5), name
        told = sums.figures
        assert told is not None
        for ours, name in (
            (told.accuracy, "rewards/accuracies"),
            (told.margin, "rewards/margins"),
            (told.chosen_reward, "rewards/chosen"),
            (told.rejected_reward, "rewards/rejected"),
        ):
            if name in figures:
                assert ours == pytest.approx(figures[name], rel=1e-4, abs=1e-5), name
