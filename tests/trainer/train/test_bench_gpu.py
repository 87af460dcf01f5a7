"""The script for a rented accelerator runs to its end, in small and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trimtab_trainer.training.network.adapter import Adapted

from tests.bench.trainer import bench_gpu, bench_trainer
from tests.bench.trainer.race.work import Work, make_model


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
    assert result["failed"] == {}
    assert result["two ranks"]["largest_difference"] < 0.01


def test_a_side_that_halves_its_micro_batch_by_itself_says_which_it_ran(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loop goes on after memory ran out, so the race does not hear of it."""
    hidden = Adapted.hidden

    def within_memory(self: Adapted, batch: Any) -> Any:
        if len(batch.tokens) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return hidden(self, batch)

    monkeypatch.setattr(Adapted, "hidden", within_memory)
    work = Work(make_model(tmp_path / "base", "tiny"), 4, 4, 64, steps=1, rows=False)
    found = bench_gpu.fitting(bench_trainer.turn, "trimtab", work)
    assert (found["micro_batch"], found["recomputed"]) == (1, 0.0)


def test_a_part_that_fails_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TRL has too little memory for one sequence, and the small model's losses cannot be compared at all."""
    asked = []

    def turn(side: str, work: Work) -> dict[str, Any]:
        asked.append((side, work.micro_batch))
        if side == "trl":
            raise SystemExit("trl failed: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
        if work.compute == "Float32":
            raise SystemExit("trimtab failed: of something")
        return dict.fromkeys(("tokens_per_second", "peak_mib", "start_to_first_step_seconds"), 1.0) | {"losses": [1.0]}

    monkeypatch.setattr(bench_trainer, "turn", turn)
    monkeypatch.setattr(bench_gpu, "together", lambda *_, **__: turn("trimtab", Work(tmp_path, 1, 1, 1, 1)))
    monkeypatch.setattr(bench_gpu, "make_model", lambda folder, _: folder)
    result = bench_gpu.main(["--dry"])
    assert set(result["failed"]) == {"1b, trl", "8b, trl", "losses"}
    assert result["1b"]["trimtab"]["micro_batch"] == 4
    assert result["1b"]["tokens_kernels_ratio"] == 1.0
    assert [size for side, size in asked if side == "trl"] == [4, 2, 1, 2, 1], "half as many sequences, and half again"
