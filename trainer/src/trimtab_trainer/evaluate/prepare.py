"""The prepare stage of an evaluation: CPU only, torch-free; what can be refused is refused here, before weights load.

Storage, models, rows, metrics and thresholds are checked to the last row; the rows are stored as they are asked, under
their content address; and if this very evaluation has its outcome already, nothing is left to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.agreement import check_model, check_tokenizer, check_vocabulary
from ..base.architecture import context_length
from ..base.base_model import BaseModel, check_pin, digest_of_entries, entries_of, fetch_tokenizer, find_base_model
from ..base.layers import IN_TRAINING_ALONE, PAST_ADAPTER_WHY, Shapes, past_adapter
from ..contract import (
    EvaluationConfig,
    EvaluationEngine,
    EvaluationOutcome,
    EvaluationTask,
    PreparedEvaluation,
    Reason,
    TaskType,
    digest_of,
)
from ..contract.evaluation import EVALUATION_VERSION
from ..data.encoding.tokens import RowTokenizer
from ..errors import DataInvalid, SettingsInvalid
from ..prepare import check_writable
from ..report import Report
from ..storage import FileEntry, open_store
from .engine.limits import check_adapters
from .harness.builtin import DATA, TASK_FILE, builtin_task, data_files, written
from .harness.documents import asked_documents
from .harness.files import read_task
from .judging.judge import identity_of
from .judging.prepare import check_judge, check_labels
from .preparing.adapters import VerifiedAdapter, check_tokenizers, find_adapter
from .preparing.dataset_files import DatasetFiles, check_dataset_files
from .preparing.group_column import check_groups, check_odds
from .preparing.task_rows import Circumstances, check_trained_on, known_documents, make_rows
from .preparing.task_store import PreparedTask, harness_folder, rows_file, store_tasks
from .preparing.trained_rows import asked_document
from .reporting.outcome_store import read_outcome
from .rows import EvaluationRow, write_lines
from .scoring.groups.counterfactuals import pairs_of
from .statistics import Resampling

ASKED_BY = ("type", "labels", "predictBy", "maxNewTokens", "stop", "temperature", "topP", "harnessTask", "fewShot")
"""Settings of a task that decide what a model is asked; all others decide what is made of its answers."""
SCORING_VERSION = 6
"""Raised where the same answers are worth something else than in earlier versions."""
SCORED_ANEW = (TaskType.REFUSAL, TaskType.JSON_SCHEMA, TaskType.TOOL_CALLS, TaskType.JUDGE)
"""Tasks that one of the scoring versions is of, beside all that have pairs, or a threshold that is a test; outcomes of
others stay what they are."""


@dataclass(frozen=True)
class Found:
    """What was prepared; the outcome, if this very evaluation has been done before; and what a person should know."""

    prepared: PreparedEvaluation
    outcome: EvaluationOutcome | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Adapters:
    """Who is asked beside the base model alone, each verified, and the base's tokenizer files."""

    target: VerifiedAdapter | None
    baseline: VerifiedAdapter | None
    anchor: VerifiedAdapter | None
    tokenizer_files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class _Rows:
    """The rows of all tasks in a folder, their largest token, and what a person should know of them."""

    tasks: list[PreparedTask]
    largest_token: int
    warnings: list[str]


def prepare_evaluation(config: EvaluationConfig, scratch: Path, report: Report) -> Found:
    """Check everything, put the rows in place, and find out what the evaluation is.

    Raises:
        SettingsInvalid, DataInvalid, StorageFailed: with a named reason and the next step.
    """
    output = open_store(config.output.uri, config.output.credentials)
    check_writable(output)
    check_dataset_files(config)
    check_judge(config, report)
    model, shapes, base_model_digest = _base_model(config, report)
    adapters = _adapters(config, model, base_model_digest, scratch, report)
    about = _circumstances(config, model, adapters, scratch, report)
    beyond = check_tokenizer(
        model,
        shapes,
        about.tokenizer,
        converses=lambda: any(task.type is not TaskType.PERPLEXITY for task in config.tasks),
    )
    folder = scratch / "made-evaluation-data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = _rows(
        config, DatasetFiles(config, adapters.target, scratch / "sources"), about, folder, scratch, report=report
    )
    check_vocabulary(model, shapes, made.largest_token, about.tokenizer)
    data_digest, stored = store_tasks(output, folder, made.tasks)
    report("rows are in place" if stored else "rows are there already", data=data_digest)
    prepared = PreparedEvaluation(
        evaluation_digest=evaluation_digest(
            config,
            base_model_digest,
            target=adapters.target,
            baseline=adapters.baseline,
            anchor=adapters.anchor,
            data_digest=data_digest,
            tasks=made.tasks,
        ),
        data_digest=data_digest,
        base_model_digest=base_model_digest,
        target_digest=_digest(adapters.target),
        baseline_digest=_digest(adapters.baseline),
        anchor_digest=_digest(adapters.anchor),
        tasks=len(made.tasks),
        rows=sum(task.rows for task in made.tasks),
    )
    outcome = read_outcome(output, prepared.evaluation_digest)
    report("prepared", **prepared.to_json(), done=outcome is not None)
    warnings = (*filter(None, [beyond]), *_past_adapters(adapters, model), *made.warnings)
    for warning in warnings:
        report.warn("prepared with a warning", warning=warning)
    return Found(prepared, outcome, warnings)


def _base_model(config: EvaluationConfig, report: Report) -> tuple[BaseModel, Shapes, str]:
    """Return the base model that was checked, the shapes of its weights, and its digest.

    Raises:
        SettingsInvalid, StorageFailed: it is not there, cannot be computed with, or is not the one that was pinned.
    """
    model = find_base_model(config.base_model)
    shapes = check_model(model)
    digest = digest_of_entries(entries_of(model))
    check_pin(config.base_model, digest)
    report("base model checked", uri=config.base_model.uri, digest=digest)
    return model, shapes, digest


def _adapters(
    config: EvaluationConfig, model: BaseModel, base_model_digest: str, scratch: Path, report: Report
) -> _Adapters:
    """Return the adapters that were found to be whole, of this base model, and comparable.

    Raises:
        SettingsInvalid, StorageFailed: one is not; the message names its role.
    """
    wanted = config.baseline.artifact if config.baseline is not None else None
    fixed = config.anchor.artifact if config.anchor is not None else None
    target = find_adapter(config.target, "target", base_model_digest) if config.target is not None else None
    baseline = find_adapter(wanted, "baseline", base_model_digest) if wanted is not None else None
    anchor = find_adapter(fixed, "anchor", base_model_digest) if fixed is not None else None
    tokenizer_files = fetch_tokenizer(model, scratch / "tokenizer")
    if config.baseline is not None:
        check_tokenizers(config, target, baseline, tokenizer_files)
    if config.anchor is not None:
        check_tokenizers(config, target, anchor, tokenizer_files, "anchor")
    if config.engine is EvaluationEngine.VLLM:
        check_adapters({"target": target, "baseline": baseline, "anchor": anchor})
    report("artifacts checked", target=_digest(target), baseline=_digest(baseline), anchor=_digest(anchor))
    return _Adapters(target, baseline, anchor, tokenizer_files)


def _past_adapters(adapters: _Adapters, model: BaseModel) -> list[str]:
    """Return a sentence for each adapter of a layer that counts only where the base model is quantized.

    None is made any more; those of before, and of others, are asked as they are.
    """
    past = past_adapter(model.config)
    if past is None or past == IN_TRAINING_ALONE:
        return []
    return [
        f"the {role} at {adapter.uri} adapts {past} of a model {PAST_ADAPTER_WHY[past]}: what was learned of it counts "
        "where precision is AsTrained and it was trained over NF4, and nowhere that serves the model in 16 bits; train "
        f"it anew, which leaves {past} alone"
        for role, adapter in (("target", adapters.target), ("baseline", adapters.baseline), ("anchor", adapters.anchor))
        if adapter is not None and any(f".{past}.lora_A." in place.name for place in adapter.tensors())
    ]


def _circumstances(
    config: EvaluationConfig, model: BaseModel, adapters: _Adapters, scratch: Path, report: Report
) -> Circumstances:
    """Return what the rows of every task are made with: the target's tokenizer, and what each side was trained on."""
    target = adapters.target
    template = target.chat_template(adapters.tokenizer_files) if target is not None else None
    return Circumstances(
        tokenizer=RowTokenizer(scratch / "tokenizer", template),
        context_length=context_length(model.config),
        # Of the base model alone nobody knows what it was trained on.
        trained=target.trained(scratch, report, "target") if target is not None else None,
        others={
            role: each.trained(scratch, report, role)
            for role, each in (("baseline", adapters.baseline), ("anchor", adapters.anchor))
            if each is not None
        },
        maximum_trained_on_ratio=config.maximum_trained_on_ratio,
    )


def _rows(
    config: EvaluationConfig,
    files: DatasetFiles,
    about: Circumstances,
    folder: Path,
    scratch: Path,
    *,
    report: Report,
) -> _Rows:
    """Write the rows of every task below `folder`, checked against their thresholds.

    Raises:
        SettingsInvalid, DataInvalid, StorageFailed: with a named reason and the next step.
    """
    tasks: list[PreparedTask] = []
    largest, warnings = 0, list[str]()
    for task in config.tasks:
        if task.type is TaskType.HARNESS:
            tasks.append(_harness(config, task, about, folder, scratch, report))
            continue
        made = make_rows(task, files.of(task), about, report)
        check_groups(task, ((row.group, row.cluster) for row in made.rows), config.thresholds)
        warnings += _check_odds(config, task, made.rows)
        check_labels(task, made.rows)
        _check_pairs(task, made.rows)
        _check_thresholds_of_some(config, task, made.rows)
        file = rows_file(folder, task.name)
        write_lines(file, made.rows)
        largest = max(largest, made.largest_token)
        tasks.append(
            PreparedTask(
                name=task.name,
                digest=task_digest(task, (FileEntry.read(file, "rows.jsonl"),)),
                rows=len(made.rows),
                clusters=made.clusters,
                trained_on=made.trained_on,
                compared=made.compared,
                others=made.others,
                dropped=made.dropped,
            )
        )
    return _Rows(tasks, largest, [*warnings, *files.unread_warnings()])


def _check_odds(config: EvaluationConfig, task: EvaluationTask, rows: Sequence[EvaluationRow]) -> list[str]:
    """Refuse gaps of odds that nothing can be known of; return what others promise nothing of.

    Raises:
        DataInvalid: GROUP_MISSING
    """
    if task.type is not TaskType.CLASSIFICATION:
        return []
    resampling = Resampling([row.cluster for row in rows], seed=config.seed, resamples=config.resamples)
    told = (check_odds(task, rows, threshold, resampling) for threshold in config.thresholds)
    return [each for each in dict.fromkeys(told) if each is not None]


def _check_thresholds_of_some(config: EvaluationConfig, task: EvaluationTask, rows: Sequence[EvaluationRow]) -> None:
    """Refuse a threshold on a figure that is of some rows where there are none: it would be missing in the end.

    Raises:
        DataInvalid
    """
    counted = {
        (TaskType.REFUSAL, "refusedRatio"): ("has refuse: true", sum(row.refuse is True for row in rows)),
        (TaskType.REFUSAL, "wronglyRefusedRatio"): ("has refuse: false", sum(row.refuse is False for row in rows)),
        (TaskType.JUDGE, "agreement"): (
            "has people's judgement (the column worse, of a Rubric score)",
            sum(row.worse is not None or row.score is not None for row in rows),
        ),
    }
    for threshold in config.thresholds:
        what, count = counted.get((task.type, threshold.result), ("", 1))
        if threshold.task == task.name and not count:
            raise DataInvalid(
                f"threshold {threshold.metric}: none of the {len(rows)} rows {what}; add such rows, or remove the "
                "threshold"
            )


def _check_pairs(task: EvaluationTask, rows: Sequence[EvaluationRow]) -> None:
    """Refuse a column of pairs by which no two rows are one.

    Raises:
        DataInvalid: GROUP_MISSING
    """
    if task.pairs is not None and not pairs_of(rows):
        raise DataInvalid(
            f"task {task.name}: no two of its {len(rows)} rows have the same value in the column {task.pairs} of "
            "pairs; give the rows of a pair one value, or remove pairs",
            Reason.GROUP_MISSING,
        )


def task_digest(task: EvaluationTask, files: tuple[FileEntry, ...]) -> str:
    """Return the digest of what a model is asked: the sha256 of a task's files, and how it is asked.

    The name of the task is no part of it, so that scores are shared by evaluations that ask the same.
    """
    settings = task.to_json()
    harness = task.type is TaskType.HARNESS
    # The groups of other tasks are in their files, as the rows are that a limit has chosen.
    groups = {"groupBy": task.group_by} if harness and task.group_by is not None else {}
    return digest_of(
        {
            "files": [entry.to_json() for entry in sorted(files)],
            "limit": task.dataset.limit if harness else None,
            **groups,
            **{name: settings.get(name) for name in ASKED_BY},
        }
    )


def evaluation_digest(
    config: EvaluationConfig,
    base_model_digest: str,
    *,
    target: VerifiedAdapter | None,
    baseline: VerifiedAdapter | None,
    anchor: VerifiedAdapter | None,
    data_digest: str,
    tasks: list[PreparedTask],
) -> str:
    """Return the digest of all that defines what an evaluation finds.

    URIs, credentials and names of objects are left out, and so is batchSize, which changes memory and speed. The
    quantization that an adapter was trained with is in its own digest.
    """
    settings = [
        task.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"dataset"}) for task in config.tasks
    ]
    anew = any(task.type in SCORED_ANEW or task.pairs is not None for task in config.tasks) or any(
        each.confidence is not None for each in config.thresholds
    )
    compared = "none" if config.baseline is None else _digest(baseline) or "base model"
    return digest_of(
        {
            "contract": EVALUATION_VERSION,
            **({"scoring": SCORING_VERSION} if anew else {}),
            "baseModel": base_model_digest,
            "target": _digest(target),
            "baseline": compared,
            **({"anchor": _digest(anchor) or "base model"} if config.anchor is not None else {}),
            "data": data_digest,
            "tasks": [{**each, "digest": task.digest} for each, task in zip(settings, tasks, strict=True)],
            "thresholds": [threshold.to_json() for threshold in config.thresholds],
            "precision": config.precision.value,
            **({"engine": config.engine.value} if config.engine is not EvaluationEngine.TRANSFORMERS else {}),
            "quantization": config.quantization.to_json() if config.quantization is not None else None,
            "resamples": config.resamples,
            "seed": config.seed,
            **({"judge": identity_of(config.judge)} if config.judge is not None else {}),
        }
    )


def _harness(  # noqa: PLR0917 the task, then where and with what
    config: EvaluationConfig, task: EvaluationTask, about: Circumstances, folder: Path, scratch: Path, report: Report
) -> PreparedTask:
    """Copy and check the files of a harness task; how many rows it has is known when it has been run.

    Raises:
        DataInvalid: DATASET_NOT_FOUND; GROUP_MISSING, DATASET_MALFORMED with groupBy; TRAINED_ON.
        SettingsInvalid: HARNESS_TASK_NOT_FOUND, HARNESS_TASK_REFUSED, METRIC_NOT_APPLICABLE.
    """
    target = harness_folder(folder, task.name)
    entries = (_copied if task.builtin is None else _builtin)(config, task, target, report)
    found = read_task(target, task.harness_name)
    for threshold in config.thresholds:
        if threshold.task == task.name and threshold.result not in found.metrics:
            raise SettingsInvalid(
                f"threshold {threshold.metric}: the YAML of {found.name} gives {', '.join(sorted(found.metrics))}; "
                "name one of them",
                Reason.METRIC_NOT_APPLICABLE,
            )
    asked = asked_documents(task, found, scratch)
    if task.group_by is not None:
        groups = asked.groups
        # Each document is a cluster.
        check_groups(task, ((group, index) for index, group in enumerate(groups)), config.thresholds)
        report("groups read", task=task.name, rows=len(groups), groups=len(set(groups)))
    known = known_documents([asked_document(each) for each in asked.documents], about)
    check_trained_on(task, known.trained_on, len(asked.documents), known.first, about.maximum_trained_on_ratio)
    return PreparedTask(
        name=task.name,
        digest=task_digest(task, entries),
        rows=0,
        trained_on=known.trained_on,
        compared=known.compared,
        others=known.others,
    )


def _copied(config: EvaluationConfig, task: EvaluationTask, target: Path, report: Report) -> tuple[FileEntry, ...]:
    """Copy the folder of a harness task.

    Raises:
        DataInvalid: DATASET_NOT_FOUND
    """
    uri = f"{(task.dataset.uri or '').rstrip('/')}/"
    store = open_store(uri, config.dataset_credentials)
    entries = tuple(store.download(info.path, target / info.path) for info in store.list())
    if not entries:
        raise DataInvalid(
            f"task {task.name}: there is nothing at {uri}; upload the folder with its YAML files and data",
            Reason.DATASET_NOT_FOUND,
        )
    return entries


def _builtin(config: EvaluationConfig, task: EvaluationTask, target: Path, report: Report) -> tuple[FileEntry, ...]:
    """Make the folder of a task that the harness brings: its YAML, and what it asks of a copy of its data set.

    Raises:
        DataInvalid: DATASET_NOT_FOUND.
        SettingsInvalid: HARNESS_TASK_NOT_FOUND, HARNESS_TASK_REFUSED.
    """
    found = builtin_task(str(task.builtin))
    uri = f"{(task.dataset.uri or '').rstrip('/')}/"
    store = open_store(uri, config.dataset_credentials)
    kind, files = data_files(found, (info.path for info in store.list()), uri)
    data = sorted({path for each in files.values() for path in each})
    entries = [store.download(path, target / DATA / path) for path in data]
    file = target / TASK_FILE
    file.write_text(written(found, kind, files))
    report(
        "task of lm-evaluation-harness",
        task=task.name,
        builtin=found.name,
        dataset=found.dataset,
        subset=found.subset,
        files=data,
        left_out=list(found.left_out),
    )
    copied = [FileEntry(f"{DATA}/{each.path}", each.size, each.sha256) for each in entries]
    return (FileEntry.read(file, TASK_FILE), *copied)


def _digest(artifact: VerifiedAdapter | None) -> str | None:
    return artifact.digest if artifact is not None else None
