"""Tasks of lm-evaluation-harness, run by that library on the model that is loaded: its prompts, its scores.

The configuration is given as a value that `harness_files` has checked, so the library loads no file of a task by
itself. It renders templates without a sandbox and may look for metrics and data on a hub: here templates are rendered
in a sandbox, and while it runs every connection to another place is refused.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from jinja2 import TemplateError

from ..contract import EvaluationTask, Reason
from ..errors import OutOfMemory, SettingsInvalid
from ..interruption import Interruption
from ..loop import is_out_of_memory
from ..model import LanguageModel
from .harness_files import HarnessTask, metric_key, read_task
from .harness_rules import template_environment
from .rows import EvaluationRow, RowScore

BATCH_SIZE = 8

Answers = tuple[list[EvaluationRow], list[RowScore], dict[str, bool]]


class NetworkRefused(OSError):
    """Something tried to reach another place while a task was run."""


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
    found = read_task(folder, str(task.harness_task))
    size = batch_size or BATCH_SIZE
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch, _offline(found.name), _sandboxed(), stop.at_once():
        while True:
            try:
                samples = _samples(model, tokenizer, task, found, Path(scratch), seed=seed, batch_size=size)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Outside of the except block: its traceback would keep tensors alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if size == 1:
                raise OutOfMemory(
                    f"a single request of the harness task {found.name} does not fit into memory ({reason}); raise the "
                    "memory limit, or give the task shorter rows or fewer examples"
                )
            size //= 2
    rows, scores = _answers(found, samples)
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
    config = copy.deepcopy(found.configuration) | {
        "dataset_kwargs": {
            "data_files": {split: [str(file) for file in files] for split, files in found.data_files.items()},
            "cache_dir": str(scratch),
            **found.options,
        }
    }
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
            samples={found.name: _chosen(asked.eval_docs, task.dataset.limit)},
            bootstrap_iters=0,
            log_samples=True,
        )
    except (DatasetsError, TemplateError, LookupError, TypeError, ValueError, AssertionError, SyntaxError) as error:
        reason = str(error).partition("\n")[0][:300]
        raise SettingsInvalid(
            f"harness task {found.name} cannot be run ({type(error).__name__}: {reason}); its templates and its data "
            "do not fit together: run it with lm-evaluation-harness alone, and correct it there",
            Reason.HARNESS_TASK_REFUSED,
        ) from error
    if results is None:
        raise RuntimeError("the harness gave no results; it takes this process for one of many")
    samples: list[dict[str, Any]] = results["samples"][found.name]
    return samples


def _chosen(documents: Any, limit: int | None) -> list[int]:
    """Return the rows to ask, in order: all, or those that come first by the hash of their content."""
    count = len(documents)
    if limit is None or limit >= count:
        return list(range(count))
    hashes = [
        (hashlib.sha256(json.dumps(each, sort_keys=True, default=str).encode()).digest(), index)
        for index, each in enumerate(documents)
    ]
    return sorted(index for _, index in sorted(hashes)[:limit])


def _answers(found: HarnessTask, samples: list[dict[str, Any]]) -> tuple[list[EvaluationRow], list[RowScore]]:
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
        rows.append(EvaluationRow(number, f"doc {row}", number, None, False, prompt, reference))
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


# -- no network, no code -------------------------------------------------------------------------------------------


@contextmanager
def _offline(name: str) -> Iterator[None]:
    """Refuse every connection while the block runs, and name the first that was tried."""
    tried: list[str] = []

    def refuse(*arguments: Any, **more: Any) -> NoReturn:
        place = next((str(each) for each in arguments if not isinstance(each, socket.socket)), "another place")
        tried.append(place)
        raise NetworkRefused(f"{place} is not reached while a task is run")

    connecting = dict.fromkeys(("connect", "connect_ex", "sendto", "sendmsg"), refuse)
    looking_up = dict.fromkeys(("getaddrinfo", "gethostbyname", "create_connection"), refuse)
    with _replaced(socket.socket, **connecting), _replaced(socket, **looking_up):
        try:
            yield
        except Exception as error:
            if tried:
                raise _reached_out(name, tried) from error
            raise
    if tried:
        raise _reached_out(name, tried)


def _reached_out(name: str, tried: list[str]) -> SettingsInvalid:
    return SettingsInvalid(
        f"harness task {name} tried to reach {tried[0]}, but tasks are run without a network; put what it needs into "
        "the folder",
        Reason.HARNESS_TASK_REFUSED,
    )


@contextmanager
def _sandboxed() -> Iterator[None]:
    """Make the harness render templates in a sandbox, count no downloads, and keep its chatter out of the log."""
    import datasets
    from lm_eval import utils
    from lm_eval.api import model, task
    from lm_eval.models import huggingface

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with (
            _replaced(utils, env=template_environment()),
            _replaced(datasets.config, HF_HUB_OFFLINE=True),  # it tells a hub of every file it opens, local ones too
            _replaced(task, tqdm=_no_bar),
            _replaced(model, tqdm=_no_bar),
            _replaced(huggingface, tqdm=_no_bar),
        ):
            yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _no_bar(*arguments: Any, **more: Any) -> Any:
    from tqdm import tqdm

    return tqdm(*arguments, **{**more, "disable": True})


@contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Give a module or class other attributes while the block runs."""
    before = {name: vars(owner)[name] for name in values if name in vars(owner)}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(owner, name, before[name])
            else:
                delattr(owner, name)  # it was inherited
