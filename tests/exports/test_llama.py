"""An export of SmolLM2-135M-Instruct in llama.cpp itself: the same tokens of the same text, the same greedy answers.

`make test-exports` builds llama.cpp and names the Python that has it in TRIMTAB_LLAMA.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trimtab_trainer.contract import ExportConfig, StoredBaseModel
from trimtab_trainer.exporting.stage import export
from trimtab_trainer.publishing.importing import import_adapter
from trimtab_trainer.report import Report
from trimtab_trainer.storage import open_store

from deploy.samples.convert_base_model import convert, packaged_gguf
from tests.trainer.exporting.models import NF4, board

LENGTH = 24
TEXTS = [
    "What is spec.backoffLimit of a Job for?",
    "It's 2026, and 31415 is a number; we'll see\n\n\tdef f(x):\n        return x  # twice",
    "Größe, naïve, 東京, Москва, 🙂🙂",
    "<|im_start|>user\nHello<|im_end|>\n",
    "   leading and trailing   \r\n",
]
QUESTIONS = ["What is field 7 for?", "What is field 30 for?", "What is the capital of France?"]


@dataclass(frozen=True)
class Exported:
    """The same export as safetensors and as GGUF, and the base model."""

    base: Path
    merged: Path
    model: Path


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The base model's folder, and the address of an adapter that changes its answers."""
    root = tmp_path_factory.mktemp("smollm2")
    convert(packaged_gguf(), root / "base")
    torch.manual_seed(0)
    settings = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32), settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.01)
    model.save_pretrained(root / "saved")
    output = open_store((root / "output").as_uri(), None)
    made = import_adapter(root / "saved", StoredBaseModel(uri=(root / "base").as_uri()), output)
    return root / "base", made.uri


@pytest.fixture(scope="session")
def exported(adapter: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    base, uri = adapter
    scratch = tmp_path_factory.mktemp("scratch")
    folders = []
    for made in ("Merged", "GGUF"):
        document = {
            "run": {"name": "guide"},
            "baseModel": {"uri": base.as_uri()},
            "adapter": {"uri": uri},
            "format": made,
            "weightType": "Float32",
            "quantization": NF4,
            "destination": {"uri": (scratch / "exported").as_uri()},
        }
        found = export(ExportConfig.model_validate(document), scratch, Report(), board())
        folders.append(Path(found.uri.removeprefix("file://")))
    return Exported(base, folders[0], folders[1] / "model.gguf")


def prompts(tokenizer: Any) -> list[list[int]]:
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": each}], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for each in QUESTIONS
    ]


def greedy(folder: Path, asked: list[list[int]]) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = []
    for prompt in asked:
        tokens = torch.tensor([prompt])
        made = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=LENGTH, do_sample=False, eos_token_id=None
        )
        answers.append(made[0, len(prompt) :].tolist())
    return answers


def test_llama_cpp_answers_as_the_merged_model_does(exported: Exported, tmp_path: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(exported.merged)
    asked = prompts(tokenizer)
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps({"texts": TEXTS, "prompts": asked, "length": LENGTH}))
    command = [
        os.environ["TRIMTAB_LLAMA"],
        str(Path(__file__).with_name("llama.py")),
        str(exported.model),
        str(questions),
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    assert told["tokens"] == ours
    assert told["template"] == tokenizer.chat_template
    assert told["eos"] == tokenizer.eos_token_id
    answers = greedy(exported.merged, asked)
    assert told["answers"] == answers
    assert answers != greedy(exported.base, asked)  # the adapter is in it
