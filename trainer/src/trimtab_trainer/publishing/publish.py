"""From the chosen weights to an immutable artifact in object storage: an adapter that stock peft and vLLM load, or a
model that transformers and vLLM load, where all weights were trained.

    adapters/<digest>/{adapter_model.safetensors,adapter_config.json,tokenizer*}    what decides how it behaves
    adapters/<digest>/{README.md,report.html,metrics.json,splits/test.jsonl}        what was recorded beside
    adapters/<digest>/MANIFEST.json                                                 last, once
    models/<digest>/                                                                a model: the base's files, the rest

The digest is that of the manifest's `artifact` part, without times, figures or paths: the same inputs give the same
digest. `export` writes the behaviour; `measure` tests exactly those files, loaded again; `publish` uploads. `train`
calls them in this order; nothing is merged into the base, so what is measured is what is served.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..base.base_model import TOKENIZER
from ..contract import (
    Artifact,
    HubSource,
    Method,
    MirroredSource,
    PreferenceFigures,
    Prepared,
    Rank,
    RunConfig,
    Summary,
    defining,
    digest_of,
)
from ..data.preparation import page_uri
from ..data.view import CHAT_TEMPLATE, View
from ..errors import SettingsInvalid
from ..folders import emptied
from ..interruption import Interruption
from ..report import Report
from ..reporting.page import HeldOut, RunRecord, render
from ..storage import FileEntry, ObjectDamaged, Store, read_manifest
from ..storage.layout import (
    ADAPTER_CONFIG,
    ADAPTER_METRICS,
    ADAPTER_REPORT,
    ADAPTER_TEST_ROWS,
    ADAPTER_WEIGHTS,
    artifact_prefix,
    rows_prefix,
)
from ..training.batches import Batches
from ..training.methods.figures import figures_of
from ..training.methods.objective import Objective
from ..training.network.adapter import Adapted
from ..training.network.full import Full, write_full
from ..training.network.trained import Trained, not_finite
from ..training.parts import save_adapter
from ..training.state import TrainingState
from .card import model_card
from .result import Result, upload_once, write_result

CARD = "README.md"
RECORDS = (ADAPTER_METRICS, CARD, ADAPTER_REPORT, ADAPTER_TEST_ROWS)


@dataclass(frozen=True)
class TestLosses:
    """Loss on the test split with the exported adapter and with the base model alone; with it a method's figures."""

    adapter: float
    base: float
    preference: PreferenceFigures | None = None


def export(
    config: RunConfig,
    prepared: Prepared,
    weights: dict[str, Tensor],
    model: Trained,
    base: Path,
    *,
    folder: Path,
    chat_template: Path | None = None,
    origin: MirroredSource | None = None,
) -> None:
    """Write the files that decide how the adapter behaves into an empty folder.

    `origin` is where the base came from, if that is a hub. `chat_template` is the one that was trained with where it is
    not the base model's: it stands before that.

    Raises:
        SettingsInvalid: a weight is not finite.
    """
    if broken := not_finite(weights):
        raise SettingsInvalid(
            f"{len(broken)} trained weights are not finite ({broken[0]}), so nothing is published; "
            "lower training.learningRate"
        )
    emptied(folder)
    if isinstance(model, Full):
        write_full(model, weights, base, folder)
    else:
        assert isinstance(model, Adapted)
        save_adapter(weights, folder / ADAPTER_WEIGHTS)
        targets = model.target_modules, model.target_parameters
        write_json(folder / ADAPTER_CONFIG, adapter_config(config, prepared.base_model_digest, *targets, origin))
        for name in TOKENIZER:
            if (base / name).exists():
                shutil.copyfile(base / name, folder / name)
    if chat_template is not None:
        shutil.copyfile(chat_template, folder / CHAT_TEMPLATE)


def adapter_config(
    config: RunConfig,
    base_model_digest: str,
    targets: tuple[str, ...],
    parameters: tuple[str, ...] = (),
    origin: MirroredSource | None = None,
) -> dict[str, Any]:
    """Return adapter_config.json as peft reads it.

    Ours, because peft writes a set in random order and the local path of the base model. The base is named by its
    repository and commit where it came from a hub, as peft would load it; else by its URI, or by its digest where the
    URI is a path of one machine.
    """
    uri = config.base_model.uri
    source = HubSource.parse(origin.uri) if origin is not None else None
    name, revision = base_model_digest if uri.startswith("file:") else uri, {}
    if origin is not None and source is not None:
        name, revision = source.repository, {"revision": origin.commit}
    lora = config.adapter
    assert lora is not None
    alpha = lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        **revision,
        "r": lora.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": lora.dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
        **({"target_parameters": sorted(parameters)} if parameters else {}),
    }


def measure(model: Trained, test: Batches | None, objective: Objective, stop: Interruption) -> TestLosses | None:
    """Measure what is published, and its base model alone, on the test split; None if nothing of it is supervised.

    Raises:
        SettingsInvalid: one of the losses is not finite.
    """
    if test is None or int(test.supervised.sum()) == 0:
        return None
    with_adapter = objective.measure(model, test, stop)
    with model.base_alone():
        without = objective.measure(model, test, stop)
    for whose, loss in (("what was trained", with_adapter.loss), ("the base model alone", without.loss)):
        if not math.isfinite(loss):
            raise SettingsInvalid(
                f"the test loss of {whose} is not finite, so nothing is published; lower training.learningRate, or "
                "correct quantization.computeType"
            )
    return TestLosses(with_adapter.loss, without.loss, figures_of(with_adapter.sums))


def publish(
    store: Store,
    config: RunConfig,
    prepared: Prepared,
    *,
    view: View,
    folder: Path,
    state: TrainingState,
    published_step: int,
    test: TestLosses | None,
    held_out: HeldOut,
    machine: dict[str, Any],
    report: Report,
    ranks: tuple[Rank, ...] = (),
    origin: MirroredSource | None = None,
) -> tuple[Artifact, Summary]:
    """Upload an exported folder with its records, commit its manifest, and note it as the run's result.

    If another attempt of the same run was first with other weights, its adapter is the result and is returned.

    Raises:
        TrainerError: storage failed; nothing half-written is visible.
    """
    behaviour = entries_of(folder)
    artifact_part = artifact_document(config, prepared, behaviour)
    digest = digest_of(artifact_part)
    full = config.adapter is None
    prefix = artifact_prefix(digest, full=full)
    summary = Summary(
        step=state.step,
        total_steps=prepared.total_steps or state.step,
        loss=state.loss,
        validation_loss=state.best.loss if state.best and published_step == state.best.step else state.validation_loss,
        test_loss=test.adapter if test else None,
        base_test_loss=test.base if test else None,
        tokens_per_second=state.tokens / state.seconds if state.seconds else None,
        world_size=max(1, len(ranks)),
        ranks=ranks or None,
        preference=state.preference,
        validation_preference=state.preference_at(published_step),
        test_preference=test.preference if test else None,
        curve=state.drawn,
    )
    figures = metrics(config, prepared, state, published_step, summary=summary, machine=machine)
    # An operator keeps where the page of the data lies to itself.
    told = prepared.model_copy(update={"report_uri": page_uri(store, prepared.rows_digest, prepared.view_digest)})
    page = render(RunRecord(config, told, digest, figures, data_summary(store, prepared, view), held_out))
    records = write_records(folder, view, figures, model_card(config, prepared, digest, figures, origin), page)
    document = {"artifact": artifact_part, "records": {"step": published_step, "files": _json(records)}}
    upload_once(store, prefix, folder, behaviour + records, document)
    report("artifact stored and verified", uri=store.address(prefix), digest=digest)
    mine = Artifact(
        uri=store.address(prefix),
        digest=digest,
        rank=config.adapter.rank if config.adapter is not None else None,
        target_modules=[] if full else json.loads((folder / ADAPTER_CONFIG).read_text())["target_modules"],
        base_model_digest=prepared.base_model_digest,
        report_uri=store.address(f"{prefix}/{ADAPTER_REPORT}"),
    )
    noted = write_result(store, prepared.run_digest, Result.of(mine, summary))
    if noted.digest != mine.digest:
        report.warn("another attempt of this run published first; its adapter is the result", digest=noted.digest)
    return noted.artifact, summary


def data_summary(store: Store, prepared: Prepared, view: View) -> dict[str, Any]:
    """Return the figures of a view, and what was told of the rows that it is of as far as that is still there."""
    try:
        rows = read_manifest(store, rows_prefix(prepared.rows_digest))
    except ObjectDamaged:
        rows = None
    told = rows.document.get("told") if rows is not None else None
    return {**view.manifest["summary"], **(told if isinstance(told, dict) else {})}


def artifact_document(config: RunConfig, prepared: Prepared, files: tuple[FileEntry, ...]) -> dict[str, Any]:
    """Return the manifest's `artifact` part, whose digest names the adapter: behaviour and where it came from."""
    initial = config.adapter.initial_adapter if config.adapter is not None else None
    return {
        **({"initialAdapter": initial.digest} if initial is not None else {}),
        "files": _json(files),
        "baseModel": prepared.base_model_digest,
        "data": prepared.view_digest,
        "config": digest_of(
            {
                "lora": defining(config.lora),
                "quantization": config.quantization.to_json(),
                "training": config.training.to_json(),
            }
        ),
    }


def metrics(
    config: RunConfig,
    prepared: Prepared,
    state: TrainingState,
    published_step: int,
    *,
    summary: Summary,
    machine: dict[str, Any],
) -> dict[str, Any]:
    """Return metrics.json: figures, curves, settings and the machine; losses in nats per supervised token, of SFT."""
    supervised = config.training.method is Method.SFT  # else losses are none of tokens
    return {
        "runDigest": prepared.run_digest,
        "baseModelDigest": prepared.base_model_digest,
        "dataDigest": prepared.view_digest,
        "steps": state.step,
        "totalSteps": summary.total_steps,
        "publishedStep": published_step,
        "stoppedEarly": state.stopped_early,
        "trainingLoss": summary.loss,
        "validationLoss": summary.validation_loss,
        "validationBitsPerByte": bits_per_byte(summary.validation_loss, prepared) if supervised else None,
        "testLoss": summary.test_loss,
        "baseTestLoss": summary.base_test_loss,
        "testPerplexity": perplexity(summary.test_loss) if supervised else None,
        "baseTestPerplexity": perplexity(summary.base_test_loss) if supervised else None,
        **preferences(summary),
        "tokens": state.tokens,
        "supervisedTokens": state.supervised_tokens,
        "trainingSeconds": round(state.seconds, 3),
        "tokensPerSecond": summary.tokens_per_second,
        "curve": [point.model_dump() for point in state.curve],
        "evaluations": [point.model_dump() for point in state.evaluations],
        "settings": {
            "lora": defining(config.lora),
            "quantization": config.quantization.to_json(),
            "training": config.training.to_json(),
        },
        "cost": {
            "trainingSeconds": round(state.seconds, 3),
            "accelerators": machine["accelerators"],
            "acceleratorSeconds": round(state.seconds * machine["accelerators"], 3),
            "joules": state.joules,
            "memoryBytes": max((point.memory for point in state.curve if point.memory is not None), default=None),
        },
        "machine": machine,
    }


def preferences(summary: Summary) -> dict[str, Any]:
    """Return a preference method's figures as they stand in metrics.json; nothing of another method."""
    told = {
        "preference": summary.preference,
        "validationPreference": summary.validation_preference,
        "testPreference": summary.test_preference,
    }
    return {name: figures.to_json() for name, figures in told.items() if figures is not None}


def perplexity(loss: float | None) -> float | None:
    """Return e to a loss in nats per token, or None where it is absent or beyond a float."""
    return math.exp(loss) if loss is not None and loss < 700 else None


def bits_per_byte(loss: float | None, prepared: Prepared) -> float | None:
    """Return a loss of the validation rows in bits per byte of what is learned of them; None if it is not known."""
    if loss is None or not prepared.validation_bytes or not prepared.validation_supervised_tokens:
        return None
    return loss * prepared.validation_supervised_tokens / (prepared.validation_bytes * math.log(2))


def write_records(folder: Path, view: View, figures: dict[str, Any], card: str, page: str) -> tuple[FileEntry, ...]:
    """Write what is published beside the adapter and does not change it; return these files."""
    write_json(folder / ADAPTER_METRICS, figures)
    (folder / CARD).write_text(card)
    (folder / ADAPTER_REPORT).write_text(page)
    if view.test_rows is not None:
        (folder / ADAPTER_TEST_ROWS).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(view.test_rows, folder / ADAPTER_TEST_ROWS)
    return tuple(entry for entry in entries_of(folder) if entry.path in RECORDS)


def entries_of(folder: Path) -> tuple[FileEntry, ...]:
    """Return the files below a folder with sizes and hashes, sorted by path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return tuple(sorted(FileEntry.read(file, file.relative_to(folder).as_posix()) for file in files))


def _json(entries: tuple[FileEntry, ...]) -> list[dict[str, Any]]:
    return [entry.to_json() for entry in entries]


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write JSON for people too: indented, keys sorted, the same value always the same bytes."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
