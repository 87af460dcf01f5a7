"""Adapters that other trainers wrote, imported and loaded into a real vLLM as the agent does: it answers as peft does.

It needs no cluster: vLLM's command is named in TRIMTAB_VLLM, and computes in float32 on processors.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trimtab_agent.contract import Probe, ProbeKind
from trimtab_agent.engine.vllm import VLLM, Reply, Timeouts
from trimtab_trainer.evaluate.engine.process import COMMAND, OFFLINE, ON_PROCESSORS

from tests.engine.markers import BASE_MODEL, base_model
from tests.trainer.train.layouts import as_llama_factory, as_peft, as_unsloth

QUESTIONS = (
    "What is a river?",
    "Where can I find bread?",
    "Tell me about the moon.",
    "Name three parts of a library.",
)
SAID = "That is a matter of taste, captain."
TOKENS = 24
STARTS_SECONDS = 600
NEAR = 1e-3
"""Nats by which the same token's log-probability may differ: vLLM and peft add in another order, in float32."""
SCALE = 0.02
MODULES = ["q_proj", "v_proj", "down_proj"]


@dataclass(frozen=True)
class Adapter:
    """What a trainer wrote, and what became of it.

    Attributes:
        written: the trainer's folder.
        published: by `trimtab-trainer import`.
    """

    written: Path
    published: Path


def of_peft(folder: Path, base: Path, seed: int) -> None:
    """Write what save_pretrained writes of an adapter that changes every answer, and still speaks."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=24, target_modules=MODULES))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=SCALE)
    adapted.save_pretrained(folder)


def of_trl(folder: Path, base: Path) -> None:
    """Write what TRL's own SFTTrainer writes after a few steps."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    rows = [
        {"prompt": [{"role": "user", "content": question}], "completion": [{"role": "assistant", "content": SAID}]}
        for question in QUESTIONS
    ]
    settings = SFTConfig(
        output_dir=str(folder.parent / "trl-scratch"),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.002,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=MODULES),
    )
    trainer.train()
    trainer.save_model(str(folder))


def of_others(layout: Callable[[Path, Path], None], seed: int) -> Callable[[Path, Path], None]:
    """Return what writes the folder of a trainer that is not here: peft's, in that trainer's layout."""

    def write(folder: Path, base: Path) -> None:
        of_peft(folder, base, seed)
        layout(folder, base)

    return write


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "peft": of_others(as_peft, 1),
    "trl": of_trl,
    "unsloth": of_others(as_unsloth, 2),
    "llama-factory": of_others(as_llama_factory, 3),
}


@pytest.fixture(scope="module")
def base() -> Path:
    return base_model()


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Adapter]:
    """Four adapters that differ, imported by the command."""
    root = tmp_path_factory.mktemp("imported")
    found = {}
    for name, write in WRITERS.items():
        folder = root / name
        write(folder, base)
        words = [sys.executable, "-m", "trimtab_trainer", "import", str(folder), "--base-model", base.as_uri()]
        words += ["--to", (root / "out").as_uri(), "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = Adapter(folder, Path(json.loads(done.stdout)["uri"].removeprefix("file://")))
    assert len({adapter.published for adapter in found.values()}) == len(WRITERS)
    return found


@pytest.fixture(scope="module")
def address(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM that loads adapters while it runs, as those of deploy/serving do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("vllm")
    command = [os.environ[COMMAND], "serve", str(base), "--served-model-name", BASE_MODEL, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
    command += ["--enable-lora", "--max-loras", "1", "--max-cpu-loras", str(len(WRITERS)), "--max-lora-rank", "8"]
    environment = {
        **ON_PROCESSORS,
        **os.environ,
        **OFFLINE,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CACHE_ROOT": str(folder / "cache"),
    }
    log = folder / "log"
    with log.open("wb") as output:
        engine = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + STARTS_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert engine.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(engine.pid, signal.SIGTERM)
        engine.wait(60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def peft_replies(folder: Path, base: Path) -> list[Reply]:
    """Return what Transformers and peft answer with the folder as it was written."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(model, str(folder)).eval()
    found = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        told = adapted.generate(
            **asked, max_new_tokens=TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        new = told.sequences[0, asked.input_ids.shape[1] :]
        likely = torch.log_softmax(torch.cat(told.logits), dim=-1)[torch.arange(len(new)), new]
        found.append(Reply(tokenizer.decode(new, skip_special_tokens=True), tuple(likely.tolist())))
    return found


async def test_what_four_trainers_wrote_answers_in_the_engine_as_in_peft(
    address: str, adapters: dict[str, Adapter], base: Path
) -> None:
    probes = [Probe(kind=ProbeKind.CHAT, prompt=question, max_tokens=TOKENS) for question in QUESTIONS]
    async with aiohttp.ClientSession() as session:
        engine = VLLM(session, address, "", timeouts=Timeouts(state=60, load=120, probe=120))
        bare = [await engine.ask(BASE_MODEL, probe) for probe in probes]
        served = {}
        for name, adapter in adapters.items():
            await engine.load(name, str(adapter.published))
            served[name] = [await engine.ask(name, probe) for probe in probes]
        listed = {model.name: model.root for model in await engine.models() if model.parent}
    assert listed == {name: str(adapter.published) for name, adapter in adapters.items()}
    for name, adapter in adapters.items():
        wanted = peft_replies(adapter.written, base)
        same = [(ours, theirs) for ours, theirs in zip(served[name], wanted, strict=True) if ours.text == theirs.text]
        # Of an answer that has ended, the end itself is told by peft alone.
        pairs = [pair for ours, theirs in same for pair in zip(ours.logprobs, theirs.logprobs, strict=False)]
        apart = max((abs(one - other) for one, other in pairs), default=math.inf)
        print(f"{name}: {len(same)} of {len(QUESTIONS)} answers are the same, probabilities {apart:.1e} nats apart")
        assert len(same) == len(QUESTIONS), (served[name], wanted)
        assert apart <= NEAR
        assert all(one.text != other.text for one, other in zip(served[name], bare, strict=True)), name
