"""A run that goes on from a published adapter: it has its weights, names its descent, and fits or is refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trimtab_trainer.base.layers import PAST_ADAPTER, PAST_ADAPTER_WHY
from trimtab_trainer.contract import Artifact, Reason, RunConfig
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.prepare import prepare
from trimtab_trainer.report import Report
from trimtab_trainer.training.loop import Trainer

from .stage import StageRun, stage_run


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageRun, Artifact]:
    """A run that was trained and published."""
    run = stage_run(tmp_path_factory.mktemp("first"))
    return run, run.train()[0]


def following(run: StageRun, initial: dict[str, Any], **lora: Any) -> RunConfig:
    """Return the same run from an adapter on."""
    document = run.config.to_json()
    document["lora"] |= {"initialAdapter": initial, **lora}
    return RunConfig.model_validate(document)


def pinned(artifact: Artifact) -> dict[str, Any]:
    return {"uri": artifact.uri, "digest": artifact.digest}


def test_training_goes_on_from_its_weights_and_the_new_adapter_names_it(
    first: tuple[StageRun, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, artifact = first
    config = following(run, pinned(artifact))
    prepared = prepare(config, tmp_path / "scratch", Report(stream=io.StringIO())).prepared
    assert prepared.run_digest != run.prepared.run_digest
    seen: dict[str, torch.Tensor] = {}
    whole = Trainer.run

    def remember(trainer: Trainer) -> Any:
        seen.update(trainer.model.trained_tensors())
        return whole(trainer)

    monkeypatch.setattr(Trainer, "run", remember)
    second = StageRun(run.root, config, prepared)
    published, _ = second.train(attempt=7)
    stored = load_file(run.folder(artifact) / "adapter_model.safetensors")
    assert stored.keys() == seen.keys()
    assert all(torch.equal(stored[name], seen[name]) for name in stored)
    manifest = json.loads((run.folder(published) / "MANIFEST.json").read_text())
    assert manifest["artifact"]["initialAdapter"] == artifact.digest
    assert published.digest != artifact.digest
    metrics = json.loads((run.folder(published) / "metrics.json").read_text())
    assert metrics["settings"]["lora"]["initialAdapter"] == {"digest": artifact.digest}


def test_where_the_adapter_lies_changes_no_digest(first: tuple[StageRun, Artifact], tmp_path: Path) -> None:
    run, artifact = first
    copy = tmp_path / "copy"
    shutil.copytree(run.folder(artifact), copy)
    digests = {
        prepare(following(run, {**pinned(artifact), "uri": uri}), tmp_path / "scratch", Report()).prepared.run_digest
        for uri in (artifact.uri, copy.as_uri())
    }
    assert len(digests) == 1


REFUSED: dict[str, tuple[dict[str, Any], str, Reason]] = {
    "another rank": ({"rank": 8}, r"has r 4, but lora\.rank is 8; set it to 4", Reason.SETTINGS_INVALID),
    "another scale": ({"alpha": 9}, r"has lora_alpha 8.*lora\.alpha is 9\.0", Reason.SETTINGS_INVALID),
    "rsLoRA": ({"useRslora": True}, r"has use_rslora False, but lora\.useRslora is True", Reason.SETTINGS_INVALID),
    "DoRA": ({"useDora": True}, r"has use_dora False, but lora\.useDora is True", Reason.SETTINGS_INVALID),
    "fewer modules": (
        {"targetModules": ["q_proj"]},
        "adapts 2 down_proj, .* but these settings adapt 2 q_proj; set lora.targetModules",
        Reason.SETTINGS_INVALID,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_shape_is_refused_before_there_is_a_gpu(
    first: tuple[StageRun, Artifact], tmp_path: Path, case: str
) -> None:
    run, artifact = first
    lora, message, reason = REFUSED[case]
    with pytest.raises(SettingsInvalid, match=message) as caught:
        prepare(following(run, pinned(artifact), **lora), tmp_path, Report())
    assert caught.value.reason is reason


def test_no_run_goes_on_from_an_adapter_of_layers_that_are_adapted_no_more(
    first: tuple[StageRun, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, artifact = first
    monkeypatch.setitem(PAST_ADAPTER, "llama", "q_proj")
    monkeypatch.setitem(PAST_ADAPTER_WHY, "q_proj", "which is made for this")
    with pytest.raises(
        SettingsInvalid,
        match=r"adapts q_proj of a model which is made for this, .* no run can go on from it; leave initialAdapter out",
    ):
        prepare(following(run, pinned(artifact)), tmp_path, Report())


def test_an_adapter_that_is_not_there_or_another_is_refused(first: tuple[StageRun, Artifact], tmp_path: Path) -> None:
    run, artifact = first
    elsewhere = {**pinned(artifact), "uri": (tmp_path / "nothing").as_uri()}
    with pytest.raises(SettingsInvalid, match="there is no adapter at") as caught:
        prepare(following(run, elsewhere), tmp_path, Report())
    assert caught.value.reason is Reason.ARTIFACT_NOT_FOUND
    other = {**pinned(artifact), "digest": "sha256:" + "0" * 64}
    with pytest.raises(SettingsInvalid, match=r"the initial adapter at .* has digest") as caught:
        prepare(following(run, other), tmp_path, Report())
    assert caught.value.reason is Reason.ARTIFACT_CHANGED
