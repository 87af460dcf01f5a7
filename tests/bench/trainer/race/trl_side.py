"""TRL's side of the race: SFTTrainer at its fastest, given the sequences, the first adapter and the order of ours.

Its defaults are changed where they cost it time: no activation checkpointing, the fused AdamW, no logging of steps but
the loss, and (`rows`) sequences one a line, each with its own positions, where its collator would join all in one line
under one mask. Weights of its adapter are bfloat16, as it sets them for QLoRA.
"""

from __future__ import annotations

import tempfile
from typing import Any

from .work import ALPHA, GRADIENT_NORM, LEARNING_RATE, RANK, SEED, Clock, Work, packed


def run(work: Work, started: float) -> dict[str, Any]:
    """Train and return the figures of `Clock`."""
    from trimtab_trainer.training.machine import hardware

    hardware.configure()
    import numpy as np
    import torch
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
    from transformers.utils import is_flash_attn_2_available, logging
    from trimtab_trainer.contract import TrainingSettings
    from trimtab_trainer.contract.settings import ComputeType
    from trimtab_trainer.training.batches import IGNORED, Batches
    from trimtab_trainer.training.network.adapter import published_name
    from trimtab_trainer.training.schedule import sequences_of_step
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    logging.set_verbosity_error()
    disable_progress_bar()
    steps = work.steps + 1
    batches = Batches(packed(work.length, work.batch * min(steps, 50)))
    settings = TrainingSettings.model_validate({"batchSize": work.batch, "seed": SEED, "maxSteps": steps})
    order = np.concatenate([sequences_of_step(settings, len(batches), step) for step in range(steps)])
    tokens = [int(batches.lengths[sequences_of_step(settings, len(batches), step)].sum()) for step in range(steps)]
    clock = Clock(started, tokens)

    def sequence(index: int) -> dict[str, list[int]]:
        chosen = slice(int(batches.sequences.offsets[index]), int(batches.sequences.offsets[index + 1]))
        positions = batches.sequences.positions[chosen]
        starts = [*np.flatnonzero(positions == 0).tolist(), len(positions)]
        wanted = np.full(len(positions), IGNORED)  # TRL's labels stand at the predicted token itself
        wanted[1:] = batches.targets[chosen][:-1]
        return {
            "input_ids": batches.sequences.tokens[chosen].tolist(),
            "labels": wanted.tolist(),
            "seq_lengths": np.diff(starts).tolist(),
        }

    def lines(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(one["input_ids"]) for one in examples)
        laid = {name: torch.zeros((len(examples), width), dtype=torch.int64) for name in ("input_ids", "position_ids")}
        laid["labels"] = torch.full((len(examples), width), IGNORED, dtype=torch.int64)
        for line, one in enumerate(examples):
            length = len(one["input_ids"])
            laid["input_ids"][line, :length] = torch.tensor(one["input_ids"])
            laid["labels"][line, :length] = torch.tensor(one["labels"])
            positions = torch.cat([torch.arange(each) for each in one["seq_lengths"]])
            laid["position_ids"][line] = torch.cat([positions, positions[-1] + 1 + torch.arange(width - length)])
        return laid

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(dataset or self.train_dataset)

    class Times(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ended()

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    where = hardware.device()
    kind = hardware.compute_type(ComputeType(work.compute), where)
    scheme = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=kind
    )
    base = AutoModelForCausalLM.from_pretrained(
        str(work.base_model),
        dtype=kind,
        quantization_config=scheme,
        local_files_only=True,
        device_map={"": where},
        attn_implementation="flash_attention_2" if where.type == "cuda" and is_flash_attn_2_available() else None,
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = InOrder(
            model=base,
            args=SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=work.micro_batch,
                gradient_accumulation_steps=work.batch // work.micro_batch,
                learning_rate=LEARNING_RATE,
                lr_scheduler_type="constant",
                max_grad_norm=GRADIENT_NORM,
                optim="adamw_torch_fused",
                gradient_checkpointing=False,
                bf16=kind is torch.bfloat16,
                use_cpu=where.type == "cpu",
                packing=not work.rows,
                max_length=work.length,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=where.type == "cuda",
                seed=SEED,
            ),
            train_dataset=Dataset.from_list([sequence(int(index)) for index in order]),
            data_collator=lines if work.rows else None,
            processing_class=_tokenizer(),
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=RANK,
                lora_alpha=ALPHA,
                lora_dropout=work.dropout,
                target_modules="all-linear",
            ),
            callbacks=[Times()],
        )
        _begin_alike({published_name(n): p for n, p in trainer.model.named_parameters() if ".lora_" in n})
        trainer.train()
    return clock.figures(hardware.memory_peak(where) or 0)


def _begin_alike(parameters: dict[str, Any]) -> None:
    """Give the adapter the weights with which `add_adapter` begins: of a seed, in the order of names."""
    import math

    import torch

    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in sorted(parameters.items()):
        fresh = torch.zeros(parameter.shape)
        if ".lora_A." in name:
            torch.nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
        parameter.data.copy_(fresh)


def _tokenizer() -> Any:
    """Return a tokenizer that SFTTrainer asks for its padding; no text passes it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
