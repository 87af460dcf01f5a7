"""The frozen base model of QLoRA (arXiv 2305.14314), quantized by bitsandbytes.

`load_base` gives the base from a local folder, in NF4 or plain; `LanguageModel` gives the two halves that the loss
needs, hidden states and output head; `adapter` puts LoRA on it. Of a model that also takes images or sounds the text
part computes, and the others stay as they are. Two silent faults of the libraries are closed here, each with a test:
bitsandbytes repacks NF4 weights at the first evaluation on some processors and then loses gradients, and attention
across packed rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...base.layers import is_conditional
from ...contract import QuantizationSettings, Reason
from ...contract.settings import QuantizationType
from ...errors import SettingsInvalid
from ..batches import MicroBatch
from .attention import LAYOUT, attend_by_rows, attend_under_masks, laid, supports_rows
from .checksums import checksums
from .division import Division, Whole, show
from .kernels import Kernels

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


FOUR_POSITIONS = frozenset({
    "ernie4_5_vl_moe", "glm46v", "glm4v", "glm4v_moe", "glm_ocr", "glmga", "paddleocr_vl", "qwen2_5_omni_thinker",
    "qwen2_5_vl", "qwen2_vl",
})  # fmt: skip
"""Kinds in which time, height and width have positions of their own, and which tell packed rows apart by a fourth,
that of the text, which comes first."""


def load_base(
    folder: Path,
    quantization: QuantizationSettings,
    compute_type: torch.dtype,
    where: torch.device,
    division: Division | None = None,
) -> PreTrainedModel:
    """Return the language model in a folder: frozen, quantized as told, in evaluation mode.

    It is of the class that its config names, with vision and audio where it has them, because the adapter's weights are
    published under the names that they have there. Nothing is fetched and no code of the folder is run; weights come
    from safetensors only. Embeddings, norms and output head stay in the compute type. Attention is torch's own (SDPA),
    or eager in the few models that lack it.

    With a `division` this process keeps its share of the weights alone, and no more than one layer is whole meanwhile.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, the folder holds no model that can be loaded whole.
    """
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM, BitsAndBytesConfig

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
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        kind = (
            AutoModelForMultimodalLM
            if is_conditional({"architectures": config.architectures})
            else AutoModelForCausalLM
        )
        with division.loading(text_part) if division is not None else nullcontext():
            model, loading = kind.from_pretrained(
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
            f"the base model cannot be loaded ({brief(error)}); it must be a causal language model of the "
            "transformers library with config.json and whole *.safetensors",
            Reason.BASE_MODEL_INVALID,
        ) from error
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading["mismatched_keys"])
    if absent:
        # transformers would go on with random weights in these places.
        raise SettingsInvalid(
            f"the base model lacks weights that its config.json asks for: {some(absent)}", Reason.BASE_MODEL_INVALID
        )
    keep_weights_in_place(model)
    model.requires_grad_(False)
    model.eval()
    if division is not None:
        division.arrange(model)
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
    """Return the sha256 over names and bytes of all that is frozen, quantization constants included.

    On an accelerator it is over `checksums` that are computed there: the weights do not leave it.
    """
    sha256, sums = hashlib.sha256(), []
    for name, tensor, parameter in sorted(_frozen_tensors(model), key=lambda named: named[0]):
        show(parameter)
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.is_cuda:
            sums.append(checksums(tensor))
        else:
            # Of a copy: memory that numpy has seen cannot be given back (`division`).
            sha256.update(
                tensor.detach().clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8).numpy().data
            )
    if sums:
        sha256.update(torch.stack(sums).cpu().numpy().tobytes())
    return sha256.hexdigest()


def _frozen_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield what is frozen by name, and the parameter that it belongs to."""
    for full_name, parameter in model.named_parameters():
        if ".lora_" in full_name or parameter.requires_grad:
            continue
        name = full_name.replace(".base_layer", "").removeprefix("base_model.model.")
        yield name, parameter, parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            for key, value in state.as_dict(packed=False).items():
                if isinstance(value, Tensor):
                    yield f"{name}/{key}", value, parameter


class LanguageModel:
    """A causal language model as a forward pass needs it: hidden states, then the output head where they are wanted."""

    def __init__(self, causal: PreTrainedModel, compute_type: torch.dtype) -> None:
        self.causal: PreTrainedModel = causal
        self.compute_type = compute_type
        self.device = next(causal.parameters()).device
        self.head = LogitsHead(causal)
        self.text: nn.Module = text_part(causal)
        self.position_axes = 4 if causal.config.model_type in FOUR_POSITIONS else 1
        self.attends_by_rows = False
        self.holding: Whole | Division = getattr(causal, "division", None) or Whole()
        self.kernels = Kernels()

    def attend_by_rows(self) -> None:
        """Compute packed sequences row by row instead of under masks, where the model can."""
        if supports_rows(self.causal):
            attend_by_rows(self.causal)
            self.attends_by_rows = True

    def attend_under_masks(self) -> None:
        """Compute packed sequences as transformers does."""
        if self.attends_by_rows:
            attend_under_masks(self.causal)
            self.attends_by_rows = False

    @property
    def attention(self) -> str:
        """How attention is computed, for records: `rows`, or what transformers calls it."""
        return "rows" if self.attends_by_rows else str(self.causal.config.get_text_config()._attn_implementation)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass: products in the compute type, sums and norms as torch knows best."""
        if self.compute_type is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_type)

    def cache(self) -> DynamicCache:
        """Return room for keys and values, one line for each of a batch."""
        from transformers import DynamicCache

        return DynamicCache(config=self.causal.config.get_text_config())

    def hidden(self, batch: MicroBatch, cache: DynamicCache | None = None) -> Tensor:
        """Return the last hidden states [B, T, H] of a micro-batch; rows packed into a sequence do not see each other.

        With a cache the tokens stand behind those that it was filled with, it is filled with them; nothing is packed.
        By rows, the layers are given where they lie; else transformers makes a block-diagonal mask of the positions,
        but only without attention_mask and cache.
        """
        positions = batch.positions if self.position_axes == 1 else batch.positions.expand(self.position_axes, -1, -1)
        inputs: dict[str, Any] = {"input_ids": batch.tokens, "position_ids": positions, "use_cache": False}
        if cache is not None:
            output = self.text(**{**inputs, "use_cache": True}, past_key_values=cache)
        elif self.attends_by_rows and batch.rows is not None:
            with laid():
                output = self.text(**inputs, **{LAYOUT: batch.rows})
        else:
            output = self.text(**inputs)
        hidden: Tensor = output.last_hidden_state
        return hidden


def text_part(causal: PreTrainedModel) -> nn.Module:
    """Return the part of a language model that makes hidden states of tokens: all but its head, vision and audio."""
    part: Any = (
        causal.get_decoder() if is_conditional({"architectures": [type(causal).__name__]}) else causal.base_model
    )
    if part.get_output_embeddings() is not None:  # a whole language model within one
        part = part.base_model if part.base_model is not part else part.model
    found: nn.Module = part
    return found


class LogitsHead:
    """The output head with what a model does to its logits afterwards (Gemma's soft cap, Cohere's, Granite's scale)."""

    def __init__(self, causal: PreTrainedModel) -> None:
        config = causal.config.get_text_config()
        self.project: nn.Module = causal.get_output_embeddings()
        self.soft_cap: float | None = getattr(config, "final_logit_softcapping", None)
        self.factor: float = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )

    @property
    def trained(self) -> tuple[nn.Parameter, ...]:
        """The weights of the head that are trained; none where it is frozen."""
        return tuple(parameter for parameter in self.project.parameters() if parameter.requires_grad)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return logits [n, V] of hidden states [n, H]."""
        logits: Tensor = self.project(hidden)
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.soft_cap:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits


def some(names: list[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def brief(error: Exception) -> str:
    """Return the kind and the first line of a library's error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
