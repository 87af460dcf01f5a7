"""The frozen base model and the adapter on it: QLoRA (arXiv 2305.14314) with bitsandbytes and peft.

`load_base` gives the base from a local folder, in NF4 or plain; `Adapted` puts LoRA on it and gives the two halves
that the loss needs, hidden states and output head. `train`, `publish` and `ask` call it. Two silent faults of the
libraries are closed here, each with a test: bitsandbytes repacks NF4 weights at the first evaluation on some
processors and then loses gradients, and attention across packed rows.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import MicroBatch
from .contract import LoraSettings, QuantizationSettings, Reason
from .contract.settings import QuantizationType
from .errors import SettingsInvalid
from .layers import is_reached

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"
ADAPTER = "default"
"""Name by which peft knows the adapter in memory; it is no part of published names."""

OF_THE_MACHINE = ("memory", "cuda", "cublas", "hip", "alloc")
"""Words of errors that say nothing of the model."""

PROBE_TOLERANCE = 0.02
"""Largest relative difference that rounding alone can make between two ways to the same number, in bfloat16."""


def load_base(
    folder: Path, quantization: QuantizationSettings, compute_type: torch.dtype, where: torch.device
) -> PreTrainedModel:
    """Return the causal language model in a folder: frozen, quantized as told, in evaluation mode.

    Nothing is fetched and no code of the folder is run; weights come from safetensors only. Embeddings, norms and
    output head stay in the compute type. Attention is torch's own (SDPA), or eager in the few models that lack it.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, the folder holds no model that can be loaded whole.
    """
    import transformers
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    transformers.utils.logging.disable_progress_bar()
    scheme = None
    if quantization.type is QuantizationType.NF4:
        scheme = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=quantization.double_quantization,
            bnb_4bit_compute_dtype=compute_type,
        )
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=compute_type,
            quantization_config=scheme,
            device_map={"": where},
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # libraries raise anything for a model that they cannot load
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise
        raise SettingsInvalid(
            f"the base model cannot be loaded ({_brief(error)}); it must be a causal language model of the "
            "transformers library with config.json and whole *.safetensors",
            Reason.BASE_MODEL_INVALID,
        ) from error
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        # transformers would go on with random weights in these places.
        raise SettingsInvalid(
            f"the base model lacks weights that its config.json asks for: {_some(absent)}", Reason.BASE_MODEL_INVALID
        )
    keep_weights_in_place(model)
    model.requires_grad_(False)
    model.eval()
    return model


def keep_weights_in_place(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking NF4 weights in place.

    On processors with AVX512-BF16 its first forward in evaluation mode repacks every weight for a kernel without
    autograd, and nothing packs them back: from then on base layers pass no gradient to the layers below.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def frozen_hash(model: nn.Module) -> str:
    """Return the sha256 over names and bytes of all that is frozen, quantization constants included."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(_frozen_tensors(model)):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for full_name, parameter in model.named_parameters():
        if ".lora_" in full_name or parameter.requires_grad:
            continue
        name = full_name.replace(".base_layer", "").removeprefix("base_model.model.")
        yield name, parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            for key, value in state.as_dict(packed=False).items():
                if isinstance(value, Tensor):
                    yield f"{name}/{key}", value


class LanguageModel:
    """A causal language model as a forward pass needs it: hidden states, then the output head where they are wanted."""

    def __init__(self, causal: PreTrainedModel, compute_type: torch.dtype) -> None:
        self.causal: PreTrainedModel = causal
        self.compute_type = compute_type
        self.device = next(causal.parameters()).device
        self.head = LogitsHead(causal)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: products in the compute type, sums and norms as torch knows best."""
        if self.compute_type is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_type)

    def hidden(self, batch: MicroBatch) -> Tensor:
        """Return the last hidden states [B, T, H] of a micro-batch; rows packed into a sequence do not see each other.

        transformers makes the block-diagonal mask from the positions, but only without attention_mask and cache.
        """
        output = self.causal.base_model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False)
        return output.last_hidden_state  # type: ignore[no-any-return]


class Adapted(LanguageModel):
    """A base model with a LoRA adapter (arXiv 2106.09685) in float32 on it.

    `parameters` maps published names (those of adapter_model.safetensors) to the adapter's weights, sorted.
    """

    def __init__(self, peft: PeftModel, compute_type: torch.dtype) -> None:
        super().__init__(peft.get_base_model(), compute_type)
        self.peft = peft
        self.parameters: dict[str, nn.Parameter] = dict(
            sorted((published_name(name), p) for name, p in peft.named_parameters() if ".lora_" in name)
        )
        self.checkpoints_activations = False

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the adapted modules, sorted."""
        return tuple(sorted(self.peft.peft_config[ADAPTER].target_modules))

    def checkpoint_activations(self) -> None:
        """Keep one layer's activations instead of all, for a third more computation."""
        self.causal.activation_checkpointing_enable({"use_reentrant": False})
        self.checkpoints_activations = True

    def adapter_tensors(self) -> dict[str, Tensor]:
        """Return a copy of the adapter's weights on the processor, by published name."""
        return {name: p.detach().to("cpu", copy=True).contiguous() for name, p in self.parameters.items()}

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Set the adapter's weights.

        Raises:
            ValueError: names or shapes are not exactly those of this adapter.
        """
        expected = {name: tuple(p.shape) for name, p in self.parameters.items()}
        found = {name: tuple(t.shape) for name, t in tensors.items()}
        if expected != found:
            different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ValueError(f"these adapter weights differ in name or shape: {_some(different)}")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    def remove(self) -> PreTrainedModel:
        """Take the adapter off and return the bare base model."""
        base: PreTrainedModel = self.peft.unload()
        if hasattr(base, "peft_config"):
            del base.peft_config
        return base


def add_adapter(
    base: PreTrainedModel,
    lora: LoraSettings,
    compute_type: torch.dtype,
    seed: int,
    left_out: frozenset[str] = frozenset(),
) -> Adapted:
    """Put a fresh adapter on a base model; the same seed gives the same weights on every device.

    `left_out` are names of what cannot be adapted, as in `layers.Reach`.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the modules that exist.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(resolve_targets(base, lora.target_modules, left_out)),
        bias="none",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = Adapted(get_peft_model(base, settings, adapter_name=ADAPTER), compute_type)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise SettingsInvalid(
                f"lora.targetModules: peft cannot adapt this {type(base).__name__} ({_brief(error)}); name layers of "
                "its attention",
                Reason.TARGET_MODULES_NOT_FOUND,
            ) from error
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            fresh = torch.zeros(parameter.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            parameter.data = fresh.to(parameter.device)
    return model


def load_adapter(base: PreTrainedModel, folder: Path, compute_type: torch.dtype) -> Adapted:
    """Load a published adapter as anybody would, with stock peft, and make sure that it is really there.

    Raises:
        ValueError: some of its weights did not arrive (peft only warns).
    """
    from peft import PeftModel
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Adapted(PeftModel.from_pretrained(base, str(folder), adapter_name=ADAPTER), compute_type)
    model.peft.eval()
    stored, loaded = load_file(folder / "adapter_model.safetensors"), model.adapter_tensors()
    wrong = [n for n in stored.keys() | loaded.keys() if n not in stored or n not in loaded]
    wrong += [n for n in stored.keys() & loaded.keys() if not torch.equal(stored[n], loaded[n])]
    if wrong:
        raise ValueError(f"the adapter did not load onto its base model: {_some(sorted(wrong))}")
    return model


class LogitsHead:
    """The output head with what a model does to its logits afterwards (Gemma's soft cap, Cohere's, Granite's scale)."""

    def __init__(self, causal: PreTrainedModel) -> None:
        config = causal.config.get_text_config()
        self.project: nn.Module = causal.get_output_embeddings()
        self.soft_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.factor: float = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [n, V] of hidden states [n, H]."""
        logits: Tensor = self.project(hidden)
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.soft_cap:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits


def check_forward(model: LanguageModel, packing: bool) -> None:
    """Refuse a base model that this trainer would compute wrongly: two short probes, no gradient.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID when its logits are not those of its output head; SETTINGS_INVALID when
            packing is on and rows of one sequence influence each other (state-space models, say).
    """
    try:
        _probe_forward(model, packing)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OF_THE_MACHINE):
            raise
        raise SettingsInvalid(
            f"{type(model.causal).__name__} does not compute as causal language models do ({_brief(error)}); this kind "
            "of base model is not supported",
            Reason.BASE_MODEL_INVALID,
        ) from error


def _probe_forward(model: LanguageModel, packing: bool) -> None:
    vocabulary = model.causal.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(0, vocabulary, (3, 8), generator=generator).to(model.device)
    count = torch.arange(8, device=model.device)[None]
    model.causal.eval()
    with torch.no_grad(), model.arithmetic():
        hidden = model.hidden(_probe(row[1:2], count))[0]
        logits = model.causal(input_ids=row[1:2], position_ids=count, use_cache=False).logits[0].float()
        if _differ(model.head(hidden).float(), logits):
            raise SettingsInvalid(
                f"{type(model.causal).__name__} does more to its logits than its output head; "
                "this kind of base model is not supported",
                Reason.BASE_MODEL_INVALID,
            )
        if packing:
            packed = [torch.cat([before, row[1]])[None] for before in (row[0], row[2])]
            ends = [model.hidden(_probe(tokens, count.repeat(1, 2)))[0, 8:] for tokens in packed]
            if _differ(*ends) or _differ(ends[0], hidden):
                raise SettingsInvalid(
                    f"{type(model.causal).__name__} lets packed rows influence each other; set training.packing: false"
                )


def _probe(tokens: Tensor, positions: Tensor) -> MicroBatch:
    return MicroBatch(tokens, positions, tokens, tokens.numel(), 0)


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > PROBE_TOLERANCE * other.abs().max().clamp(min=1e-3))


def check_layers(model: Adapted, expected: list[str]) -> None:
    """Refuse a base model of which other layers are adapted than its headers told.

    Layers may have other names in files than in memory, but the same last parts.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the difference.
    """
    told = Counter(name.rpartition(".")[2] for name in expected)
    found = Counter(name.rpartition(".lora_A")[0].rpartition(".")[2] for name in model.parameters if ".lora_A." in name)
    if told != found:
        differ = [
            f"{name} ({told[name]} in its files, {found[name]} adapted)"
            for name in sorted(told | found)
            if told[name] != found[name]
        ]
        raise SettingsInvalid(
            f"lora.targetModules: {type(model.causal).__name__} has other layers than its files tell: {_some(differ)}; "
            "name those that are the same",
            Reason.TARGET_MODULES_NOT_FOUND,
        )


def linear_modules(base: PreTrainedModel, left_out: frozenset[str] = frozenset()) -> list[str]:
    """Return the full names of the linear layers that can be adapted: all but the output head and what is left out."""
    from transformers.pytorch_utils import Conv1D

    head = base.get_output_embeddings()
    return [
        name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and is_reached(name, left_out)
    ]


def resolve_targets(
    base: PreTrainedModel, wanted: list[str], left_out: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Return the target modules by name, sorted: last parts of names where these say the same, else whole names.

    Raises:
        SettingsInvalid: TARGET_MODULES_NOT_FOUND, naming the modules that exist.
    """
    names = linear_modules(base, left_out)
    last_parts = sorted({name.rpartition(".")[2] for name in names})
    asked = last_parts if wanted == [ALL_LINEAR] else wanted
    missing = [want for want in asked if not any(_matches(name, want) for name in names)]
    if missing or not asked:
        raise SettingsInvalid(
            f"lora.targetModules: {_some(missing or wanted)} not among the base model's linear layers; "
            f"there are {', '.join(last_parts)}",
            Reason.TARGET_MODULES_NOT_FOUND,
        )
    reached = set(names)
    others = [name for name, _ in base.named_modules() if name not in reached]
    targets: set[str] = set()
    for want in asked:
        # peft takes a name for every module that ends with it: the head, a container, what is left out.
        alone = not any(_matches(name, want) for name in others)
        targets.update([want] if alone else [name for name in names if _matches(name, want)])
    return tuple(sorted(targets))


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def published_name(name: str) -> str:
    """Return the name a peft parameter has in adapter_model.safetensors."""
    return name.replace(f".{ADAPTER}.", ".")


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
