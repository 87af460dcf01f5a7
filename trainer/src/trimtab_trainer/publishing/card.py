"""The model card (README.md) of a published adapter: what it is, what it was made from, how well it does."""

from __future__ import annotations

from typing import Any

from ..contract import HubSource, MirroredSource, Prepared, RunConfig
from ..reporting.preferences import loss_unit, preference_results


def model_card(
    config: RunConfig, prepared: Prepared, digest: str, metrics: dict[str, Any], origin: MirroredSource | None = None
) -> str:
    """Return the Markdown text of an adapter or a whole model.

    Args:
        metrics: what metrics.json holds.
        origin: where the base came from on a hub.
    """
    lora, quantization, training = config.adapter, config.quantization, config.training
    stored = config.base_model.uri if not config.base_model.uri.startswith("file:") else prepared.base_model_digest
    source = HubSource.parse(origin.uri) if origin is not None else None
    head, base, about = "", stored, [("Base model", f"`{prepared.base_model_digest}`")]
    if origin is not None and source is not None:
        head, base = f"base_model: {source.repository}\n", source.repository
        about.append(("Its repository", f"{source.repository} at commit `{origin.commit}`"))
        about.append(("Its licence", origin.license or "not stated by the repository"))
        about.append(("Its mirror", f"`{stored}`"))
    told = "\n".join(f"| {name} | {value} |" for name, value in about)
    rows = [
        ("Steps", f"{metrics['steps']} of {metrics['totalSteps']}, published: step {metrics['publishedStep']}"),
        ("Training loss", _number(metrics["trainingLoss"])),
        ("Validation loss", _number(metrics["validationLoss"])),
        ("Test loss", _number(metrics["testLoss"])),
        ("Test loss of the base model alone", _number(metrics["baseTestLoss"])),
        ("Test perplexity", _number(metrics["testPerplexity"])),
        ("Test perplexity of the base model alone", _number(metrics["baseTestPerplexity"])),
    ]
    rows += [(f"{name}, test rows", _number(value)) for name, value in preference_results(metrics)]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if value is not None)
    if lora is None:
        what, library, tags, use = "Model", "transformers", "trimtab", _USE_OF_MODEL
        about_it = (
            f"A model all of whose weights were trained from those of {base} by Trimtab, by {training.method.value}."
        )
    else:
        what, library, tags, use = "Adapter", "peft", "lora, trimtab", _USE_OF_ADAPTER
        about_it = (
            f"A LoRA adapter (rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.target_modules)}) for {base}, "
            f"trained with\nthe base in {quantization.type.value} by Trimtab, by {training.method.value}."
        )
    return f"""---
library_name: {library}
pipeline_tag: text-generation
tags: [{tags}]
{head}---

# {config.run.name}

{about_it}

| | |
| --- | --- |
| {what} | `{digest}` |
{told}
| Data (split, packed) | `{prepared.view_digest}` |
| Run (base, data and settings) | `{prepared.run_digest}` |
| Rows trained, validated, tested | {prepared.rows}, {prepared.validation_rows}, {prepared.test_rows} |

## Results

Losses: {loss_unit(training.method.value)}; the test rows (`splits/test.jsonl`) were held out of training.

| | |
| --- | --- |
{table}

## Settings

{training.optimizer.value}, {training.schedule.value} schedule, learning rate {training.learning_rate:g}, batches of
{training.batch_size} sequences of at most {training.max_sequence_length} tokens, seed {training.seed}. All of them,
and the curves, are in `metrics.json`.

## Use

```python
{use}
```
"""


_USE_OF_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("<the base model>")
model = PeftModel.from_pretrained(base, "<this folder>")"""
_USE_OF_MODEL = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("<this folder>")"""


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
