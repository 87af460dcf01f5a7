"""What stands beside an adapter in the folders that others write: each function makes that of peft into one of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.trainer.tiny import CHATML

CONFIG = "adapter_config.json"


def as_peft(folder: Path, base: Path) -> None:
    """Nothing else."""


def as_trl(folder: Path, base: Path) -> None:
    """SFTTrainer.save_model: the tokenizer, its arguments as a pickle, a model card."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder / name)
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "training_args.bin").write_bytes(b"\x80\x05cposix\nsystem\n")


def as_unsloth(folder: Path, base: Path) -> None:
    """Modules as an expression, the base by the name of a quantized copy, a padding token that was added."""
    edit(
        folder,
        base_model_name_or_path="unsloth/tiny-bnb-4bit",
        target_modules=r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|v_proj|down_proj).*?)|"
        r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:q_proj|v_proj|down_proj))",
        task_type=None,
    )
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 400, "content": "<|PAD_TOKEN|>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def as_llama_factory(folder: Path, base: Path) -> None:
    """Logs, states, checkpoints with an optimizer, and the base by a path of its machine."""
    as_trl(folder, base)
    edit(folder, base_model_name_or_path="/mnt/models/tiny", lora_dropout=0.1, inference_mode=True)
    for name in ("trainer_log.jsonl", "all_results.json", "trainer_state.json", "training_loss.png"):
        (folder / name).write_text("{}")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"\x80\x05")


def edit(folder: Path, **settings: Any) -> None:
    file = folder / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
