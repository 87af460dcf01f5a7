"""What is merged is what was trained: over the same quantized base, to the last bit that the stored type has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.contract import LoraSettings, QuantizationSettings, StoredBaseModel, WeightType
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.exporting.adaptation import Adaptation
from trimtab_trainer.exporting.merge import Merge
from trimtab_trainer.exporting.tensor_files import TYPES, Planned, write_tensors
from trimtab_trainer.exporting.training_weights import as_trained, held
from trimtab_trainer.training.machine import hardware
from trimtab_trainer.training.network.adapter import add_adapter
from trimtab_trainer.training.network.model import load_base

from tests.trainer.tiny import CHATML_GENERATION, make_tiny_experts, make_tiny_model
from tests.trainer.train.families import make_family
from tests.trainer.train.runs import shake

from .models import CPU, NF4, Trained, answers, divergence, loaded, trained

PLAIN = {"type": "None", "computeType": "Float32"}
KINDS: dict[str, dict[str, Any]] = {
    "over NF4": {"quantization": NF4},
    "over NF4 without double quantization": {"quantization": NF4 | {"doubleQuantization": False}},
    "over a base that was not quantized": {"quantization": PLAIN},
    "scaled by the root of the rank": {"quantization": NF4, "lora": {"useRslora": True}},
    "with lengths of its own, DoRA": {"quantization": NF4, "lora": {"useDora": True}},
    "on some layers alone": {"quantization": NF4, "lora": {"targetModules": ["q_proj", "down_proj"]}},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_the_merged_model_answers_as_the_base_with_the_adapter_does(kind: dict[str, Any], tmp_path: Path) -> None:
    made = trained(tmp_path, **kind)
    _, folder = made.export(tmp_path / "scratch")
    ours = made.logits(kind["quantization"])
    assert divergence(ours, loaded(folder)) < 1e-9
    assert divergence(ours, loaded(tmp_path / "base")) > 1e-4  # the adapter does something


def test_in_bfloat16_it_is_as_far_off_as_that_type_is(usual: Trained, tmp_path: Path) -> None:
    _, exact = usual.export(tmp_path / "scratch")
    _, folder = usual.export(tmp_path / "scratch", weightType="BFloat16")
    stored, precise = load_file(folder / "model.safetensors"), load_file(exact / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, precise[name].bfloat16()) for name, tensor in stored.items())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = AutoModelForCausalLM.from_pretrained(usual.root / "base", dtype=torch.bfloat16).float()
    of_the_type = divergence(loaded(usual.root / "base"), answers(rounded))
    assert divergence(usual.logits(NF4), loaded(folder)) < 2 * of_the_type


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("double", [True, False])
def test_the_base_is_dequantized_to_the_bits_that_training_saw(kind: torch.dtype, double: bool, tmp_path: Path) -> None:
    hardware.import_bitsandbytes()
    import bitsandbytes

    folder = make_tiny_model(tmp_path / "base")
    settings = QuantizationSettings(double_quantization=double)
    modules = dict(load_base(folder, settings, kind, CPU).named_modules())
    quantized = {name for name, module in modules.items() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 it is no dict
        linears = held(folder, shapes, settings, kind).linears
        assert {name for name, linear in linears.items() if linear.quantized} == quantized
        for name in quantized:
            weight: Any = modules[name].weight
            expected = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            mine = as_trained(file.get_tensor(f"{name}.weight"), linears[name], settings, kind)
            assert mine.dtype == kind
            assert torch.equal(mine, expected)


def test_a_model_in_several_files_keeps_them(tmp_path: Path) -> None:
    def in_two(folder: Path) -> None:
        weights = load_file(make_tiny_model(folder) / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        places = {name: f"model-0000{1 + (index % 2)}-of-00002.safetensors" for index, name in enumerate(names)}
        for shard in sorted(set(places.values())):
            save_file({name: weights[name] for name in names if places[name] == shard}, folder / shard)
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    made = trained(tmp_path, in_two, quantization=NF4)
    exported, folder = made.export(tmp_path / "scratch")
    assert sorted(each.name for each in folder.glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    assert divergence(made.logits(NF4), loaded(folder)) < 1e-9
    assert exported.size_bytes == sum(each.stat().st_size for each in folder.iterdir() if each.name != "MANIFEST.json")


def test_tokenizer_generation_settings_and_the_template_of_training_come_along(tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(CHATML_GENERATION)
    sections = {"validation": {"fraction": 0.2}, "chatTemplate": f"file://{tmp_path}/template.jinja"}
    made = trained(tmp_path, quantization=NF4, dataset=sections)
    _, folder = made.export(tmp_path / "scratch")
    assert (folder / "generation_config.json").read_bytes() == (tmp_path / "base/generation_config.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "base/tokenizer.json").read_bytes()
    assert (folder / "chat_template.jinja").read_text() == CHATML_GENERATION
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == CHATML_GENERATION


def test_of_a_mixture_the_experts_stay_as_they_are(tmp_path: Path) -> None:
    made = trained(tmp_path, make_tiny_experts, quantization=NF4)
    _, folder = made.export(tmp_path / "scratch")
    before, after = load_file(tmp_path / "base/model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if ".experts." in name)
    assert divergence(made.logits(NF4), loaded(folder)) < 1e-9


@pytest.mark.parametrize("quantization", [NF4, PLAIN], ids=["NF4", "plain"])
def test_layers_that_lie_turned_in_the_files_are_merged_as_they_lie(
    quantization: dict[str, Any], tmp_path: Path
) -> None:
    def gpt2(folder: Path) -> None:
        make_tiny_model(folder)
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=384, n_positions=512, n_embd=128, n_layer=2, n_head=4, eos_token_id=2)
        # As models of this family are published: without the name of the part before the layers.
        weights = {
            name.removeprefix("transformer."): tensor.clone()
            for name, tensor in GPT2LMHeadModel(config).state_dict().items()
            if name != "lm_head.weight"
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["GPT2LMHeadModel"]}))

    training = {"packing": False}
    made = trained(
        tmp_path, gpt2, quantization=quantization, lora={"targetModules": ["c_attn", "c_fc"]}, training=training
    )
    _, folder = made.export(tmp_path / "scratch")
    assert divergence(made.logits(quantization), loaded(folder)) < 1e-9


@pytest.mark.parametrize(
    "family",
    [
        "llava:LlavaForConditionalGeneration",
        "mistral3:Mistral3ForConditionalGeneration",
        "qwen2_5_vl:Qwen2_5_VLForConditionalGeneration",
        "internvl:InternVLForConditionalGeneration",
    ],
)
@pytest.mark.parametrize("quantization", [NF4, PLAIN], ids=["NF4", "plain"])
def test_layers_that_have_other_names_in_the_files_are_found(
    quantization: dict[str, Any], family: str, tmp_path: Path
) -> None:
    """Vision has layers of the same sizes, and what leads from it to the text was quantized too."""
    make_family(family, tmp_path)
    files = find_base_model(StoredBaseModel(uri=tmp_path.as_uri()))
    shapes, settings = read_shapes(files), QuantizationSettings.model_validate(quantization)
    model = add_adapter(load_base(tmp_path, settings, torch.float32, CPU), LoraSettings(rank=4), torch.float32, 1)
    shake(model)
    weights = {name: tensor.clone() for name, tensor in model.trained_tensors().items()}
    merge = Merge.of(
        tmp_path,
        held(tmp_path, shapes, settings, torch.float32),
        shapes,
        Adaptation({"r": 4, "lora_alpha": 32.0}, weights),
        quantization=settings,
        compute_type=torch.float32,
        weight_type=WeightType.FLOAT32,
    )
    ours = answers(model.peft, vocabulary=256)
    (tmp_path / "merged").mkdir()
    for shard in files.shards:
        merge.write(shard, merge.planned(shard), tmp_path / "merged" / shard)
    shutil.copyfile(tmp_path / "config.json", tmp_path / "merged" / "config.json")
    merged = AutoModelForMultimodalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert divergence(ours, answers(merged, vocabulary=256)) < 1e-9
    plain = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert divergence(ours, answers(plain, vocabulary=256)) > 1e-4


@pytest.mark.parametrize("weight_type", WeightType)
def test_what_training_held_in_float32_is_not_rounded(weight_type: WeightType, tmp_path: Path) -> None:
    """What routes to experts stays in float32 in some mixtures, whatever products are made in."""
    make_family("ernie4_5_moe:Ernie4_5_MoeForCausalLM", tmp_path)
    files = find_base_model(StoredBaseModel(uri=tmp_path.as_uri()))
    shapes, settings = read_shapes(files), QuantizationSettings.model_validate(PLAIN)
    memory = load_base(tmp_path, settings, torch.bfloat16, CPU).state_dict()
    merge = Merge.of(
        tmp_path,
        held(tmp_path, shapes, settings, torch.bfloat16),
        shapes,
        Adaptation({"r": 4, "lora_alpha": 8}, {}),
        quantization=settings,
        compute_type=torch.bfloat16,
        weight_type=weight_type,
    )
    merge.write("model.safetensors", merge.planned("model.safetensors"), tmp_path / "merged")
    found = load_file(tmp_path / "merged")
    routers = [name for name in found if name.endswith("mlp.gate.weight")]
    assert routers
    assert all(memory[name].dtype == torch.float32 for name in routers)
    assert all(torch.equal(found[name], memory[name]) for name in routers)
    query = "model.layers.0.self_attn.q_proj.weight"
    assert found[query].dtype == (torch.bfloat16 if weight_type is WeightType.BFLOAT16 else torch.float32)
    assert torch.equal(found[query].float(), memory[query].float())


def test_each_tensor_is_made_when_its_turn_comes_to_be_written(tmp_path: Path) -> None:
    asked: list[str] = []
    planned = [Planned(f"w{number}", torch.float32, (256, 256)) for number in range(8)]

    def made(name: str) -> torch.Tensor:
        asked.append(name)
        assert (tmp_path / "out").stat().st_size < (len(asked) + 1) * (256 * 256 * 4) + 4096
        return torch.full((256, 256), float(name[1:]))

    write_tensors(tmp_path / "out", planned, made)
    assert asked == [each.name for each in planned]
    assert all(float(tensor.mean()) == float(name[1:]) for name, tensor in load_file(tmp_path / "out").items())
    with pytest.raises(ValueError, match="planned was"):
        write_tensors(tmp_path / "out", planned[:1], lambda name: torch.zeros(2, 2))


def test_every_type_that_safetensors_writes_is_written_as_the_library_does(tmp_path: Path) -> None:
    tensors = {name: torch.ones(2, 3).to(kind) for kind, name in TYPES.items()} | {"none": torch.zeros(0, 4)}
    planned = [Planned(name, each.dtype, tuple(each.shape)) for name, each in tensors.items()]
    write_tensors(tmp_path / "ours", planned, tensors.__getitem__)
    found = load_file(tmp_path / "ours")
    assert found.keys() == tensors.keys()
    for name, each in found.items():
        assert (each.dtype, each.shape) == (tensors[name].dtype, tensors[name].shape)
        assert torch.equal(each.view(torch.uint8), tensors[name].view(torch.uint8))


def test_a_type_that_cannot_be_written_is_refused_by_name(usual: Trained, tmp_path: Path) -> None:
    header = json.dumps({"odd": {"dtype": "F4", "shape": [2, 2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12")
    settings = QuantizationSettings.model_validate(PLAIN)
    merge = Merge(tmp_path, settings, torch.float32, Adaptation.read(usual.adapter), {}, {}, torch.float32)
    with pytest.raises(SettingsInvalid, match=r"odd in odd\.safetensors is of type F4"):
        merge.planned("odd.safetensors")
