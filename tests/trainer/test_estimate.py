"""`estimate`: sizes from config.json or headers, what fits where, and in words and JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_trainer.__main__ import USAGE, main
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.base.decoders import shapes_of_config
from trimtab_trainer.contract import ExitCode, LoraSettings, RunConfig, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.estimating.devices import DEVICES, find_device
from trimtab_trainer.estimating.dimensions import Dimensions, dimensions
from trimtab_trainer.estimating.estimate import Estimate, estimate
from trimtab_trainer.estimating.memory import Memory

from .tiny import make_tiny_experts, make_tiny_model

GIB = 1 << 30
LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}


def document(**training: Any) -> dict[str, Any]:
    return {
        "baseModel": {"uri": "s3://models/base"},
        "dataset": {"training": {"uri": "s3://data/rows/"}},
        "output": {"uri": "s3://models/out"},
        "training": training,
    }


def sizes(config: dict[str, Any], **lora: Any) -> Dimensions:
    return dimensions(shapes_of_config(config), config, LoraSettings.model_validate(lora))


@pytest.mark.parametrize(
    ("config", "weights", "base"), [(LLAMA_8B, 8.03e9, 5.31), (LLAMA_70B, 70.55e9, 36.8)], ids=["8B", "70B"]
)
def test_weights_and_their_bytes_are_those_that_are_known(config: dict[str, Any], weights: float, base: float) -> None:
    dims = sizes(config)
    assert dims.weights == pytest.approx(weights, rel=1e-3)
    found = estimate(dims, RunConfig.model_validate(document()), DEVICES[-1])
    assert found.memory.base / GIB == pytest.approx(base, rel=0.005)


def test_rank_16_on_all_layers_of_8b_is_42_million_weights() -> None:
    adapter = sum(16 * (each.ins + each.outs) for each in sizes(LLAMA_8B).adapted)
    assert adapter == 41_943_040
    some = sizes(LLAMA_8B, targetModules=["q_proj", "v_proj"])
    assert len(some.adapted) == 64


def test_headers_and_config_alone_tell_the_same(tiny_model: Path) -> None:
    model = find_base_model(StoredBaseModel(uri=tiny_model.as_uri()))
    lora = LoraSettings()
    alone = dimensions(shapes_of_config(model.config), model.config, lora)
    assert dimensions(read_shapes(model), model.config, lora) == alone


def test_of_another_kind_config_alone_is_not_enough() -> None:
    with pytest.raises(SettingsInvalid, match=r"is of model_type 'mixtral'.*give the folder with their files"):
        shapes_of_config(LLAMA_8B | {"model_type": "mixtral"})
    with pytest.raises(SettingsInvalid, match="has no hidden_size, vocab_size"):
        shapes_of_config({key: value for key, value in LLAMA_8B.items() if key not in ("hidden_size", "vocab_size")})


def test_what_fits_where() -> None:
    config = RunConfig.model_validate(document(maxSequenceLength=2048))
    fits = {
        name: {device.name for device in DEVICES if estimate(sizes(model), config, device).fits}
        for name, model in (("8B", LLAMA_8B), ("70B", LLAMA_70B))
    }
    assert fits["8B"] == {device.name for device in DEVICES}
    assert fits["70B"] == {"A100-80GB", "H100-80GB", "H100-NVL", "H20", "H200", "B200", "MI300X"}


def test_where_an_accelerator_has_no_bfloat16_auto_is_float16() -> None:
    def base(device: str, compute: str) -> int:
        config = RunConfig.model_validate({**document(), "quantization": {"type": "None", "computeType": compute}})
        found = find_device(device)
        assert found is not None
        return estimate(sizes(LLAMA_8B), config, found).memory.base

    assert base("T4", "Auto") == base("T4", "Float16") == base("H200", "BFloat16") == base("T4", "Float32") // 2


def test_experts_that_are_adapted_take_an_adapter_and_a_copy(tmp_path: Path) -> None:
    model = find_base_model(StoredBaseModel(uri=make_tiny_experts(tmp_path).as_uri()))
    shapes, names = read_shapes(model), ["experts.gate_up_proj", "experts.down_proj"]

    def of(names: list[str] | None, micro: int = 1) -> tuple[Dimensions, Memory]:
        lora = {"dropout": 0, "rank": 2, "targetParameters": names, "targetModules": ["q_proj"]}
        training = {"microBatchSize": micro, "batchSize": 4, "maxSequenceLength": 64}
        config = RunConfig.model_validate({**document(**training), "lora": lora})
        dims = dimensions(shapes, model.config, config.lora)
        return dims, estimate(dims, config, DEVICES[-1]).memory

    (without, least), (dims, memory) = of(None), of(names)
    assert [(each.count, each.sides, each.size) for each in dims.joined] == [(4, 192, 32768), (4, 256, 65536)] * 2
    assert dims.weights == without.weights == sum(math.prod(shape) for shape in shapes.values())
    assert memory.base == least.base
    assert memory.adapter - least.adapter == 2 * 4 * (192 + 256) * 2 * 16
    assert memory.activations - least.activations == pytest.approx(1.03 * 2 * 2 * (32768 + 65536), rel=0.01)


def test_more_of_anything_takes_more() -> None:
    dims, device = sizes(LLAMA_8B), DEVICES[-1]

    def peak(lora: int = 16, **training: Any) -> int:
        config = RunConfig.model_validate(
            {**document(batchSize=8, microBatchSize=2, maxSequenceLength=1024, **training), "lora": {"rank": lora}}
        )
        return estimate(dims, config, device).memory.peak

    assert peak() < peak(lora=64)
    assert peak(optimizer="AdamW8bit") < peak(optimizer="AdamW")
    longer = RunConfig.model_validate(document(batchSize=8, microBatchSize=2, maxSequenceLength=2048))
    assert (
        estimate(dims, longer, device).memory.activations
        > 1.9
        * estimate(
            dims, RunConfig.model_validate(document(batchSize=8, microBatchSize=2, maxSequenceLength=1024)), device
        ).memory.activations
    )


def test_time_is_tokens_over_speed_and_steps_are_tokens_too() -> None:
    dims, device = sizes(LLAMA_8B), find_device("H100-80GB")
    assert device is not None
    config = RunConfig.model_validate(document(epochs=2))
    assert estimate(dims, config, device).seconds is None
    found = estimate(dims, config, device, tokens=1_000_000)
    assert found.seconds == pytest.approx(2_000_000 / found.tokens_per_second)
    steps = RunConfig.model_validate(document(maxSteps=10, batchSize=4, maxSequenceLength=512))
    counted = estimate(dims, steps, device)
    assert counted.seconds == pytest.approx(10 * 4 * 512 / counted.tokens_per_second)
    assert 3_000 < found.tokens_per_second < 22_000, "between a third of what is published, and the physical limit"


def test_several_accelerators_take_as_much_of_their_time_and_a_part_of_ours() -> None:
    config = RunConfig.model_validate(document(maxSequenceLength=2048, batchSize=4))
    device = find_device("H100-80GB")
    assert device is not None
    one = estimate(sizes(LLAMA_8B), config, device, 1_000_000).to_json()
    four = estimate(sizes(LLAMA_8B), config, device, 1_000_000, accelerators=4).to_json()
    assert (one["microBatch"], four["microBatch"], four["accelerators"]) == (2, 1, 4)
    assert four["seconds"] == pytest.approx(four["acceleratorSeconds"] / 4, abs=1)
    assert one["acceleratorSeconds"] <= four["acceleratorSeconds"] < 2 * one["acceleratorSeconds"]
    assert four["peakBytes"] < one["peakBytes"]


def test_pairs_take_both_answers_and_what_they_are_compared_with_takes_passes() -> None:
    dims, device = sizes(LLAMA_8B), find_device("H100-80GB")
    assert device is not None

    def found(method: str) -> Estimate:
        config = RunConfig.model_validate(document(epochs=2, maxSequenceLength=512, method=method))
        return estimate(dims, config, device, tokens=1_000_000)

    plain, dpo, kto, orpo = map(found, ("SFT", "DPO", "KTO", "ORPO"))
    assert orpo.micro_batch * 2 <= plain.micro_batch, "a pair is two sequences"
    assert kto.memory == plain.memory
    for one, passes in ((orpo, 1.0), (dpo, 1 + 1 / 6), (kto, 1 + 1 / 3 + 1 / 3)):
        assert one.seconds == pytest.approx(passes * 2_000_000 / one.tokens_per_second)


@pytest.mark.parametrize(
    ("product", "want"),
    [
        ("NVIDIA-H100-80GB-HBM3", "H100-80GB"),
        ("NVIDIA-H100-NVL", "H100-NVL"),
        ("NVIDIA-H100-PCIe", "H100-80GB"),
        ("NVIDIA-H20", "H20"),
        ("NVIDIA-L40", "L40"),
        ("NVIDIA-A30", "A30"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        ("a100", "A100-40GB"),
        ("Tesla-T4", "T4"),
        ("Tesla-V100-SXM2-32GB", "V100-32GB"),
        ("NVIDIA-GeForce-RTX-4090", "RTX-4090"),
        ("NVIDIA-L40S", "L40S"),
        ("NVIDIA-L4", "L4"),
        ("NVIDIA-H200", "H200"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", None),
        ("AMD-Instinct-MI300X", "MI300X"),
        ("Quadro-K600", None),
        ("", None),
        ("NVIDIA-RTX-A6000", None),
    ],
)
def test_devices_are_known_by_the_labels_of_nodes(product: str, want: str | None) -> None:
    device = find_device(product)
    assert (device.name if device else None) == want


def command(folder: Path, *more: str) -> list[str]:
    (folder / "run.yaml").write_text(yaml.safe_dump(document(epochs=1)))
    (folder / "config.json").write_text(json.dumps(LLAMA_70B))
    return ["estimate", "--config", str(folder / "run.yaml"), "--model-config", str(folder / "config.json"), *more]


def test_the_table_is_for_people_and_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "--tokens", "5000000", "--accelerator", "H100", "--accelerator", "L4")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("70.55 billion weights, NF4, rank 16")
    assert [line.split()[:2] for line in lines[3:]] == [["H100-80GB", "yes"], ["L4", "no"]]
    assert main(command(tmp_path, "--json", "--accelerator", "H100")) == 0
    (found,) = json.loads(capsys.readouterr().out)["estimates"]
    assert found["fits"]
    assert found["peakBytes"] == sum(found["parts"].values())
    assert found["seconds"] is None
    assert math.isfinite(found["tokensPerSecond"])


def test_a_base_model_that_one_does_not_hold_is_divided_among_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each then holds its part of 36.8 GiB but norms, and two embeddings, which are larger than a layer."""
    device = find_device("A100-40GB")
    assert device is not None
    config = RunConfig.model_validate(document(maxSequenceLength=2048))
    one, two, four = (estimate(sizes(LLAMA_70B), config, device, accelerators=count) for count in (1, 2, 4))
    assert [(each.fits, each.among) for each in (one, two, four)] == [(False, 1), (True, 2), (True, 4)]
    table = 128_256 * 8192 * 2
    for each in (two, four):
        assert each.memory.base == pytest.approx(one.memory.base / each.among + 2 * table, rel=1e-3)
        assert each.to_json()["baseDividedAmong"] == each.among
    chosen = ("--accelerators", "8", "--accelerator", "H100", "--accelerator", "L4")
    assert main(command(tmp_path, *chosen)) == 0
    about, _, _, larger, smaller = capsys.readouterr().out.splitlines()
    assert about.endswith("sizes are of each; divided: each holds its part of the base model")
    assert (larger.split()[:2], smaller.split()[:3]) == (["H100-80GB", "yes"], ["L4", "yes,", "divided"])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "longer than the model takes": ({"maxSequenceLength": 8193}, {}, "training.maxSequenceLength is 8193"),
    "layers that are not there": ({}, {"targetModules": ["qproj"]}, "no linear layer named qproj; it has down_proj"),
    "experts of a model that has none": (
        {},
        {"targetParameters": ["experts.down_proj"], "dropout": 0},
        "lora.targetParameters: the base model has no joined tensor",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("alone", [True, False], ids=["config.json alone", "the folder"])
def test_what_prepare_refuses_of_a_model_has_no_estimate(
    case: str, alone: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, lora, words = REFUSED[case]
    folder = make_tiny_model(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    settings = document(**training) | {"baseModel": {"uri": folder.as_uri()}, "lora": lora}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    of = ["--model-config", str(folder / "config.json")] if alone else []
    command = ["estimate", "--config", str(tmp_path / "run.yaml"), *of, "--accelerator", "L4"]
    assert main(command) == ExitCode.SETTINGS_INVALID
    assert words in capsys.readouterr().err


def test_a_base_model_that_is_not_whole_has_no_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_tiny_model(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))
    settings = document(maxSequenceLength=64) | {"baseModel": {"uri": folder.as_uri()}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert (
        main(["estimate", "--config", str(tmp_path / "run.yaml"), "--accelerator", "L4"]) == ExitCode.SETTINGS_INVALID
    )
    assert "its weights have 2 layers, but num_hidden_layers is 3" in capsys.readouterr().err


def test_several_pods_have_so_many_accelerators_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "--json", "--accelerator", "H100", "--accelerators", "4", "--nodes", "2")) == 0
    (found,) = json.loads(capsys.readouterr().out)["estimates"]
    assert found["accelerators"] == 8


def test_an_accelerator_that_is_not_known_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, "--accelerator", "K80")) == ExitCode.SETTINGS_INVALID
    assert "--accelerator K80 is not known; there are T4, " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--tokens", "--accelerators", "--nodes"])
def test_numbers_that_nobody_has_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "--config", "run.yaml", option, "0"]) == USAGE
    assert f"argument {option}: '0' is no whole number from 1" in capsys.readouterr().err


def test_it_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from trimtab_trainer.__main__ import main; "
        f"code = main({command(tmp_path)!r}); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
