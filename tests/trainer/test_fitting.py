"""What prepare says of a pod that will not hold the run: which part of it, how much, and what to change."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_trainer.base.decoders import shapes_of_config
from trimtab_trainer.contract import RunConfig, TrainLimits
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.estimating.dimensions import dimensions
from trimtab_trainer.estimating.fitting import check_held, warnings_of_limits

from .test_estimate import GIB, LLAMA_8B, LLAMA_70B, document


def said(model: dict[str, Any], limits: dict[str, Any], *, tokens: int = 1_000_000, **sections: Any) -> list[str]:
    config = RunConfig.model_validate({**document(maxSequenceLength=2048), **sections})
    dims = dimensions(shapes_of_config(model), model, config.adapter)
    return warnings_of_limits(TrainLimits.model_validate(limits), dims, config, tokens=tokens, longest=2048)


GPU = {"accelerators": 1, "acceleratorProduct": "NVIDIA-L4"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {
    "an accelerator that holds it": (LLAMA_8B, GPU, {}, []),
    "an accelerator that does not": (
        LLAMA_70B,
        GPU,
        {},
        [
            "training takes about ",
            "(base model 36.8 GiB, adapter 3.1 GiB, ",
            "and NVIDIA-L4 has 21.9 GiB for it: take A100-80GB or a larger one, or 4 of these, which divide the base "
            "model, or lower training.maxSequenceLength",
        ],
    ),
    "plain LoRA where NF4 would do": (
        LLAMA_8B,
        GPU,
        {"quantization": {"type": "None"}, "lora": {"rank": 256}},
        ["base model 15.0 GiB", "set quantization.type: NF4 or lower lora.rank or set training.optimizer: AdamW8bit"],
    ),
    "an accelerator that is not known": (LLAMA_70B, {**GPU, "acceleratorProduct": "Quadro-K600"}, {}, []),
    "a slice of one": (LLAMA_70B, {**GPU, "acceleratorProduct": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}, {}, []),
    "a product, but no device is asked for": (LLAMA_8B, {"acceleratorProduct": "Tesla-T4"}, {}, []),
    "nothing is known": (LLAMA_70B, {}, {}, []),
    "memory that suffices beside an accelerator": (LLAMA_70B, {"accelerators": 1, "memoryBytes": 8 * GIB}, {}, []),
    "memory that does not suffice beside an accelerator": (
        LLAMA_8B,
        {"accelerators": 1, "memoryBytes": GIB // 2},
        {},
        [
            "beside the accelerator training takes at least ",
            "a checkpoint 0.5 GiB), and its limit is 0.5 GiB: raise template.resources.limits.memory",
        ],
    ),
    "memory of a processor": (
        LLAMA_8B,
        {"memoryBytes": 6 * GIB},
        {},
        [
            "training takes about ",
            "base model 5.3 GiB",
            "libraries 0.4 GiB",
            "the limit of the pod's memory is 6.0 GiB: raise template.resources.limits.memory, or lower "
            "training.maxSequenceLength",
        ],
    ),
    "memory of a processor that suffices": (LLAMA_8B, {"memoryBytes": 32 * GIB}, {}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_what_will_not_hold_a_run(case: str) -> None:
    model, limits, sections, want = CASES[case]
    found = said(model, limits, **sections)
    assert len(found) == bool(want)
    assert all(part in found[0] for part in want), found
    assert all(len(each) < 400 for each in found), "the condition has 512 characters"


def test_what_is_said_to_hold_it_holds_it() -> None:
    taken = said(LLAMA_8B, {"memoryBytes": 6 * GIB})[0].removeprefix("training takes about ").partition(" GiB")[0]
    assert said(LLAMA_8B, {"memoryBytes": int((float(taken) + 0.06) * GIB)}) == []
    assert said(LLAMA_70B, {"accelerators": 1, "acceleratorProduct": "A100-80GB"}) == []


WHOLE: dict[str, Any] = {"lora": {"type": "None"}, "quantization": {"type": "None", "computeType": "Float32"}}


@pytest.mark.parametrize(
    ("optimizer", "width"), [("AdamW", 12.0), ("AdamW8bit", 6.1), ("PagedAdamW8bit", 6.1), ("SGD", 4.0)]
)
def test_a_checkpoint_beside_an_accelerator_is_as_large_as_its_optimizer_makes_it(optimizer: str, width: float) -> None:
    """Twelve bytes a weight were told whatever the optimizer, so a limit that suffices was warned of."""
    stored, others = width * 8_030_261_248 / GIB, 0.44 + 0.016
    limits = {"accelerators": 1, "memoryBytes": int((stored + others + 0.3) * GIB)}
    sections = {**WHOLE, "training": {"optimizer": optimizer, "maxSequenceLength": 2048}}
    assert said(LLAMA_8B, limits, **sections) == []
    (found,) = said(LLAMA_8B, {**limits, "memoryBytes": int((stored + others - 0.3) * GIB)}, **sections)
    assert f"a checkpoint {stored:.1f} GiB" in found


def test_on_a_processor_the_copy_of_a_whole_model_for_its_checkpoint_is_told() -> None:
    """24 bytes a weight while it is copied, where 16 and little more were told."""
    taken = (24 * 8_030_261_248 + (450 << 20)) / GIB
    small: dict[str, Any] = {"training": {"maxSequenceLength": 64, "microBatchSize": 1}}
    (found,) = said(LLAMA_8B, {"memoryBytes": int((taken - 1) * GIB)}, **WHOLE, **small)
    assert f"while a checkpoint ({12 * 8_030_261_248 / GIB:.1f} GiB) is copied" in found
    assert said(LLAMA_8B, {"memoryBytes": int((taken + 1) * GIB)}, **WHOLE, **small) == []


def test_rows_are_in_memory_too() -> None:
    limits = {"accelerators": 1, "memoryBytes": 8 * GIB}
    (found,) = said(LLAMA_8B, limits, tokens=500_000_000)
    assert "data 7.9 GiB" in found


def test_libraries_and_rows_are_in_memory_once_for_each_process() -> None:
    limits = {"accelerators": 2, "memoryBytes": 8 * GIB}
    (found,) = said(LLAMA_8B, limits, tokens=300_000_000)
    assert "data 9.5 GiB" in found
    assert said(LLAMA_8B, {**limits, "accelerators": 1}, tokens=300_000_000) == []


def test_a_base_model_that_one_accelerator_does_not_hold_is_divided_and_that_is_told() -> None:
    """36.8 GiB in NF4 are more than an L4 has: 8 hold a part each, 2 do not, and one does not at all."""

    def checked(count: int, product: str, nodes: int | None = None, **sections: Any) -> None:
        config = RunConfig.model_validate({**document(), **sections})
        dims = dimensions(shapes_of_config(LLAMA_70B), LLAMA_70B, config.adapter)
        check_held(TrainLimits(accelerators=count, accelerator_product=product, nodes=nodes), dims, config)

    def of(count: int, **more: Any) -> list[str]:
        limits = {"accelerators": count, "acceleratorProduct": "NVIDIA-L4", **more}
        return said(LLAMA_70B, limits)

    checked(1, "NVIDIA-L4")  # a warning, which `said` above
    checked(8, "NVIDIA-A100-SXM4-80GB")
    checked(8, "Quadro-K600")
    checked(8, "NVIDIA-L4")
    checked(1, "NVIDIA-L4", nodes=8)
    (told,) = of(8)
    assert told == (
        "one accelerator (NVIDIA-L4) does not hold the base model, so it is divided among all 8: each fetches the "
        "others' parts layer by layer in every pass, which takes longer where the way between them is slow"
    )
    assert of(4, nodes=2) == [told]
    assert len(of(1)) == 1
    assert "divided" not in of(1)[0]
    with pytest.raises(SettingsInvalid) as refused:
        checked(2, "NVIDIA-L4")
    assert refused.value.message == (
        "the base model takes 22.3 GiB of each of the 2 accelerators that it is divided among, and NVIDIA-L4 holds "
        "21.9 GiB; take larger ones or more of them"
    )
    with pytest.raises(SettingsInvalid, match=r"or more of them, or set quantization\.type: NF4"):
        checked(2, "NVIDIA-A100-SXM4-40GB", quantization={"type": "None"})
    with pytest.raises(SettingsInvalid, match=r"lora\.useDora: .* set lora\.useDora: false"):
        checked(8, "NVIDIA-L4", lora={"useDora": True})


def test_all_weights_of_a_model_are_not_divided() -> None:
    config = RunConfig.model_validate({**document(), **WHOLE})
    dims = dimensions(shapes_of_config(LLAMA_8B), LLAMA_8B, config.adapter)
    with pytest.raises(SettingsInvalid, match="because only the base model of an adapter is divided among them, and"):
        check_held(TrainLimits(accelerators=8, accelerator_product="NVIDIA-L4"), dims, config)


def test_limits_are_read_from_the_environment_as_far_as_they_are_understood() -> None:
    assert TrainLimits.told({}) is None
    told = TrainLimits.told({"TRIMTAB_TRAIN_LIMITS": '{"memoryBytes": 5, "of a later version": true}'})
    assert told == TrainLimits(memory_bytes=5)
    for text in ("", "[]", "{", '{"memoryBytes": "much"}', '{"accelerators": -1}'):
        with pytest.raises(ValueError, match="validation error"):
            TrainLimits.told({"TRIMTAB_TRAIN_LIMITS": text})
