"""`--help` tells every setting, with its default, as the contract has them."""

from __future__ import annotations

import pytest
from trimtab_trainer.__main__ import main
from trimtab_trainer.command.settings_help import settings, settings_help
from trimtab_trainer.contract import LoraSettings, RunConfig, TrainingSettings


def test_every_setting_is_there_with_its_default() -> None:
    found = {path: default for path, default, _ in settings(RunConfig)}
    for field in LoraSettings.model_fields.values():
        assert any(path.split(".")[:2] == ["lora", field.alias] for path in found)
    for field in TrainingSettings.model_fields.values():
        assert any(path.split(".")[:2] == ["training", field.alias] for path in found)
    assert found["training.learningRate"] == "0.0002"
    assert found["training.schedule"] == "Cosine"
    assert found["training.packing"] == "true"
    assert found["lora.targetModules"] == "all-linear"
    assert found["training.earlyStopping.patience"] == "3"
    assert found["baseModel.uri"] == ""


@pytest.mark.parametrize("command", ["prepare", "train", "check", "estimate"])
def test_help_prints_them(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert settings_help() in out
    assert "training.maxGradientNorm (1.0)\n      maxGradientNorm clips the global gradient norm" in out
