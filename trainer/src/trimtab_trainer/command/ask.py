"""Ask the base model and the adapter the same question, and print both answers side by side, for people.

    trimtab-trainer ask --base-model s3://models/base --adapter s3://adapters/x/adapters/<digest> --question "..."

What was published is loaded as anybody would load it: every byte verified, then stock peft. `__main__` calls
`add_arguments` and `run`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Credentials, QuantizationSettings, Reason, StoredBaseModel
from ..errors import SettingsInvalid
from ..storage import fetch, open_store

if TYPE_CHECKING:
    from ..training.network.adapter import Adapted

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Answers:
    """One question and what both answer, greedily."""

    question: str
    base: str
    adapter: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `trimtab-trainer ask`."""
    parser.add_argument("--base-model", required=True, metavar="URI", help="base model the adapter was trained on")
    parser.add_argument("--adapter", required=True, metavar="URI", help="<output>/adapters/<digest>")
    parser.add_argument("--question", required=True, action="append", help="may be given several times")
    parser.add_argument("--max-new-tokens", type=int, default=MAX_NEW_TOKENS, help="length of an answer (%(default)s)")
    parser.add_argument(
        "--secret-directory", metavar="FOLDER", help="folder with one file per access key, for both; else environment"
    )


def run(args: argparse.Namespace) -> None:
    """Answer and print."""
    credentials = Credentials(directory=args.secret_directory) if args.secret_directory else None
    base = StoredBaseModel(uri=args.base_model, credentials=credentials)
    with tempfile.TemporaryDirectory() as scratch:
        for answers in ask(base, args.adapter, credentials, args.question, args.max_new_tokens, Path(scratch)):
            print(side_by_side(answers))


def ask(  # noqa: PLR0917 all of them in the order that they are needed
    base_model: StoredBaseModel,
    adapter_uri: str,
    credentials: Credentials | None,
    questions: list[str],
    max_new_tokens: int,
    scratch: Path,
) -> list[Answers]:
    """Return greedy answers of the base model alone and with the adapter, the base held in memory as in training.

    Raises:
        SettingsInvalid: there is no such adapter, or it was trained on another base model.
        ObjectDamaged: a file is not what its manifest says.
    """
    from ..training.machine import hardware

    hardware.configure()
    from ..base.base_model import fetch_base_model
    from ..training.network.adapter import load_adapter
    from ..training.network.model import load_base

    manifest = fetch(open_store(adapter_uri, credentials), "", scratch / "adapter")
    if manifest is None:
        raise SettingsInvalid(f"there is no adapter at {adapter_uri}; its URI is in the status of its FineTuneJob")
    digest = manifest.document["artifact"]["baseModel"]
    if base_model.digest is not None and base_model.digest != digest:
        raise SettingsInvalid(f"this adapter belongs to the base model {digest}", Reason.BASE_MODEL_CHANGED)
    folder = fetch_base_model(base_model, scratch / "base-model", digest)
    settings = json.loads((scratch / "adapter" / "metrics.json").read_text())["settings"]
    quantization = QuantizationSettings.model_validate(settings["quantization"])
    where = hardware.device()
    compute_type = hardware.compute_type(quantization.compute_type, where)
    model = load_adapter(load_base(folder, quantization, compute_type, where), scratch / "adapter", compute_type)
    tokenizer = load_tokenizer(folder)
    answers = []
    for question in questions:
        with_adapter = generate(model, tokenizer, question, max_new_tokens)
        with model.peft.disable_adapter():
            answers.append(Answers(question, generate(model, tokenizer, question, max_new_tokens), with_adapter))
    return answers


def load_tokenizer(folder: Path) -> Any:
    """Return the base model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def generate(model: Adapted, tokenizer: Any, question: str, max_new_tokens: int) -> str:
    """Return the model's greedy answer to a question, asked through the chat template where there is one."""
    import torch

    if tokenizer.chat_template:
        encoded = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    else:
        encoded = tokenizer(question, return_tensors="pt")
    encoded = {name: tensor.to(model.device) for name, tensor in encoded.items()}
    length = encoded["input_ids"].shape[1]
    with torch.no_grad(), model.arithmetic():
        tokens = model.peft.generate(
            **encoded,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )
    text: str = tokenizer.decode(tokens[0, length:], skip_special_tokens=True)
    return text.strip()


def side_by_side(answers: Answers, width: int = 100) -> str:
    """Return the question and both answers in two columns of plain text."""
    column = (width - 3) // 2
    left, right = (
        [line for part in text.splitlines() or [""] for line in textwrap.wrap(part, column) or [""]]
        for text in (answers.base or "(nothing)", answers.adapter or "(nothing)")
    )
    height = max(len(left), len(right))
    left, right = left + [""] * (height - len(left)), right + [""] * (height - len(right))
    return "\n".join(
        [
            *textwrap.wrap(answers.question, width),
            "",
            f"{'base model':<{column}} | with adapter",
            f"{'-' * column}-+-{'-' * column}",
            *(f"{one:<{column}} | {other}".rstrip() for one, other in zip(left, right, strict=True)),
            "",
        ]
    )
