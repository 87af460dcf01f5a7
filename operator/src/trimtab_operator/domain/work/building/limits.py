"""What the pod that trains will have, as its resources and its node selector tell it before it has a node."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab_trainer.contract import TrainLimits

from trimtab_operator.api.pods.quantity import count_of

PRODUCT_LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
"""Labels of nodes that name their accelerators."""


def limits_of(
    limits: Mapping[str, object], accelerators: int, node_selector: Mapping[str, str], nodes: int = 1
) -> TrainLimits:
    """Return what `prepare` holds a run against; without a limit of memory a pod may take all that its node has."""
    product = next((node_selector[label] for label in PRODUCT_LABELS if label in node_selector), None)
    return TrainLimits(
        memory_bytes=count_of(limits.get("memory")) or None,
        accelerators=accelerators,
        nodes=nodes if nodes > 1 else None,
        accelerator_product=product,
    )
