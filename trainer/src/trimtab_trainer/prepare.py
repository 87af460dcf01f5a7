"""The prepare stage: CPU only, torch-free, and the place where everything is refused that can be refused.

A GPU is asked for only when this has ended well, so it checks keys, base model, settings and data to the last row. It
can be killed and repeated at any moment: what it wrote has a content address and is not made again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from .base.agreement import check_model, check_tokenizer, check_vocabulary
from .base.architecture import Targets, check_trainable
from .base.base_model import BaseModel, check_pin, digest_of_entries, entries_of, fetch_tokenizer, find_base_model
from .base.embedding import untrained_tokens
from .base.layers import Shapes
from .contract import (
    Artifact,
    DatasetFormat,
    Optimizer,
    Prepared,
    RunConfig,
    Summary,
    TrainingSettings,
    TrainLimits,
    run_digest,
)
from .data.cleaning.steps import CONTROL, FORMAT, IGNORED, PARTED, UNLIKE_PROMPTS, VOCABULARY
from .data.encoding.tokens import RowTokenizer, Vocabulary
from .data.preparation import PreparedView, prepare_view
from .data.reading.formats import NAMED
from .data.reading.source import Source, copy, find, read_template, unread_warning
from .data.request import Request
from .data.view import SIDES, total_steps
from .errors import SettingsInvalid
from .estimating.dimensions import dimensions
from .estimating.fitting import check_held, warnings_of_limits
from .folders import remove
from .publishing.result import read_result
from .report import Report
from .serving_limits import serving_warnings
from .storage import FileEntry, Store, open_store
from .storage.layout import result_path, run_prefix
from .training.distributed.sharing import check_batch, uneven
from .training.methods.labelled import check_labelled
from .training.network.initial import check_initial_adapter

PROBE = "data/.writable"
WARNED_COLUMNS, WARNED_LENGTH = 12, 64
FULL_RATE = 1e-4
"""Learning rate above which training all weights is told of."""
CONVERTED = (DatasetFormat.ALPACA, DatasetFormat.SHAREGPT)


@dataclass(frozen=True)
class Outcome:
    """What was prepared; and the adapter and how it went, if this very run has been trained before."""

    prepared: Prepared
    artifact: Artifact | None = None
    summary: Summary = field(default_factory=Summary)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedModel:
    """A base model that can be trained as asked, as far as its config.json and the headers of its weights tell.

    Attributes:
        targets: what of it is trained.
        warnings: what a person should know of it, a sentence each.
    """

    model: BaseModel
    shapes: Shapes
    targets: Targets
    warnings: tuple[str, ...] = ()


def check_base_model(config: RunConfig) -> CheckedModel:
    """Check everything of the base model that can be told without reading its weights.

    Raises:
        SettingsInvalid: with a named reason and the next step.
    """
    model = find_base_model(config.base_model)
    shapes = check_model(model)
    targets = check_trainable(config, model.config, shapes)
    if (lora := config.adapter) is None:
        warnings = [hasty(config.training)]
    else:
        unreached = targets.reached.unreached(len(targets.parameters))
        warnings = [unreached, *serving_warnings(lora, targets.parameters)]
    return CheckedModel(model, shapes, targets, tuple(filter(None, warnings)))


def hasty(training: TrainingSettings) -> str:
    """Return what to tell of a learning rate for all weights that is one of adapters; nothing of a smaller one."""
    if training.learning_rate <= FULL_RATE or training.optimizer is Optimizer.SGD:
        return ""
    return (
        f"training.learningRate {training.learning_rate:g} is an adapter's: where all weights are trained (lora.type: "
        "None) 0.000005 to 0.00005 are usual, and more makes a model forget what it knew"
    )


def prepare_rows(
    output: Store,
    config: RunConfig,
    checked: CheckedModel,
    sources: dict[str, Source],
    tokenizer_files: tuple[FileEntry, ...],
    *,
    asked: tuple[Source, ...] = (),
    scratch: Path,
    report: Report,
) -> PreparedView:
    """Put the rows of local sources in place, tokenised with the files in `scratch/tokenizer`.

    `asked` is the data that Evaluations will ask, which training rows must not hold.

    Raises:
        DataInvalid, SettingsInvalid: with a named reason and the next step.
    """
    template = _chat_template(config)
    tokenizer = partial(RowTokenizer, scratch / "tokenizer", template)
    request = Request(sources, tokenizer_files, tokenizer, config.dataset, config.training, template, asked)
    loaded = tokenizer()
    beyond = check_tokenizer(
        checked.model, checked.shapes, loaded, converses=lambda: request.detected().format is not DatasetFormat.TEXT
    )
    view = prepare_view(output, request, scratch, report)
    check_vocabulary(checked.model, checked.shapes, view.summary["largestToken"], loaded)
    notices = [*filter(None, [beyond]), *view.summary["notices"]]
    return replace(view, summary=view.summary | {"notices": notices})


def prepare(config: RunConfig, scratch: Path, report: Report, limits: TrainLimits | None = None) -> Outcome:
    """Check everything, put the data in place, and find out what the run is.

    `limits` are those of the pod that will train, as far as they are known.

    Raises:
        SettingsInvalid, DataInvalid, StorageFailed: with a named reason and the next step.
    """
    accelerators = limits.processes if limits is not None else 1
    check_batch(config.training, accelerators)
    uris = source_uris(config)
    output = open_store(config.output.uri, config.output.credentials)
    check_writable(output)
    for uri in (*uris.values(), *asked_uris(config)):
        find(uri, config.dataset.credentials)
    checked = check_base_model(config)
    model = checked.model
    # Every byte of the weights is read for the digest only after the headers were found good.
    base_model_digest = digest_of_entries(entries_of(model))
    check_pin(config.base_model, base_model_digest)
    report(
        "base model checked",
        uri=config.base_model.uri,
        digest=base_model_digest,
        adapted=checked.targets.adapted,
        weights=checked.targets.reached.weights,
        beside_text=checked.targets.reached.other_weights,
    )
    initial = check_initial_adapter(config, base_model_digest, checked.targets)
    if initial is not None:
        report("initial adapter checked", uri=initial.uri, digest=initial.digest)

    tokenizer_files = fetch_tokenizer(model, scratch / "tokenizer")
    sources = {name: _copy(config, name, uri, scratch, report) for name, uri in uris.items()}
    asked = _asked(config, scratch, report)
    view = prepare_rows(
        output,
        config,
        checked,
        sources,
        tokenizer_files,
        asked=asked,
        scratch=scratch,
        report=report,
    )
    summary = view.summary
    for side in filter(lambda side: summary[side]["rows"], SIDES):
        check_labelled(config.training, side, summary[side]["rows"], summary[side].get("wanted"))
    prepared = Prepared(
        base_model_digest=base_model_digest,
        rows_digest=view.rows_digest,
        view_digest=view.digest,
        run_digest=_run_digest(output, config, base_model_digest, view.digest),
        rows=summary["train"]["rows"],
        validation_rows=summary["validation"]["rows"],
        validation_digest=summary["validation"].get("digest"),  # absent in views of earlier versions
        validation_bytes=summary["validation"].get("bytes"),
        validation_supervised_tokens=summary["validation"]["supervisedTokens"] or None,
        test_rows=summary["test"]["rows"],
        tokens=summary["train"]["tokens"],
        supervised_tokens=summary["train"]["supervisedTokens"],
        dropped=summary["dropped"],
        total_steps=total_steps(config.training, summary["train"]["sequences"]),
        report_uri=view.page,
    )
    done = read_result(output, prepared.run_digest, report)
    artifact, summary_of_run = (done.artifact, done.summary) if done is not None else (None, Summary())
    report("prepared", **prepared.to_json(), artifact=artifact.to_json() if artifact else None)
    unread = filter(None, (unread_warning(source.uri, source.unread) for source in (*sources.values(), *asked)))
    warnings = [
        *_too_small(limits, config, checked, summary["train"]),
        *checked.warnings,
        *unread,
        *warnings_of(summary),
    ]
    if waiting := uneven(config.training, accelerators):
        warnings.append(waiting)
    if untrained := untrained_tokens(model, Vocabulary.of(summary[VOCABULARY])):
        warnings.append(untrained)
    return Outcome(prepared, artifact, summary_of_run, tuple(_told(warnings, report)))


def _run_digest(output: Store, config: RunConfig, base_model_digest: str, view_digest: str) -> str:
    """Return the digest of a run: that of an earlier version where one has begun it, and it was not trained since."""
    before = run_digest(config, base_model_digest, view_digest, as_written=True)
    now = run_digest(config, base_model_digest, view_digest)
    begun = before != now and not output.exists(result_path(now)) and output.list(run_prefix(before))
    return before if begun else now


def _too_small(limits: TrainLimits | None, config: RunConfig, checked: CheckedModel, side: dict[str, int]) -> list[str]:
    """Return what of the pod that will train does not hold the run; first of all warnings, for it decides over it.

    Raises:
        SettingsInvalid: it has several accelerators, none of which holds the base model.
    """
    if limits is None:
        return []
    dims = dimensions(checked.shapes, checked.model.config, config.adapter)
    check_held(limits, dims, config)
    longest = side.get("longest", config.training.max_sequence_length)  # views of before do not tell
    return warnings_of_limits(limits, dims, config, tokens=side["tokens"], longest=longest)


def warnings_of(summary: dict[str, Any]) -> list[str]:
    """Return what a person should know of the data of a view, a sentence each."""
    warnings = []
    if ignored := summary[IGNORED]:
        names = sorted(ignored)
        more = f" and {len(names) - WARNED_COLUMNS} more" if len(names) > WARNED_COLUMNS else ""
        shown = ", ".join(name[:WARNED_LENGTH] for name in names[:WARNED_COLUMNS])
        warnings.append(f"columns of the data that are ignored: {shown}{more}")
    detected = summary[FORMAT]
    if detected["name"] in CONVERTED and detected["why"] != NAMED:
        warnings.append(f"the rows are taken for {detected['name']}'s, because {detected['why']}")
    if (control := summary[CONTROL])["count"]:
        warnings.append(
            f"{control['count']} rows hold control tokens of the chat template in their text, the first is "
            f"{control['examples'][0]}; they are learned as the text they are, not as control tokens"
        )
    if (parted := summary[PARTED])["count"]:
        warnings.append(
            f"{parted['count']} conversations are learned one sequence a turn, the first is {parted['examples'][0]}; "
            "the chat template leaves out part of an earlier turn once another follows"
        )
    if unlike := summary.get(UNLIKE_PROMPTS):
        warnings.append(
            f"{unlike['count']} pairs have a prompt that is other tokens before the chosen answer than before the "
            f"rejected one, the first is {unlike['examples'][0]}; the difference is compared too"
        )
    return [*warnings, *summary["notices"]]


def _told(warnings: list[str], report: Report) -> list[str]:
    for warning in warnings:
        report.warn("prepared with a warning", warning=warning)
    return warnings


def source_uris(config: RunConfig) -> dict[str, str]:
    """Return where the rows of each source lie: training, and held-out data with a uri of its own."""
    uris = {"training": config.dataset.training.uri}
    if config.dataset.validation is not None and config.dataset.validation.uri is not None:
        uris["validation"] = config.dataset.validation.uri
    if config.dataset.test is not None and config.dataset.test.uri is not None:
        uris["test"] = config.dataset.test.uri
    return uris


def check_writable(output: Store) -> None:
    """Write an object twice and delete it: what would fail at the end, or not fail, is refused at the start.

    Raises:
        SettingsInvalid: BUCKET_NOT_FOUND, CREDENTIALS_MISSING, ACCESS_DENIED; or the storage takes no conditional
            writes, or takes them for ordinary ones.
    """
    own = uuid.uuid4().hex
    path, data = f"{PROBE}-{own}", own.encode()
    output.list(path)  # first: some storages make a bucket that does not exist when it is written to
    # A put that was repeated because its answer got lost finds itself in the way; some storages find what is not there.
    first = output.put_once(path, data) or (output.exists(path) and output.read(path) == data)
    second = output.put_once(path, data)
    output.delete([path])
    if second or not first:
        raise SettingsInvalid(
            f"the storage at {output.uri} lacks conditional writes (If-None-Match): it lets a second writer replace "
            "what the first one wrote; use one that has them"
        )


def _chat_template(config: RunConfig) -> str | None:
    uri = config.dataset.chat_template
    return None if uri is None else read_template(uri, config.dataset.credentials)


def asked_uris(config: RunConfig) -> list[str]:
    """Return where the data lie that Evaluations will ask."""
    return config.dataset.cleaning.evaluation_data if config.dataset.cleaning is not None else []


def _asked(config: RunConfig, scratch: Path, report: Report) -> tuple[Source, ...]:
    """Copy the data that Evaluations will ask."""
    uris = asked_uris(config)
    return tuple(_copy(config, f"asked-{number}", uri, scratch, report) for number, uri in enumerate(uris))


def _copy(config: RunConfig, name: str, uri: str, scratch: Path, report: Report) -> Source:
    folder = scratch / "sources" / name
    remove(folder)
    source = copy(uri, config.dataset.credentials, folder)
    report("data copied", source=name, files=len(source.files), bytes=sum(entry.size for entry in source.files))
    return source
