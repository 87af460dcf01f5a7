"""The whole stage with preferences on local files: rows of them, prepared and ready to be trained on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from trimtab_trainer.contract import Prepared, RunConfig
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report

from tests.trainer.tiny import make_tiny_model, write_rows
from tests.trainer.train.runs import run_config
from tests.trainer.train.stage import StageRun

STEPS = 6


def pairs(count: int, *, turned: bool = False) -> list[dict[str, Any]]:
    """Return rows of which the chosen answer always says yes, and the rejected one no; or the other way round."""
    rows = _pairs(count)
    if turned:
        return [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    return rows


def _pairs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{"role": "user", "content": f"Is {number} the number of field {number}?"}],
            "chosen": [{"role": "assistant", "content": f"Yes, {number} it is."}],
            "rejected": [{"role": "assistant", "content": f"No, not {number} at all."}],
        }
        for number in range(count)
    ]


def labelled(count: int) -> list[dict[str, Any]]:
    """Return the same answers one by one, with a label."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if number % 2 else "rejected"], "label": bool(number % 2)}
        for number, row in enumerate(pairs(count))
    ]


def preference_run(root: Path, method: str, rows: int = 40, *, turned: bool = False, **sections: Any) -> StageRun:
    """Make base model and data, and prepare a run of a preference method with validation and test."""
    make_tiny_model(root / "base")
    write_rows(root / "train.jsonl", labelled(rows) if method == "KTO" else pairs(rows, turned=turned))
    training = {"method": method, "maxSteps": STEPS, "evaluateEverySteps": 2, "batchSize": 4}
    config = run_config(
        root,
        dataset={"validation": {"fraction": 0.2}, "test": {"fraction": 0.2}} | sections.get("dataset", {}),
        training=training | sections.get("training", {}),
        checkpoint={"everySteps": 2, "keep": 1},
        lora={"dropout": 0.1} | sections.get("lora", {}),
    )
    return StageRun(root, config, prepared(config, root / "scratch-prepare"))


def prepared(config: RunConfig, scratch: Path) -> Prepared:
    return prepare(config, scratch, Report(stream=io.StringIO())).prepared
