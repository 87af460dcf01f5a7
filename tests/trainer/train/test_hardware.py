"""Limits of the control group, in both of its versions, and bfloat16 in hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import ExitCode, Reason, TerminationMessage
from trimtab_trainer.contract.settings import ComputeType
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.training.machine import accelerator, hardware

from tests.trainer.tiny import tiny_rows, write_rows

from .runs import CPU


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


CGROUP = "sys/fs/cgroup"
PROCESSORS = {
    "a container, version 2": ({"proc/self/cgroup": "0::/", f"{CGROUP}/cpu.max": "100000 100000"}, 1),
    "less than one": ({"proc/self/cgroup": "0::/", f"{CGROUP}/cpu.max": "50000 100000"}, 1),
    "four and a half": ({"proc/self/cgroup": "0::/", f"{CGROUP}/cpu.max": "450000 100000"}, 4),
    "no limit": ({"proc/self/cgroup": "0::/", f"{CGROUP}/cpu.max": "max 100000"}, 64),
    "the pod is narrower than the container": (
        {
            "proc/self/cgroup": "0::/kubepods/pod1/container",
            f"{CGROUP}/kubepods/pod1/cpu.max": "200000 100000",
            f"{CGROUP}/kubepods/pod1/container/cpu.max": "max 100000",
        },
        2,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/kubepods/pod1\n3:memory:/kubepods/pod1",
            f"{CGROUP}/cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us": "300000",
            f"{CGROUP}/cpu,cpuacct/kubepods/pod1/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    "version 1 without a limit": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/",
            f"{CGROUP}/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            f"{CGROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        64,
    ),
    "no control groups": ({}, 64),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    files, want = PROCESSORS[case]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert hardware.processors(machine(tmp_path, files)) == want
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert hardware.processors(machine(tmp_path, files)) == 1


MEMORY = {
    "version 2": ({"proc/self/cgroup": "0::/", f"{CGROUP}/memory.max": "4294967296"}, 1 << 32),
    "version 1": (
        {"proc/self/cgroup": "3:memory:/a", f"{CGROUP}/memory/a/memory.limit_in_bytes": "1073741824"},
        1 << 30,
    ),
    "no limit": ({"proc/self/cgroup": "0::/", f"{CGROUP}/memory.max": "max"}, 8 << 30),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory(tmp_path: Path, case: str) -> None:
    files, want = MEMORY[case]
    assert hardware.memory(CPU, machine(tmp_path, files | {"proc/meminfo": "MemTotal: 8388608 kB"})) == want


def test_of_an_accelerator_the_memory_to_plan_with_is_all_that_this_process_may_fill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan takes what the base model has of it away by itself; what is loaded already must not count twice."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (50 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 20 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 18 << 30)
    assert hardware.memory(torch.device("cuda", 0)) == 70 << 30


FLAGS = {
    "AMD with AVX512-BF16": ("vendor_id\t: AuthenticAMD\nflags\t: fpu avx512f avx512_bf16", torch.bfloat16),
    "Intel with AVX512-BF16, which is slow": (
        "vendor_id\t: GenuineIntel\nflags\t: fpu avx512f avx512_bf16",
        torch.float32,
    ),
    "Intel with AMX": ("vendor_id\t: GenuineIntel\nflags\t: fpu avx512_bf16 amx_bf16", torch.bfloat16),
    "arm": ("Features\t: fp asimd bf16", torch.bfloat16),
    "AVX512 without it": ("flags\t: fpu avx512f avx512vl", torch.float32),
    "unknown": ("", torch.float32),
}


@pytest.mark.parametrize("case", FLAGS)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(tmp_path: Path, case: str) -> None:
    flags, want = FLAGS[case]
    root = machine(tmp_path, {"proc/cpuinfo": f"processor: 0\n{flags}"})
    assert hardware.compute_type(ComputeType.AUTO, CPU, root) is want
    assert hardware.compute_type(ComputeType.FLOAT32, CPU, root) is torch.float32
    assert hardware.compute_type(ComputeType.BFLOAT16, CPU, root) is torch.bfloat16
    assert hardware.compute_type(ComputeType.FLOAT16, CPU, root) is torch.float16


@pytest.mark.parametrize(
    ("name", "capability", "want"),
    [("V100", (7, 0), torch.float16), ("T4", (7, 5), torch.float16), ("A100", (8, 0), torch.bfloat16)],
)
def test_auto_is_float16_on_an_accelerator_that_has_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], want: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert hardware.compute_type(ComputeType.AUTO, torch.device("cuda", 0)) is want, name


def test_the_process_is_offline_and_deterministic(tiny: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


UNCOMPILED = """
import sys, torch
own = torch.compile
{}
assert torch.compile is own, "exchanged for all the world"
assert "bitsandbytes" in sys.modules
assert "torch._inductor.compile_fx" not in sys.modules
"""
IMPORTS = {
    "before training": "from trimtab_trainer.training.machine import hardware; hardware.configure()",
    "before an export": """
from trimtab_trainer.contract import QuantizationSettings
from trimtab_trainer.exporting.training_weights import Linear, as_trained
as_trained(torch.ones(64, 64), Linear("a", False, True), QuantizationSettings(), torch.float32)
""",
}


@pytest.mark.parametrize("case", IMPORTS)
def test_bitsandbytes_compiles_nothing_and_torch_still_can(case: str) -> None:
    subprocess.run([sys.executable, "-c", UNCOMPILED.format(IMPORTS[case])], check=True)


ROUNDING = {"flags\t: fpu avx2 avx512f": "AVX512,STRICT", "flags\t: fpu avx2": "AVX2,STRICT", "Features\t: asimd": None}


@pytest.mark.parametrize("line", ROUNDING)
def test_products_are_asked_to_round_alike_by_what_the_processor_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{line}\n")
    monkeypatch.setenv("MKL_CBWR", "x")
    hardware.steady_products(tmp_path)
    assert os.environ["MKL_CBWR"] == "x"
    monkeypatch.delenv("MKL_CBWR")
    hardware.steady_products(tmp_path)
    assert os.environ.pop("MKL_CBWR", None) == ROUNDING[line]


STEADY = """
import torch
from trimtab_trainer.training.machine import hardware
hardware.steady_products()
torch.set_num_threads(2)
torch.manual_seed(0)
for inner, outer in ((896, 896), (896, 4864), (1536, 576)):
    weights, rows = torch.randn(outer, inner), torch.randn(1024, inner)
    first = torch.nn.functional.linear(rows[:16], weights)
    for count in (64, 128, 1024):
        assert torch.equal(torch.nn.functional.linear(rows[:count], weights)[:16], first), (inner, outer, count)
"""


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="another library multiplies here")
def test_a_row_of_a_product_is_the_same_among_few_and_many() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    subprocess.run([sys.executable, "-c", STEADY], check=True, env=environment, timeout=900)


# Accelerators that were given

POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
GIVEN: dict[str, tuple[dict[str, str], list[str], tuple[str, int] | None]] = {
    "no accelerator": (POD, [], None),
    "an index": ({"NVIDIA_VISIBLE_DEVICES": "0"}, [], ("NVIDIA", 1)),
    "a name of the device plugin": ({**POD, "NVIDIA_VISIBLE_DEVICES": "GPU-8b2c"}, ["nvidia0"], ("NVIDIA", 1)),
    "two names": ({**POD, "NVIDIA_VISIBLE_DEVICES": "GPU-8b2c,GPU-77aa"}, [], ("NVIDIA", 2)),
    "two slices, of which a process sees one": ({**POD, "NVIDIA_VISIBLE_DEVICES": "MIG-1,MIG-2"}, [], ("NVIDIA", 1)),
    "two turns of one device": ({**POD, "NVIDIA_VISIBLE_DEVICES": "GPU-8b2c,GPU-8b2c"}, [], ("NVIDIA", 1)),
    "a narrower choice": ({"NVIDIA_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "1"}, [], ("NVIDIA", 1)),
    "a list that is mounted": ({"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}, [], ("NVIDIA", 2)),
    "a scheduler's choice": ({"CUDA_VISIBLE_DEVICES": "0,1"}, [], ("NVIDIA", 2)),
    "what a base image for CUDA says of itself": ({**POD, "NVIDIA_VISIBLE_DEVICES": "all"}, [], None),
    "the same where there is one": ({"NVIDIA_VISIBLE_DEVICES": "all"}, ["nvidia0", "nvidiactl"], ("NVIDIA", 1)),
    "a driver without devices": ({**POD, "NVIDIA_VISIBLE_DEVICES": "none"}, ["nvidiactl", "nvidia-uvm"], None),
    "by CDI, which leaves a node": ({**POD, "NVIDIA_VISIBLE_DEVICES": "void"}, ["nvidia3"], ("NVIDIA", 1)),
    "two by CDI": ({**POD, "NVIDIA_VISIBLE_DEVICES": "void"}, ["nvidia0", "nvidia3", "nvidiactl"], ("NVIDIA", 2)),
    "all of a node, which a base image asks for": (
        {**POD, "NVIDIA_VISIBLE_DEVICES": "all"}, ["nvidia0", "nvidia1"], ("NVIDIA", 1),
    ),
    "a workstation": ({}, ["nvidia0", "kfd", "dri/renderD128"], None),
    "a processor is what is wanted": ({"NVIDIA_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": ""}, ["nvidia0"], None),
    "the same in another spelling": ({"NVIDIA_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "-1"}, [], None),
    "AMD's in a pod": (POD, ["kfd", "dri/renderD128"], ("AMD", 1)),
    "AMD's by name": ({"ROCR_VISIBLE_DEVICES": "0,1"}, [], ("AMD", 2)),
    "AMD's, hidden": ({**POD, "HIP_VISIBLE_DEVICES": ""}, ["kfd"], None),
    "Intel's in a pod": (POD, ["dri/renderD128"], ("Intel", 1)),
    "Gaudi": ({**POD, "HABANA_VISIBLE_DEVICES": "all"}, ["accel/accel0"], ("Habana", 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
def test_what_was_given_is_told_by_names_and_in_pods_by_nodes(tmp_path: Path, case: str) -> None:
    environment, nodes, want = GIVEN[case]
    machine(tmp_path, dict.fromkeys([f"dev/{node}" for node in nodes], ""))
    machine(tmp_path, {"var/run/nvidia-container-devices/GPU-1": "", "var/run/nvidia-container-devices/GPU-2": ""})
    found = accelerator.given(environment, tmp_path)
    assert (found and (found.vendor, found.count)) == want


@pytest.mark.parametrize("seen", [0, 1])
def test_a_device_that_torch_does_not_see_is_an_end_by_name(monkeypatch: pytest.MonkeyPatch, seen: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(
        torch.cuda, "init", lambda: (_ for _ in ()).throw(RuntimeError("The NVIDIA driver is too old (11040)\nUpdate"))
    )
    held = accelerator.Given("NVIDIA", seen + 1, "NVIDIA_VISIBLE_DEVICES=GPU-1", "CUDA_VISIBLE_DEVICES")
    with pytest.raises(
        SettingsInvalid, match=rf"torch sees {seen}: The NVIDIA driver is too old \(11040\); mend"
    ) as end:
        hardware.check_accelerator(held)
    assert end.value.reason is Reason.ACCELERATOR_UNUSABLE


def test_several_devices_are_an_end_by_name_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    held = accelerator.Given("NVIDIA", 2, "NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-2", "CUDA_VISIBLE_DEVICES")
    with pytest.raises(
        SettingsInvalid, match=r"2 of NVIDIA's accelerators given .*but only training uses several.*ask for 1"
    ) as end:
        hardware.check_accelerator(held)
    assert end.value.reason is Reason.ACCELERATOR_UNUSABLE
    with pytest.raises(SettingsInvalid, match="3 processes are to train, each on an accelerator, but torch sees 2"):
        hardware.check_accelerator(held, processes=3)


def test_a_device_for_which_torch_has_no_program_is_an_end_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla K80")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(hardware, "device", lambda: torch.device("cpu"))

    def ones(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(SettingsInvalid, match=r"Tesla K80 is none of the accelerators .*sm_80, sm_90") as end:
        hardware.check_accelerator(None)
    assert end.value.reason is Reason.ACCELERATOR_UNUSABLE


def test_train_ends_before_anything_is_loaded_when_its_accelerator_is_not_seen(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command as a pod runs it: exit code 10, which no Job retries."""
    write_rows(tmp_path / "data/a.jsonl", tiny_rows(8))
    run = {
        "baseModel": {"uri": tiny_model.as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data").as_uri() + "/"}},
        "output": {"uri": (tmp_path / "out").as_uri()},
        "training": {"maxSteps": 1, "maxSequenceLength": 128},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    last = tmp_path / "last.json"
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-nobody-has-this")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "run.json", "--termination-log", str(last)]) == ExitCode.SETTINGS_INVALID
    words = TerminationMessage.decode(last.read_text())
    assert words is not None
    assert words.reason is Reason.ACCELERATOR_UNUSABLE
    assert "NVIDIA_VISIBLE_DEVICES=GPU-nobody" in words.message
    assert "model loaded" not in capsys.readouterr().out
