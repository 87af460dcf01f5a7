"""The script for a rented accelerator runs to its end, in small and without one."""

from __future__ import annotations

import pytest

from tests.bench.trainer import bench_gpu


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_it_measures_both_sides_and_the_losses() -> None:
    result = bench_gpu.main(["--dry"])
    for part in ("1b", "8b"):
        assert {"tokens_ratio", "memory_ratio", "startup_ratio"} <= result[part].keys()
        ours, theirs = (result[part][side]["losses"] for side in ("trimtab", "trl"))
        assert ours == pytest.approx(theirs, rel=0.01), "both learn the same from the same"
    for part in ("1b", "8b kernels"):
        assert {"tokens_kernels_ratio", "memory_kernels_ratio", "startup_kernels_ratio"} <= result[part].keys()
        with_kernels, without = result[part]["trimtab"], result[part]["plain"]
        assert with_kernels["losses"] == pytest.approx(without["losses"], rel=0.01)
        assert without["kernels"] == []
    assert result["losses"]["within"]
    assert result["left_out"] == []
