"""What the machine offers: its share of processors and memory, its accelerator, and its arithmetic.

A container with a limit of one processor on a node of 64 must not start 64 threads, and must not plan with the node's
memory: both limits are read from the control group, version 1 or 2. `train`, `evaluate` and `ask` call `configure`
before anything heavy.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...contract import Reason
from ...contract.settings import ComputeType
from ...errors import SettingsInvalid
from .accelerator import Given, given
from .control_groups import control_groups, lines

NO_PROGRAM = "no kernel image is available"

CPU_BFLOAT16 = {"amx_bf16", "bf16"}
"""Flags of /proc/cpuinfo (x86, arm) that mean bfloat16 products in hardware, faster than float32."""
AMD_BFLOAT16 = "avx512_bf16"
"""The same on AMD only: Intel's instruction of that name does half the products of float32 (measured: 70 against 120
GFLOP/s on one core without AMX), so there it is no gain."""


COMPUTE_TYPES = {
    ComputeType.BFLOAT16: torch.bfloat16,
    ComputeType.FLOAT16: torch.float16,
    ComputeType.FLOAT32: torch.float32,
}


def configure(processes: int = 1, rank: int = 0) -> None:
    """Make this process offline, reproducible and as wide as its processors; call it before importing transformers.

    `processes` are those of this machine that train as one, and share what it has; this one is `rank` of them.

    Raises:
        SettingsInvalid: ACCELERATOR_UNUSABLE.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched, not even kernels that bitsandbytes would ask for
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products on CUDA
    import_bitsandbytes()
    torch.set_num_threads(max(1, processors() // processes))
    # On CUDA some kernels (attention's backward) have no deterministic form: they warn, and the run goes on.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # It would also fill all fresh memory with NaN, a check for programs under suspicion that costs 6 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made when it is imported
    check_accelerator(given(os.environ), processes, rank)


def import_bitsandbytes() -> None:
    """Import bitsandbytes with its operations as they are written; call it before what imports that library.

    It hands some of them to torch.compile while it is imported: other bits where there is a compiler, and everywhere a
    longer start. Torch has no switch for one library, so its function is exchanged meanwhile, and is there again after:
    no other thread may compile until then.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses kernels that must not be downloaded
    own = torch.compile
    torch.compile = _uncompiled
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.compile = own


def _uncompiled(model: Callable[..., Any] | None = None, **_: Any) -> Callable[..., Any]:
    """Take the place of torch.compile: a function stays what it is, whether given or decorated."""
    return model if model is not None else lambda given: given


def check_accelerator(given: Given | None, processes: int = 1, rank: int = 0) -> None:
    """Refuse to compute on the processor while an accelerator is held, or on one that this torch has no programs for.

    Each process has one accelerator, or none has; from here on it is this process's own.

    Raises:
        SettingsInvalid: ACCELERATOR_UNUSABLE, with what torch says of it.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if given is not None and seen < given.count:
        raise SettingsInvalid(
            f"{given.count} of {given.vendor}'s accelerators given ({given.evidence}), but torch sees {seen}: "
            f"{_trouble()}; mend the node's driver, take an image for this accelerator, or ask for none (an empty "
            f"{given.hidden_by} hides it, and the processor is used)",
            Reason.ACCELERATOR_UNUSABLE,
        )
    if given is not None and given.count > processes:
        raise SettingsInvalid(
            f"{given.count} of {given.vendor}'s accelerators given ({given.evidence}), but only training uses several, "
            f"and the others would be held for nothing; ask for 1 (or name one alone in {given.hidden_by})",
            Reason.ACCELERATOR_UNUSABLE,
        )
    if processes > 1 and 0 < seen < processes:
        raise SettingsInvalid(
            f"{processes} processes are to train, each on an accelerator, but torch sees {seen}; give as many",
            Reason.ACCELERATOR_UNUSABLE,
        )
    if seen and processes > 1:
        torch.cuda.set_device(rank)
    if seen:
        try:
            torch.ones(1, device=device()).sum().item()
        except RuntimeError as error:
            if NO_PROGRAM not in str(error):
                raise
            raise SettingsInvalid(
                f"{torch.cuda.get_device_name()} is none of the accelerators that this torch {torch.__version__} is "
                f"built for ({', '.join(torch.cuda.get_arch_list())}); take another accelerator or image",
                Reason.ACCELERATOR_UNUSABLE,
            ) from error


def _trouble() -> str:
    """Return in torch's words why it sees no accelerator, or not all of them."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for processors alone"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0]
    return f"torch {torch.__version__} for {torch.version.cuda or torch.version.hip} finds no more"


def steady_products(root: Path = Path("/")) -> None:
    """Make each row of a float32 product on an x86 processor independent of how many rows there are.

    Without it the library (MKL) divides larger products among threads in other ways, with other rounding. It is asked
    for by its variable, which is read with the first product: call it before that. What is set already stays.
    """
    for line in lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            flags = set(value.split())
            kind = "AVX512" if "avx512f" in flags else "AVX2" if "avx2" in flags else None
            if kind is not None:
                os.environ.setdefault("MKL_CBWR", f"{kind},STRICT")
            return


def device() -> torch.device:
    """Return the accelerator, or the processor where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def compute_type(setting: ComputeType, where: torch.device, root: Path = Path("/")) -> torch.dtype:
    """Return the type of matrix products.

    Auto is bfloat16 where the hardware multiplies it faster; else float16 on an accelerator (T4, V100), where gradients
    are scaled (`loop`), and float32 on a processor.
    """
    if setting is not ComputeType.AUTO:
        return COMPUTE_TYPES[setting]
    if _multiplies_bfloat16(where, root):
        return torch.bfloat16
    return torch.float16 if where.type == "cuda" else torch.float32


def processors(root: Path = Path("/")) -> int:
    """Return how many threads may run at once: the control group's limit, the affinity, and OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        allowed = min(allowed, int(wish))
    limits = []
    for group in control_groups(root, "cpu"):
        quota, period = _first(group / "cpu.max"), ""
        if quota is not None:
            quota, _, period = quota.partition(" ")
        else:
            quota, period = _first(group / "cpu.cfs_quota_us"), _first(group / "cpu.cfs_period_us") or ""
        if quota and quota not in ("max", "-1") and period:
            limits.append(int(quota) / int(period))
    return max(1, min(allowed, int(min(limits, default=allowed))))


def memory(where: torch.device, root: Path = Path("/"), *, processes: int = 1) -> int:
    """Return the bytes to plan with: what no other process has of the accelerator, or what this one may take.

    What the base model takes already is among them, because the plan counts it. For the processor it is the limit, not
    what is free now: every attempt of a run must come to the same plan. `processes` share it.
    """
    if where.type == "cuda":
        free, _ = torch.cuda.mem_get_info(where)
        return int(free + torch.cuda.memory_reserved(where))
    limits = []
    for group in control_groups(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            limit = _first(group / file)
            if limit and limit != "max":
                limits.append(int(limit))
    for line in lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    return min(limits, default=1 << 62) // processes


def memory_peak(where: torch.device, root: Path = Path("/")) -> int | None:
    """Return the most bytes that tensors took of the accelerator so far, or that this process had in memory."""
    if where.type == "cuda":
        return int(torch.cuda.max_memory_allocated(where))
    for line in lines(root / "proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def describe(where: torch.device) -> str:
    """Return the name of the accelerator or of the processor, for records."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    for line in lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "cpu"


def _multiplies_bfloat16(where: torch.device, root: Path) -> bool:
    if where.type == "cuda":
        return torch.cuda.get_device_capability(where) >= (8, 0)
    vendor = ""
    for line in lines(root / "proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            vendor = value.strip()
        if name.strip() in ("flags", "Features"):
            flags = set(value.split())
            return bool(CPU_BFLOAT16 & flags) or (vendor == "AuthenticAMD" and AMD_BFLOAT16 in flags)
    return False


def _first(file: Path) -> str | None:
    return next(iter(lines(file)), None)
