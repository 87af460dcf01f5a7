"""Preparing, training and publishing with preferences: what is learned, what is told, and who interrupts it."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from trimtab_trainer.contract import RunConfig
from trimtab_trainer.data.view import load_view
from trimtab_trainer.errors import Interrupted
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.storage import FileEntry
from trimtab_trainer.training.checkpoint import Checkpoints
from trimtab_trainer.training.methods import objective, reference
from trimtab_trainer.training.methods.objective import PreferenceStep

from tests.trainer.train.methods.stage import preference_run
from tests.trainer.train.stage import StageRun


def figures_of(run: StageRun, digest: str) -> dict[str, Any]:
    folder = run.output / "adapters" / digest.removeprefix("sha256:")
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.mark.parametrize("method", ["DPO", "KTO", "ORPO"])
def test_an_adapter_prefers_what_it_was_taught_to_prefer(tmp_path: Path, method: str) -> None:
    run = preference_run(tmp_path, method, training={"maxSteps": 20, "evaluateEverySteps": 10, "learningRate": 0.01})
    artifact, summary = run.train()
    figures = figures_of(run, artifact.digest)
    for told in (summary.preference, summary.validation_preference, summary.test_preference):
        assert told is not None
        assert told.margin is not None
        assert told.margin > 0
        if method == "KTO":
            assert told.accuracy is None, "an answer has no other one beside it"
        else:
            assert told.accuracy is not None
            assert told.accuracy > 0.9
    assert summary.test_preference is not None
    assert figures["testPreference"] == summary.test_preference.to_json()
    margins = [point["preference"]["margin"] for point in figures["curve"]]
    assert margins[-1] > margins[0]
    assert figures["testLoss"] < figures["baseTestLoss"]
    board = run.board.read()
    assert board.preference == summary.preference
    assert board.validation_preference == summary.validation_preference
    page = (run.folder(artifact) / "report.html").read_text()
    assert "Margin of rewards" in page
    assert f"{method}" in page


def test_what_is_measured_before_the_first_step_is_the_reference(tmp_path: Path) -> None:
    """With the base as the reference nothing is gained yet: a pair's loss is that of a coin."""
    run = preference_run(tmp_path, "DPO", training={"maxSteps": 1})
    artifact, _ = run.train()
    assert figures_of(run, artifact.digest)["baseTestLoss"] == pytest.approx(np.log(2), abs=1e-6)
    assert figures_of(run, artifact.digest)["curve"][0]["loss"] == pytest.approx(np.log(2), abs=1e-6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the adapters of runs that nobody interrupts."""
    return {
        method: preference_run(tmp_path_factory.mktemp(method), method).train()[0].digest for method in ("DPO", "KTO")
    }


POINTS = {
    "while the reference is computed": ("DPO", reference, "log_probabilities", 2, None),
    "before the reference is stored": ("KTO", reference, "store_folder", 1, None),
    "between two micro-batches": ("DPO", PreferenceStep, "__call__", 4, 1),
    "while KTO's other answers are asked": ("KTO", objective, "answer_log_probabilities", 3, 2),
    "while a checkpoint is written": ("KTO", Checkpoints, "save", 2, 4),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_signal_loses_nothing(
    tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    method, owner, name, count, step = POINTS[point]
    run = preference_run(tmp_path, method)
    whole, calls = getattr(owner, name), 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupting)
        with pytest.raises(Interrupted):
            run.train(attempt=0)
    artifact, summary = run.train(attempt=1)
    if step is not None:
        assert summary.resumed_from_step == step
    assert artifact.digest == undisturbed[method]
    assert run.checkpoints() == []


def test_the_reference_is_computed_once_and_never_taken_from_another_model(tmp_path: Path) -> None:
    run = preference_run(tmp_path, "DPO")
    digest = run.train()[0].digest
    assert "reference log-probabilities computed" in run.log.getvalue()
    folders = list((run.output / "data" / "references").iterdir())
    assert len(folders) == 1
    # Another run on the same rows, as a sweep's next trial: other settings, the same reference.
    document = run.config.to_json()
    document["training"]["preference"] = {"beta": 0.5}
    other = RunConfig.model_validate(document)
    next_run = StageRun(
        tmp_path, other, prepare(other, tmp_path / "scratch-other", Report(stream=io.StringIO())).prepared
    )
    assert next_run.prepared.view_digest == run.prepared.view_digest
    assert next_run.train(attempt=5)[0].digest != digest
    assert "reference log-probabilities are there already" in next_run.log.getvalue()


def test_stored_values_of_another_model_are_computed_anew(tmp_path: Path) -> None:
    """Somebody put other values under the right name, with a manifest that verifies."""
    honest = preference_run(tmp_path / "honest", "DPO")
    want = honest.train()[0].digest
    run = preference_run(tmp_path / "forged", "DPO")
    view = load_view(run.store, run.prepared.view_digest, tmp_path / "look")
    (source,) = (honest.output / "data" / "references").iterdir()
    folder = run.output / "data" / "references" / source.name
    folder.mkdir(parents=True)
    arrays = {name: values + 1.0 for name, values in load_file(source / "reference.safetensors").items()}
    assert len(arrays["train"]) == 2 * len(view.train)
    manifest = json.loads((source / "MANIFEST.json").read_text())
    save_file(arrays, folder / "reference.safetensors")
    entry = FileEntry.read(folder / "reference.safetensors", "reference.safetensors")
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"files": [entry.to_json()]}))
    assert run.train()[0].digest == want
    assert "are not found again" in run.log.getvalue()
    assert np.array_equal(load_file(folder / "reference.safetensors")["train"] + 1.0, arrays["train"])


def test_an_initial_adapter_is_the_reference(tmp_path: Path) -> None:
    first = preference_run(tmp_path, "DPO", lora={"dropout": 0.0})
    artifact, _ = first.train()
    run = preference_run(
        tmp_path,
        "DPO",
        lora={"dropout": 0.0, "initialAdapter": {"uri": artifact.uri, "digest": artifact.digest}},
        training={"maxSteps": 1},
    )
    second, _ = run.train()
    figures = figures_of(run, second.digest)
    assert figures["curve"][0]["loss"] == pytest.approx(np.log(2), abs=1e-6), "nothing is gained over itself"
    assert figures["baseTestLoss"] > np.log(2), "the base alone is worse than what the run went on from"
    assert len(list((run.output / "data" / "references").iterdir())) == 2
