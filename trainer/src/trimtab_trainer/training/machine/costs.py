"""What a loaded model's passes cost in memory, for the plan of `sizing`; `estimating` tells the same without torch."""

from __future__ import annotations

from ..network.adapter import Adapted
from ..network.targets import adapted_layers, adapted_tensors
from .sizing import CHUNK, Costs, scores_of_layer

EAGER = "eager"


def costs(model: Adapted) -> Costs:
    """Estimate the memory of a forward and backward pass from the sizes of the adapted layers and of experts."""
    width = 2 if model.compute_type.itemsize == 2 else 4
    config = model.causal.config.get_text_config()
    elements = sum(layer.in_features + layer.out_features for layer in adapted_layers(model.causal))
    joined = adapted_tensors(model.causal)
    layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
    embedding = model.causal.get_input_embeddings().weight
    hidden, vocabulary = int(embedding.shape[1]), int(embedding.shape[0])
    kept = elements * (4 + 2 * width)  # inputs and outputs in the compute type, the adapter's inputs in float32
    chosen = getattr(config, "num_experts_per_tok", None) or 1
    experts = [p for p in model.text.parameters() if p.ndim == 3 and not p.requires_grad]
    kept += 2 * width * chosen * sum(sum(p.shape[1:]) for p in experts)
    base = sum(p.numel() * p.element_size() for p in model.peft.parameters())
    adapter = sum(p.numel() for p in model.parameters.values())
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    made = [p.numel() * p.element_size() for p in joined]
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=layers * hidden * width + kept // layers,
        # Of a layer's joined tensors: with the adapter on them, the gradient of that, and what the gradient is made of.
        fixed=base + 16 * adapter + 3 * 4 * CHUNK * vocabulary + 3 * sum(made) // layers,
        kept_fixed=sum(made),
        scores=layers * scores_of_layer(heads, width) if model.attention == EAGER else 0,
        scores_at_once=scores_of_layer(heads, width) if model.attention == EAGER else 0,
    )
