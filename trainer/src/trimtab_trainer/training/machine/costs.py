"""What a loaded model's passes cost in memory, for the plan of `sizing`; `estimating` tells the same without torch."""

from __future__ import annotations

from ..network.adapter import Adapted
from ..network.targets import adapted_layers, adapted_tensors, linear_modules
from ..network.trained import Trained
from .sizing import CHUNK, Costs, scores_of_layer

EAGER = "eager"


def costs(model: Trained) -> Costs:
    """Estimate the memory of a forward and backward pass from the sizes of what is trained."""
    return _of_adapter(model) if isinstance(model, Adapted) else _of_all(model)


def _of_all(model: Trained) -> Costs:
    """Of a model all of whose weights are trained: each has a gradient and the optimizer's two numbers, in float32."""
    width = 2 if model.compute_type.itemsize == 2 else 4
    modules = dict(model.causal.named_modules())
    linear = [modules[name] for name in linear_modules(model.causal)]
    elements = sum(sum(layer.weight.shape) for layer in linear)
    layers = max(1, int(getattr(model.causal.config.get_text_config(), "num_hidden_layers", 1)))
    vocabulary, hidden = (int(size) for size in model.causal.get_input_embeddings().weight.shape)
    weights = sum(p.numel() for p in model.parameters.values())
    eager = scores_of(model, width) if model.attention == EAGER else 0
    # Inputs and outputs in the type of products, and once more in float32, which the residual is.
    kept = elements * (4 + width)
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=layers * hidden * 4 + kept // layers,
        # And a copy of each weight in the type of products, if that is another; a gradient of the head beside its own;
        # on a processor the copy that is written as a checkpoint too.
        fixed=(16 + (2 if width == 2 else 0) + (12 if model.device.type == "cpu" else 0)) * weights
        + 3 * 4 * CHUNK * vocabulary
        + 4 * vocabulary * hidden,
        scores=layers * eager,
        scores_at_once=eager,
    )


def scores_of(model: Trained, width: int) -> int:
    """Return what eager attention keeps in a layer of a model for each pair of tokens."""
    return scores_of_layer(int(getattr(model.causal.config.get_text_config(), "num_attention_heads", 0) or 0), width)


def _of_adapter(model: Adapted) -> Costs:
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
    whole = (p for p in model.peft.parameters() if not hasattr(p, "unit"))
    base = sum(p.numel() * p.element_size() for p in whole) + model.holding.held
    adapter = sum(p.numel() for p in model.parameters.values())
    made = [p.numel() * p.element_size() for p in joined]
    eager = scores_of(model, width) if model.attention == EAGER else 0
    return Costs(
        kept_per_token=kept,
        recomputed_per_token=layers * hidden * width + kept // layers,
        # Of a layer's joined tensors: with the adapter on them, the gradient of that, and what the gradient is made of.
        fixed=base + 16 * adapter + 3 * 4 * CHUNK * vocabulary + 3 * sum(made) // layers,
        kept_fixed=sum(made),
        scores=layers * eager,
        scores_at_once=eager,
    )
