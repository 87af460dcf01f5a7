"""Writes the one file of a GGUF export, tensor by tensor, from those of the merged model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...base.layers import Shapes
from ...contract import WeightType
from .families import EMBEDDING, Layout
from .vocabulary import Vocabulary

MODEL = "model.gguf"
TYPES = {
    WeightType.BFLOAT16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    WeightType.FLOAT32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}


@dataclass(frozen=True)
class Conversion:
    """How a model is written as GGUF; that there is one says that it can be."""

    layout: Layout
    vocabulary: Vocabulary

    @classmethod
    def of(cls, config: Mapping[str, Any], shapes: Shapes, tokenizer: Mapping[str, Any]) -> Conversion:
        """Return it, of config.json, the shapes of the model's tensors, and tokenizer.json.

        Raises:
            NotConvertible: the message says what is not known.
        """
        layout = Layout.of(config, shapes)
        return cls(layout, Vocabulary.of(tokenizer, shapes[EMBEDDING][0]))

    def without(self, name: str) -> Conversion:
        """Return it without a tensor."""
        return replace(self, layout=self.layout.without(name))


def write_model(
    target: Path,
    conversion: Conversion,
    *,
    shapes: Shapes,
    order: list[str],
    tensors: Iterable[tuple[str, Tensor]],
    weight_type: WeightType,
    name: str,
    folder: Path,
) -> None:
    """Write the file.

    Vectors are float32 always: llama.cpp computes with them so.

    Args:
        target: the file.
        shapes: of the tensors in the model's files.
        order: names of those, in which `tensors` gives them.
        tensors: name and values of each.
        weight_type: of matrices.
        name: of the model.
        folder: with the tokenizer's files.
    """
    layout, vocabulary = conversion.layout, conversion.vocabulary
    matrix, file_type = TYPES[weight_type]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[layout.family.architecture])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(len(vocabulary.tokens))
    layout.settings(writer)
    vocabulary.write(writer, folder)
    extra = layout.extra()
    for each, values in extra.items():
        writer.add_tensor_info(each, values.shape, values.dtype, values.nbytes)
    for each in order:
        if each in layout.names:
            kind = matrix if len(shapes[each]) > 1 else gguf.GGMLQuantizationType.F32
            width = 2 if kind is gguf.GGMLQuantizationType.BF16 else 4
            size = int(np.prod(shapes[each])) * width
            writer.add_tensor_info(layout.names[each], shapes[each], np.dtype(f"u{width}"), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in extra.values():
        writer.write_tensor_data(values)
    for each, tensor in tensors:
        if each in layout.names:
            kind = matrix if tensor.dim() > 1 else gguf.GGMLQuantizationType.F32
            writer.write_tensor_data(np.ascontiguousarray(layout.written(each, _array(tensor, kind))))
    writer.close()


def _array(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> npt.NDArray[Any]:
    if kind is gguf.GGMLQuantizationType.BF16:
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint16).numpy()
    return tensor.float().contiguous().numpy()
