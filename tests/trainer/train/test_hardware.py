"""Limits of the control group, in both of its versions, and bfloat16 in hardware."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trimtab_trainer import hardware
from trimtab_trainer.contract.settings import ComputeType

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


def test_the_process_is_offline_and_deterministic(tiny: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_nothing_is_compiled(tiny: Path) -> None:
    def given() -> None: ...

    assert torch.compile(given) is given
    assert torch.compile(dynamic=False)(given) is given


def test_the_compiler_is_not_even_loaded() -> None:
    script = (
        "import sys; from trimtab_trainer import hardware; hardware.configure(); import bitsandbytes;"
        "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


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
from trimtab_trainer import hardware
hardware.steady_products()
torch.set_num_threads(2)
torch.manual_seed(0)
for inner, outer in ((896, 896), (896, 4864), (1536, 576)):
    weights, rows = torch.randn(outer, inner), torch.randn(1024, inner)
    first = torch.nn.functional.linear(rows[:16], weights)
    for count in (64, 128, 1024):
        assert torch.equal(torch.nn.functional.linear(rows[:count], weights)[:16], first), (inner, outer, count)
"""


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="another library multiplies here")  # type: ignore[no-untyped-call]
def test_a_row_of_a_product_is_the_same_among_few_and_many() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    subprocess.run([sys.executable, "-c", STEADY], check=True, env=environment, timeout=120)
