"""Which layers an adapter reaches, from names and shapes alone; and what `prepare` says of those it does not reach."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.base.architecture import target_modules, target_parameters
from trimtab_trainer.base.layers import Shapes, reach
from trimtab_trainer.contract import LoraSettings, Reason, RunConfig
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.serving_limits import serving_warnings

from tests.trainer.tiny import make_tiny_experts, make_tiny_model, tiny_rows, write_rows


def dense(layer: int = 0) -> Shapes:
    """Return one layer of a dense model."""
    at = f"model.layers.{layer}"
    attention = {f"{at}.self_attn.{name}_proj.weight": [8, 8] for name in "qkvo"}
    return attention | {f"{at}.mlp.{name}_proj.weight": [16, 8] for name in ("gate", "up")} | {
        f"{at}.mlp.down_proj.weight": [8, 16],
        f"{at}.input_layernorm.weight": [8],
    }  # fmt: skip


def mixture(at: str = "model.layers.1.mlp", names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")) -> Shapes:
    """Return the experts of a layer and their router, as most are published."""
    experts = {f"{at}.experts.{n}.{name}.weight": [4, 8] for n in range(4) for name in names}
    return experts | {f"{at}.gate.weight": [4, 8], f"{at}.gate.e_score_correction_bias": [4]}


SHARED: Shapes = {f"model.layers.1.mlp.shared_experts.{name}.weight": [4, 8] for name in ("gate_proj", "up_proj")}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
EMBEDDING: Shapes = {"model.embed_tokens.weight": [32, 8], "lm_head.weight": [32, 8]}

REACHED: dict[str, tuple[dict[str, Any], Shapes, set[str], int]] = {
    "all of a dense model but its tables": ({"model_type": "llama"}, dense() | EMBEDDING, ATTENTION | MLP, 7),
    "no expert and no router": ({"model_type": "qwen2_moe"}, dense() | mixture(), ATTENTION | MLP, 7),
    "a shared expert where its name is its own": (
        {"model_type": "qwen2_moe"}, dense() | mixture() | SHARED, ATTENTION | MLP, 9,
    ),
    "nothing that peft takes for experts": ({"model_type": "deepseek_v3"}, dense() | mixture() | SHARED, ATTENTION, 4),
    "the same with names of Mixtral's": (
        {"model_type": "mixtral"},
        dense() | mixture("model.layers.1.block_sparse_moe", ("w1", "w2", "w3")),
        ATTENTION,
        4,
    ),
    "no experts that are joined already": (
        {"model_type": "gpt_oss"},
        dense() | {"model.layers.0.mlp.experts.gate_up_proj": [4, 8, 16], "model.layers.0.mlp.router.weight": [4, 8]},
        ATTENTION | MLP,
        7,
    ),
    "no experts by shape alone": (
        {"model_type": "granitemoe"},
        dense()
        | {
            "model.layers.0.block_sparse_moe.input_linear.weight": [4, 16, 8],
            "model.layers.0.block_sparse_moe.router.layer.weight": [4, 8],
        },
        ATTENTION | MLP,
        7,
    ),
    "a layer named gate where there are no experts": (
        {"model_type": "llama"}, dense() | {"model.layers.0.mlp.gate.weight": [8, 8]}, ATTENTION | MLP | {"gate"}, 8,
    ),
    "no layers that predict further tokens": (
        {"model_type": "glm4_moe", "num_hidden_layers": 1},
        dense() | dense(1) | {"model.layers.1.eh_proj.weight": [8, 16], "mtp.layers.0.self_attn.q_proj.weight": [8, 8]},
        ATTENTION | MLP,
        7,
    ),
    "no out_proj of Mamba, and no dt_proj": (
        {"model_type": "falcon_mamba"},
        {f"backbone.layers.0.mixer.{name}.weight": [8, 8] for name in ("in_proj", "x_proj", "dt_proj", "out_proj")}
        | {"backbone.layers.0.mixer.conv1d.weight": [8, 1, 4]},
        {"in_proj", "x_proj"},
        2,
    ),
    "no out_proj that fused kernels take, beside layers of attention": (
        {"model_type": "granitemoehybrid"},
        dense() | {f"model.layers.1.mamba.{name}.weight": [8, 8] for name in ("in_proj", "out_proj")},
        ATTENTION | MLP | {"in_proj"},
        8,
    ),
    "no chooser of sparse attention": (
        {"model_type": "deepseek_v32"}, dense() | {"model.layers.0.self_attn.indexer.wk.weight": [8, 8]},
        ATTENTION | MLP, 7,
    ),
}  # fmt: skip


def beside_vision(prefix: str) -> Shapes:
    """Return a layer of text under a name, and a tower of vision with layers of the same names."""
    text = {name.replace("model.layers", prefix): shape for name, shape in dense().items()}
    return text | {
        "model.visual.blocks.0.attn.q_proj.weight": [8, 8],
        "vision_tower.encoder.layers.0.mlp.up_proj.weight": [16, 8],
        "vision_tower.patch_embed.weight": [8, 4],
        "multi_modal_projector.linear_1.weight": [8, 8],
        "lm_head.weight": [32, 8],
    }


IMAGES: dict[str, Any] = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {"num_hidden_layers": 1},
}
REACHED |= {
    f"the text part alone, as {prefix}": (IMAGES, beside_vision(prefix), ATTENTION | MLP, 7)
    for prefix in (
        "language_model.model.layers",
        "model.language_model.layers",
        "model.text_model.layers",
        "model.layers",
    )
}


@pytest.mark.parametrize("name", REACHED)
def test_all_linear_reaches(name: str) -> None:
    config, shapes, names, count = REACHED[name]
    layers = target_modules(shapes, LoraSettings(), config)
    assert {layer.rpartition(".")[2] for layer in layers} == names
    assert len(layers) == count


def test_weights_of_experts_are_counted() -> None:
    reached = reach(dense() | mixture(), {"model_type": "deepseek_v3"})
    assert (reached.expert_weights, reached.weights) == (12 * 32, 4 * 64 + 3 * 128 + 8 + 12 * 32 + 32 + 4)
    assert reached.unreached().startswith("384 of the base model's 1,068 weights are in experts, which are neither")
    assert reached.unreached().endswith("nor layers named as experts' are")
    assert not reach(dense(), {"model_type": "llama"}).unreached()


def test_weights_beside_the_text_are_counted() -> None:
    reached = reach(beside_vision("model.language_model.layers"), IMAGES)
    assert reached.other_weights == 64 + 128 + 32 + 64 + 256
    assert reached.weights == reached.other_weights + 4 * 64 + 3 * 128 + 8


def adapts(shapes: Shapes, *names: str, kind: str = "qwen3_moe") -> list[str]:
    lora = LoraSettings(dropout=0, target_parameters=list(names))
    return target_parameters(shapes, lora, {"model_type": kind})


def test_joined_tensors_of_experts_are_found_by_the_names_they_have_in_memory() -> None:
    at = "model.layers.1.mlp.experts"
    assert adapts(dense() | mixture(), "experts.gate_up_proj") == [f"{at}.gate_up_proj"]
    assert adapts(dense() | mixture(), "down_proj", f"{at}.gate_up_proj") == [f"{at}.down_proj", f"{at}.gate_up_proj"]
    joined = dense() | {
        "model.layers.0.mlp.experts.gate_up_proj": [4, 8, 16],
        "model.layers.0.mlp.experts.bias": [4, 16],
    }
    assert adapts(joined, "experts.gate_up_proj", kind="gpt_oss") == ["model.layers.0.mlp.experts.gate_up_proj"]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (dense() | mixture(), r"named experts\.up_proj; it has experts\.down_proj, experts\.gate_up_proj"),
        (dense(), r"it has none: leave lora\.targetParameters out"),
    ],
)
def test_parameters_that_are_no_experts_are_refused(shapes: Shapes, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words) as caught:
        adapts(shapes, "experts.up_proj")
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND


def test_what_is_told_of_experts_says_how_many_are_adapted() -> None:
    reached = reach(dense() | mixture(), {"model_type": "qwen3_moe"})
    assert "neither quantized nor adapted" in reached.unreached()
    assert "not quantized; 1 of their 2 tensors are adapted" in reached.unreached(1)


@pytest.mark.parametrize("target", ["gate_proj", "experts.0.up_proj", "gate", "model.layers.1.mlp.experts.2.down_proj"])
def test_a_name_that_means_only_experts_is_refused(target: str) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be adapted in a mixture of experts") as caught:
        target_modules(
            dense() | mixture(), LoraSettings(target_modules=["q_proj", target]), {"model_type": "qwen3_moe"}
        )
    assert caught.value.reason is Reason.TARGET_MODULES_NOT_FOUND
    assert target in caught.value.message


def run_of(base: Path, folder: Path, **lora: Any) -> RunConfig:
    write_rows(folder / "data/a.jsonl", tiny_rows(16))
    return RunConfig.model_validate({
        "baseModel": {"uri": base.as_uri()},
        "dataset": {"training": {"uri": (folder / "data").as_uri() + "/"}},
        "output": {"uri": (folder / "out").as_uri()},
        "lora": lora,
        "training": {"maxSequenceLength": 128},
    })  # fmt: skip


def test_prepare_counts_what_train_adapts_and_warns_of_the_rest(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = run_of(make_tiny_experts(tmp_path / "base"), tmp_path)
    outcome = prepare(config, tmp_path / "scratch", Report(stream=stream))
    events = {event["message"]: event for event in map(json.loads, stream.getvalue().splitlines())}
    assert events["base model checked"]["adapted"] == 8, "q, k, v and o of two layers"
    assert outcome.warnings == (
        "196,608 of the base model's 345,856 weights are in experts, which are neither quantized nor adapted; its "
        "routers are not adapted, nor layers named as experts' are",
    )


def test_prepare_refuses_experts_by_name_before_there_is_a_gpu(tmp_path: Path) -> None:
    config = run_of(make_tiny_experts(tmp_path / "base"), tmp_path, targetModules=["gate_proj", "up_proj", "down_proj"])
    with pytest.raises(SettingsInvalid, match="it has k_proj, o_proj, q_proj, v_proj; down_proj, gate_proj, up_proj"):
        prepare(config, tmp_path / "scratch", Report())


@pytest.mark.parametrize("kind", ["mamba", "bert", "whisper", "deepseek_v4"])
def test_a_kind_that_cannot_be_trained_is_refused_by_prepare(tmp_path: Path, kind: str) -> None:
    base = make_tiny_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    with pytest.raises(SettingsInvalid, match=f"model_type '{kind}' is not supported") as caught:
        prepare(run_of(base, tmp_path), tmp_path / "scratch", Report())
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def retold(folder: Path, **changes: Any) -> Path:
    """Return the tiny model with another config.json."""
    base = make_tiny_model(folder)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **changes}))
    return base


def test_a_model_with_vision_whose_text_is_not_told_is_refused_with_what_to_take(tmp_path: Path) -> None:
    base = retold(tmp_path / "base", architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3")
    with pytest.raises(
        SettingsInvalid, match=r"no text_config .*take a text model such as Gemma3ForCausalLM"
    ) as caught:
        prepare(run_of(base, tmp_path), tmp_path / "scratch", Report())
    assert caught.value.reason is Reason.BASE_MODEL_INVALID


def test_a_text_part_alone_that_transformers_does_not_load_is_refused(tmp_path: Path) -> None:
    base = retold(tmp_path / "base", architectures=["MllamaForCausalLM"], model_type="mllama_text_model")
    with pytest.raises(SettingsInvalid, match="has no language model of model_type 'mllama_text_model' alone"):
        prepare(run_of(base, tmp_path), tmp_path / "scratch", Report())


def test_packing_is_refused_where_rows_would_influence_each_other(tmp_path: Path) -> None:
    base = retold(tmp_path / "base", architectures=["FalconForCausalLM"], model_type="falcon")
    with pytest.raises(SettingsInvalid, match=r"training\.packing: .*'falcon'; set it to false"):
        prepare(run_of(base, tmp_path), tmp_path / "scratch", Report())


SERVED: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "the default": ({}, [], []),
    "the largest": ({"rank": 512}, [], []),
    "a rank between": ({"rank": 24}, [], ["no --max-lora-rank 24; serve this adapter with 32"]),
    "DoRA": ({"useDora": True}, [], ["engines do not serve DoRA"]),
    "half of the experts": ({}, ["a.experts.down_proj"], ["down_proj and gate_up_proj are both adapted"]),
    "experts": ({}, ["a.experts.down_proj", "a.experts.gate_up_proj"], ["of those kinds alone"]),
}


@pytest.mark.parametrize("case", SERVED)
def test_what_engines_would_not_take_is_told(case: str) -> None:
    lora, parameters, words = SERVED[case]
    warnings = serving_warnings(LoraSettings.model_validate(lora), parameters)
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


def test_limits_of_engines_are_warnings_of_prepare(tmp_path: Path) -> None:
    outcome = prepare(run_of(make_tiny_model(tmp_path / "base"), tmp_path, useDora=True), tmp_path / "s", Report())
    assert [warning.partition(":")[0] for warning in outcome.warnings] == ["lora.useDora"]


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "dropout on parameters": ({"targetParameters": ["experts.down_proj"]}, "targetParameters needs dropout: 0"),
    "DoRA on parameters": (
        {"targetParameters": ["a"], "dropout": 0, "useDora": True}, "useDora adapts linear layers alone",
    ),
    "a parameter twice": ({"targetParameters": ["a", "a"], "dropout": 0}, "must not repeat a name"),
    "whole modules": ({"modulesToSave": ["lm_head"]}, "whole copies of layers, which engines do not serve"),
    "an adapter without its digest": ({"initialAdapter": {"uri": "s3://bucket/adapters/a"}}, "digest"),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_settings_that_cannot_go_together_are_refused_with_the_reason(case: str) -> None:
    lora, words = INVALID[case]
    with pytest.raises(ValueError, match=words):
        LoraSettings.model_validate(lora)


def test_new_settings_at_their_defaults_are_not_written() -> None:
    assert LoraSettings().to_json() == {"rank": 16, "alpha": 32.0, "dropout": 0.05, "targetModules": ["all-linear"]}


@pytest.mark.parametrize(
    ("kind", "layer", "why"),
    [
        ("jamba", "dt_proj", "which uses its weights past an adapter"),
        ("bamba", "out_proj", "of which fused kernels (mamba_ssm), where they are installed, use its weights"),
    ],
)
def test_what_is_used_past_an_adapter_is_refused_by_its_own_reason(kind: str, layer: str, why: str) -> None:
    shapes = dense() | {
        f"model.layers.0.mamba.{layer}.weight": [8, 8],
        "model.layers.0.feed_forward.experts.0.up_proj.weight": [16, 8],
    }
    settings = LoraSettings.model_validate({"targetModules": [layer, "router"]})
    with pytest.raises(SettingsInvalid) as caught:
        target_modules(shapes, settings, {"model_type": kind})
    said = str(caught.value)
    assert f"{layer} cannot be adapted in this kind of model, {why}" in said
    assert "; router cannot be adapted in a mixture of experts" in said
