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
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from deploy.samples.convert_base_model import convert, packaged_gguf
from tests.trainer.exporting.models import NF4, Trained, trained

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
    """The same export as safetensors and as GGUF."""

    merged: Path
    model: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("smollm2")
    training = {"learningRate": 0.001, "maxSteps": 4, "maxSequenceLength": 64}
    return trained(root, lambda folder: convert(packaged_gguf(), folder), rows=12, quantization=NF4, training=training)


@pytest.fixture(scope="session")
def exported(made: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    scratch = tmp_path_factory.mktemp("scratch")
    _, merged = made.export(scratch)
    _, folder = made.export(scratch, format="GGUF")
    return Exported(merged, folder / "model.gguf")


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


def test_llama_cpp_answers_as_the_merged_model_does(made: Trained, exported: Exported, tmp_path: Path) -> None:
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
    assert answers != greedy(made.root / "base", asked)  # the adapter is in it
