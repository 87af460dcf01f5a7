"""A folder with one harness task, as a test changes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

QUESTIONS = [
    {"q": f"Which number follows {n}?", "options": [str(n + 1), "a fox", "the dog jumps"], "right": 0, "a": str(n + 1)}
    for n in range(6)
]
CHOICE: dict[str, Any] = {
    "task": "numbers",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{q}}",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "right",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}, {"metric": "acc_norm"}],
}
LIKELIHOOD: dict[str, Any] = {
    **{key: value for key, value in CHOICE.items() if key != "doc_to_choice"},
    "output_type": "loglikelihood",
    "doc_to_target": "{{a}}",
    "metric_list": [{"metric": "acc"}],
}
GENERATION: dict[str, Any] = {
    **LIKELIHOOD,
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
}


def write_task(folder: Path, config: dict[str, Any] | str, *, rows: list[dict[str, Any]] | None = None) -> Path:
    """Write task.yaml and test.jsonl into a folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
    (folder / "task.yaml").write_text(text)
    lines = [json.dumps(row) for row in (QUESTIONS if rows is None else rows)]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    return folder
