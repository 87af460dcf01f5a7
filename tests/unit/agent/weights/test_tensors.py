"""What the agent makes of adapters' shapes that are not plain LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trimtab_agent.failures import FailureReason, RevisionFailed
from trimtab_agent.weights.tensors import examine

from tests.serving.adapters import publish

EXPERTS = ("model.layers.0.mlp.experts", "model.layers.0.mlp.experts.base_layer")


def test_the_rank_of_joined_experts_is_the_declared_one(tmp_path: Path) -> None:
    """Their inner matrices hold the rows of all experts: 128 of rank 16 are 2,048 rows."""
    settings = {"r": 4, "target_parameters": ["experts.down_proj", "experts.gate_up_proj"]}
    published = publish(tmp_path, 1, rank=4 * 8, modules=EXPERTS, settings=settings)
    assert examine(published.folder).rank == 4
    alone = publish(tmp_path, 2, rank=4 * 8, modules=EXPERTS, settings={"r": 4})
    assert examine(alone.folder).rank == 32, "without target_parameters these are modules"
    beside = publish(tmp_path, 3, rank=4 * 8, modules=("model.q_proj",), settings=settings)
    assert examine(beside.folder).rank == 32


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_what_engines_do_not_serve_is_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    published = publish(tmp_path, 1, settings=settings)
    with pytest.raises(RevisionFailed, match=next(iter(settings))) as caught:
        examine(published.folder)
    assert (caught.value.reason, caught.value.permanent) == (FailureReason.NOT_SUPPORTED, True)


def test_rslora_is_served(tmp_path: Path) -> None:
    assert examine(publish(tmp_path, 1, settings={"use_rslora": True}).folder).rank == 4
