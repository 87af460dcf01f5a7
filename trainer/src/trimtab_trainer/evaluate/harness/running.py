"""Tasks of lm-evaluation-harness, run by that library on the model that is loaded: its prompts, its scores.

The configuration is given as a value that `files` has checked, so the library loads no file of a task by
itself. It renders templates without a sandbox and may look for metrics and data on a hub: here templates are rendered
in a sandbox, and while it runs every connection to another place is refused.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from ...contract import EvaluationTask
from ...errors import OutOfMemory
from ...interruption import Interruption
from ...training.network.model import LanguageModel
from ..memory import Exhausted, attempted
from ..rows import EvaluationRow, RowScore
from .documents import chosen, document_group, does_not_run, loading, place_of
from .files import HarnessTask, metric_key, read_task
from .offline import local_datasets, offline, replaced
from .rules import template_environment

BATCH_SIZE = 8

Answers = tuple[list[EvaluationRow], list[RowScore], dict[str, bool]]


def run_task(
    model: LanguageModel,
    tokenizer: Any,
    task: EvaluationTask,
    folder: Path,
    *,
    seed: int,
    batch_size: int | None,
    stop: Interruption,
) -> Answers:
    """Return the rows of a Harness task, what the model made of each, and its metrics: whether less is better.

    Means over the rows' figures are the results that the harness gives. Prompts are the harness's own, without a chat
    template, as it has them by default.

    Args:
        model: in evaluation mode; its adapter, if any, takes part.
        tokenizer: of the base model; it is not changed.
        folder: with the YAML files and data.
        seed: chooses the examples of few-shot prompts, and samples answers where the task says so.
        batch_size: requests of a forward pass; 8 if absent. Halved when memory runs out.

    Raises:
        SettingsInvalid: as `read_task`; HARNESS_TASK_REFUSED where the task's templates and data do not fit together,
            or it tried to reach the network.
        Interrupted: told to stop.
        OutOfMemory: one request alone does not fit.
    """
    found = read_task(folder, task.harness_name)
    size = batch_size or BATCH_SIZE
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch, offline(found.name), _sandboxed(), stop.at_once():
        while True:
            samples = attempted(
                partial(_samples, model, tokenizer, task, found, Path(scratch), seed=seed, batch_size=size)
            )
            if not isinstance(samples, Exhausted):
                break
            if size == 1:
                raise OutOfMemory(
                    f"a single request of the harness task {found.name} does not fit into memory ({samples.reason}); "
                    "raise the memory limit, or give the task shorter rows or fewer examples"
                )
            size //= 2
    rows, scores = _answers(task, found, samples)
    return rows, scores, found.metrics


def _samples(
    model: LanguageModel,
    tokenizer: Any,
    task: EvaluationTask,
    found: HarnessTask,
    scratch: Path,
    *,
    seed: int,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Run the task and return what the harness logs: one entry a row and filter."""
    from datasets.exceptions import DatasetsError
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(seed)
    config = copy.deepcopy(found.configuration) | {"dataset_kwargs": loading(found, scratch)}
    for key in ("tag", "dataset_name"):  # no part of a task that is run alone, as the harness's own factory has it
        config.pop(key, None)
    try:
        asked = ConfigurableTask(config=config)
        shots = task.few_shot if task.few_shot is not None else asked.config.num_fewshot
        asked.set_config(key="num_fewshot", value=shots or 0)
        asked.set_fewshot_seed(seed=seed)
        results = evaluate(
            HFLM(
                pretrained=model.causal,
                tokenizer=copy.deepcopy(tokenizer),  # it sets the padding token and side
                batch_size=batch_size,
                mixed_precision_dtype=None if model.compute_type is torch.float32 else model.compute_type,
            ),
            {"tasks": {found.name: asked}, "groups": {}},
            samples={found.name: chosen(asked.eval_docs, task.dataset.limit)},
            bootstrap_iters=0,
            log_samples=True,
        )
    except (DatasetsError, TemplateError, LookupError, TypeError, ValueError, AssertionError, SyntaxError) as error:
        raise does_not_run(found, error) from error
    if results is None:
        raise RuntimeError("the harness gave no results; it takes this process for one of many")
    samples: list[dict[str, Any]] = results["samples"][found.name]
    return samples


def _answers(
    task: EvaluationTask, found: HarnessTask, samples: list[dict[str, Any]]
) -> tuple[list[EvaluationRow], list[RowScore]]:
    filters = len({sample["filter"] for sample in samples})
    names = [entry["metric"] for entry in found.configuration["metric_list"]]
    by_row: dict[int, list[dict[str, Any]]] = {}
    for sample in samples:
        by_row.setdefault(sample["doc_id"], []).append(sample)
    generates = found.configuration["output_type"] == "generate_until"
    rows, scores = [], []
    for number, (row, own) in enumerate(sorted(by_row.items())):
        first = own[0]
        prompt, reference = str(first["arguments"][0][0]), _reference(found, first)
        column = task.group_by
        group = document_group(first["doc"].get(column), column, row) if column is not None else None
        rows.append(EvaluationRow(number, place_of(row), number, group, False, prompt, reference))
        scores.append(
            RowScore(
                number,
                text=str(first["resps"][0][0]) if generates else None,
                figures={
                    metric_key(name, sample["filter"], filters): float(sample[name]) for sample in own for name in names
                },
            )
        )
    return rows, scores


def _reference(found: HarnessTask, sample: dict[str, Any]) -> str:
    """Return the right answer as text: of a multiple choice the text of the choice, not its index."""
    target = sample["target"]
    arguments = sample["arguments"]
    if found.configuration["output_type"] == "multiple_choice" and isinstance(target, int):
        return str(arguments[target][1]).strip() if 0 <= target < len(arguments) else str(target)
    return ", ".join(map(str, target)) if isinstance(target, list) else str(target)


# -- no code -------------------------------------------------------------------------------------------------------


@contextmanager
def _sandboxed() -> Iterator[None]:
    """Make the harness render templates in a sandbox, count no downloads, and keep its chatter out of the log."""
    from lm_eval import utils
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            replaced(utils, env=template_environment()),
            local_datasets(),
            replaced(task, tqdm=_no_bar),
            replaced(model, tqdm=_no_bar),
            replaced(huggingface, tqdm=_no_bar),
        ):
            yield
    finally:
        logger.setLevel(level)


def _no_bar(*arguments: Any, **more: Any) -> Any:
    from tqdm import tqdm

    return tqdm(*arguments, **{**more, "disable": True})
