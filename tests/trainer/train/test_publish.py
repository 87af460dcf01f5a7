"""What is published: what was measured, loadable by anybody, named by what it is, and only once."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import ExitCode, Mirrored, MirroredSource, TerminationMessage, digest_of
from trimtab_trainer.data.view import load_view
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.prepare import prepare
from trimtab_trainer.publishing.card import model_card
from trimtab_trainer.publishing.publish import adapter_config, perplexity
from trimtab_trainer.publishing.result import read_result, verify_adapter
from trimtab_trainer.report import Report
from trimtab_trainer.storage import store_folder
from trimtab_trainer.storage.layout import adapter_prefix, result_path
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.network.adapter import Adapted, load_adapter

from tests.trainer.tiny import CHATML

from .runs import plain_base, run_config, shake
from .stage import StageRun, stage_run
from .test_model import logits


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageRun, Any, Any]:
    """A run that was trained and published."""
    run = stage_run(tmp_path_factory.mktemp("done"))
    artifact, summary = run.train()
    return run, artifact, summary


def test_the_layout_is_that_of_the_design(done: tuple[StageRun, Any, Any]) -> None:
    run, artifact, summary = done
    folder = run.folder(artifact)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "MANIFEST.json",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "metrics.json",
        "report.html",
        "splits/test.jsonl",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert digest_of(manifest["artifact"]) == artifact.digest
    assert manifest["artifact"].keys() == {"files", "baseModel", "data", "config"}
    assert [entry["path"] for entry in manifest["artifact"]["files"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [entry["path"] for entry in manifest["records"]["files"]] == [
        "README.md",
        "metrics.json",
        "report.html",
        "splits/test.jsonl",
    ]
    verify_adapter(run.store, adapter_prefix(artifact.digest), artifact.digest)
    assert artifact.report_uri == f"{artifact.uri}/report.html"
    noted = read_result(run.store, run.prepared.run_digest)
    assert noted is not None
    assert noted.artifact == artifact
    assert summary.curve is not None
    assert noted.summary == summary.model_copy(update={"checkpoint_step": None}), "whoever finds it can draw it"
    assert run.checkpoints() == []
    assert len((folder / "splits/test.jsonl").read_text().splitlines()) == run.prepared.test_rows


def test_a_loss_of_the_validation_rows_is_told_in_bits_per_byte(
    done: tuple[StageRun, Any, Any], tmp_path: Path
) -> None:
    """A loss a token times their number are all nats; over the bytes that are learned, in bits."""
    run, artifact, summary = done
    figures = json.loads((run.folder(artifact) / "metrics.json").read_text())
    prepared = run.prepared
    held_out = load_view(run.store, prepared.view_digest, tmp_path).validation
    assert held_out is not None
    assert int(Batches(held_out).supervised.sum()) == prepared.validation_supervised_tokens, (
        "what the loss is a mean of"
    )
    nats = summary.validation_loss * prepared.validation_supervised_tokens
    assert figures["validationBitsPerByte"] == pytest.approx(nats / np.log(2) / prepared.validation_bytes)


def test_a_run_that_is_found_tells_how_good_it_was(done: tuple[StageRun, Any, Any], tmp_path: Path) -> None:
    """A sweep that is created again learns from it what it would have learned by training."""
    run, artifact, summary = done
    outcome = prepare(run.config, tmp_path, Report(stream=io.StringIO()))
    assert outcome.artifact == artifact
    assert outcome.summary.validation_loss == summary.validation_loss is not None
    assert outcome.summary.test_loss == summary.test_loss
    found, told = run.train(attempt=7)
    assert (found, told.validation_loss) == (artifact, summary.validation_loss)


def test_stock_peft_loads_it_and_reproduces_the_logits_of_the_training_adapter(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    run = stage_run(tmp_path)
    seen: dict[str, torch.Tensor] = {}
    whole = Trainer.run
    probe = load_view(run.store, run.prepared.view_digest, tmp_path / "view").train

    def remember(trainer: Trainer) -> Any:
        state = whole(trainer)
        seen["logits"] = logits(trainer.model, probe)
        return state

    monkeypatch.setattr(Trainer, "run", remember)
    artifact, _ = run.train()
    for base in (plain_base(tiny), plain_base(tiny, "None")):
        stock = PeftModel.from_pretrained(base, str(run.folder(artifact)))
        stock.eval()
        found = []
        with torch.no_grad():
            for index in range(len(probe)):
                batch = Batches(probe).lay(np.array([index]), torch.device("cpu"))
                found.append(stock(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits[0])
        difference = (torch.cat(found) - seen["logits"]).abs().max()
        if base.config.to_dict().get("quantization_config"):
            assert difference < 1e-5
        else:
            assert difference > 1e-3  # trained on NF4: it belongs to the quantized base


def test_names_in_the_file_are_those_that_peft_and_vllm_expect(done: tuple[StageRun, Any, Any]) -> None:
    run, artifact, _ = done
    tensors = load_file(run.folder(artifact) / "adapter_model.safetensors")
    pattern = r"base_model\.model\.model\.layers\.[01]\.(self_attn|mlp)\.[a-z]+_proj\.lora_[AB]\.weight"
    assert len(tensors) == 28
    assert all(re.fullmatch(pattern, name) for name in tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_adapter_config_is_ours_sorted_and_names_no_path(done: tuple[StageRun, Any, Any]) -> None:
    run, artifact, _ = done
    text = (run.folder(artifact) / "adapter_config.json").read_text()
    config = json.loads(text)
    assert list(config) == sorted(config)
    assert config["target_modules"] == sorted(config["target_modules"]) == artifact.target_modules
    assert config["base_model_name_or_path"] == artifact.base_model_digest
    for file in run.folder(artifact).rglob("*"):
        if file.is_file():
            assert str(run.root) not in file.read_text(errors="replace"), file
    remote = run_config(run.root, baseModel={"uri": "s3://models/tiny"}, lora={"alpha": 24.5})
    config = adapter_config(remote, artifact.base_model_digest, ("b", "a"))
    assert (config["base_model_name_or_path"], config["lora_alpha"]) == ("s3://models/tiny", 24.5)
    assert config["target_modules"] == ["a", "b"]
    assert "revision" not in config


def test_train_is_told_where_its_base_came_from(tmp_path: Path) -> None:
    run = stage_run(tmp_path, rows=8, dataset={}, training={"maxSteps": 1})
    digest = run.prepared.base_model_digest
    store_folder(run.store, tmp_path / "base", f"models/{digest.removeprefix('sha256:')}", {})
    document = run.config.to_json() | {"baseModel": {"uri": "hf://org/name@main"}}
    (tmp_path / "run.json").write_text(json.dumps(document))
    source = MirroredSource(uri="hf://org/name@main", commit="c" * 40, digest=digest, license="mit")
    mirrored = json.dumps(Mirrored(sources=(source,)).to_json())
    words = tmp_path / "last"
    told = ["--config", str(tmp_path / "run.json"), "--mirrored", mirrored, "--termination-log", str(words)]
    assert main(["train", *told]) == ExitCode.DONE, words.read_text()
    last = TerminationMessage.decode(words.read_text())
    assert last is not None
    assert last.artifact is not None
    folder = run.folder(last.artifact)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "c" * 40)
    assert "| Its licence | mit |" in (folder / "README.md").read_text()


def test_a_base_of_a_hub_is_named_by_repository_commit_and_licence_and_by_its_mirror(
    done: tuple[StageRun, Any, Any],
) -> None:
    run, artifact, _ = done
    origin = MirroredSource(
        uri="hf://org/name@main", commit="c" * 40, digest=artifact.base_model_digest, license="apache-2.0"
    )
    mirror = f"s3://adapters/guide/models/{'0' * 64}"
    config = run_config(run.root, baseModel={"uri": mirror})
    named = adapter_config(config, artifact.base_model_digest, ("a",), origin=origin)
    assert (named["base_model_name_or_path"], named["revision"]) == ("org/name", "c" * 40)
    figures = json.loads((run.folder(artifact) / "metrics.json").read_text())
    card = model_card(config, run.prepared, artifact.digest, figures, origin)
    assert "\nbase_model: org/name\n---\n" in card
    assert "for org/name, trained with" in card
    rows = dict(line.strip("| ").split(" | ", 1) for line in card.splitlines() if line.startswith("| Its"))
    assert rows == {
        "Its repository": f"org/name at commit `{'c' * 40}`",
        "Its licence": "apache-2.0",
        "Its mirror": f"`{mirror}`",
    }
    silent = model_card(config, run.prepared, artifact.digest, figures, origin.model_copy(update={"license": None}))
    assert "| Its licence | not stated by the repository |" in silent
    assert "Its repository" not in model_card(config, run.prepared, artifact.digest, figures)


def test_test_losses_are_those_of_the_exported_files_and_of_the_base_alone(
    tiny: Path, done: tuple[StageRun, Any, Any], tmp_path: Path
) -> None:
    run, artifact, summary = done
    test = load_view(run.store, run.prepared.view_digest, tmp_path).test
    assert test is not None

    def loss(model: Any) -> float:
        total, tokens = 0.0, 0
        with torch.no_grad():
            for index in range(len(test)):
                batch = Batches(test).lay(np.array([index]), torch.device("cpu"))
                out = model(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits[0]
                total += torch.nn.functional.cross_entropy(out, batch.targets[0], reduction="sum").item()
                tokens += batch.supervised_tokens
        return total / tokens

    assert summary.base_test_loss == pytest.approx(loss(plain_base(tiny)), rel=1e-5)
    model = load_adapter(plain_base(tiny), run.folder(artifact), torch.float32)
    assert summary.test_loss == pytest.approx(loss(model.peft), rel=1e-5)
    assert summary.test_loss < summary.base_test_loss
    figures = json.loads((run.folder(artifact) / "metrics.json").read_text())
    assert (figures["testLoss"], figures["baseTestLoss"]) == (summary.test_loss, summary.base_test_loss)
    assert figures["testPerplexity"] == pytest.approx(np.exp(summary.test_loss))
    assert [point["step"] for point in figures["evaluations"]] == [2, 4, 6]
    assert len(figures["curve"]) == 6


def test_a_run_without_held_out_data_is_published_without_their_figures(tmp_path: Path) -> None:
    run = stage_run(tmp_path, dataset={"validation": None}, training={"maxSteps": 2})
    artifact, summary = run.train()
    assert (summary.test_loss, summary.base_test_loss, summary.validation_loss) == (None, None, None)
    assert not (run.folder(artifact) / "splits").exists()


def test_a_chat_template_of_ones_own_is_published_with_the_adapter(tmp_path: Path) -> None:
    own = CHATML.replace("You are a helpful assistant", "You know every shelf")
    (tmp_path / "own.jinja").write_text(own)
    uri = (tmp_path / "own.jinja").as_uri()
    run = stage_run(tmp_path, dataset={"chatTemplate": uri}, training={"maxSteps": 1})
    (tmp_path / "own.jinja").write_text(CHATML)
    artifact, _ = run.train()
    assert (run.folder(artifact) / "chat_template.jinja").read_text() == own, "as it was when rows were made"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(run.folder(artifact)))
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert asked.startswith("<|im_start|>system\nYou know every shelf<|im_end|>")


def test_a_run_that_has_its_result_is_not_trained_again(done: tuple[StageRun, Any, Any]) -> None:
    run, artifact, _ = done
    before = run.log.getvalue().count('"message": "model loaded"')
    again, _ = run.train(attempt=7)
    assert again == artifact
    assert run.log.getvalue().count('"message": "model loaded"') == before


def test_an_adapter_whose_result_was_not_noted_is_noted_without_a_change(tmp_path: Path) -> None:
    run = stage_run(tmp_path)
    artifact, _ = run.train()
    before = (run.folder(artifact) / "MANIFEST.json").read_bytes()
    run.store.delete([result_path(run.prepared.run_digest)])
    again, _ = run.train(attempt=1)
    assert again == artifact
    assert (run.folder(artifact) / "MANIFEST.json").read_bytes() == before
    verify_adapter(run.store, adapter_prefix(artifact.digest), artifact.digest)


def test_a_damaged_adapter_is_made_whole_again(tmp_path: Path) -> None:
    run = stage_run(tmp_path)
    artifact, _ = run.train()
    for name in ("adapter_model.safetensors", "metrics.json"):
        (run.folder(artifact) / name).write_bytes(b"rot")
    again, _ = run.train(attempt=1)
    assert again == artifact
    verify_adapter(run.store, adapter_prefix(artifact.digest), artifact.digest)


def test_the_adapter_of_an_attempt_that_was_first_is_taken_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stage_run(tmp_path)
    first, _ = run.train()
    note = run.store.read(result_path(run.prepared.run_digest))
    run.store.delete([result_path(run.prepared.run_digest)])
    whole = Trainer.run

    def otherwise(trainer: Trainer) -> Any:
        """Come to other weights, as another kind of machine does, after the other attempt wrote its result."""
        state = whole(trainer)
        shake(trainer.model)
        run.store.put(result_path(run.prepared.run_digest), note)
        return state

    monkeypatch.setattr(Trainer, "run", otherwise)
    second, _ = run.train(attempt=1)
    assert second == first
    assert "another attempt of this run published first" in run.log.getvalue()
    assert len(list((run.output / "adapters").iterdir())) == 2


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage_run(tmp_path)
    whole = Trainer.run

    def spoil(trainer: Trainer) -> Any:
        state = whole(trainer)
        with torch.no_grad():
            next(iter(trainer.model.parameters.values()))[0, 0] = float("nan")
        return state

    monkeypatch.setattr(Trainer, "run", spoil)
    with pytest.raises(SettingsInvalid, match="not finite"):
        run.train()
    assert not (run.output / "adapters").exists()


def test_what_has_no_finite_loss_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without validation nothing but the test sees what the last step made, in finite numbers."""
    run = stage_run(tmp_path, dataset={"test": {"fraction": 0.2}})
    whole = Trainer.run

    def overshoot(trainer: Trainer) -> Any:
        state = whole(trainer)
        with torch.no_grad():
            for parameter in trainer.model.parameters.values():
                parameter.fill_(1e30)
        return state

    monkeypatch.setattr(Trainer, "run", overshoot)
    with pytest.raises(SettingsInvalid, match="the test loss of what was trained is not finite, so nothing is"):
        run.train()
    assert not (run.output / "adapters").exists()


def test_a_base_that_changed_during_training_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage_run(tmp_path)
    whole = Trainer.run

    def repack(trainer: Trainer) -> Any:
        state = whole(trainer)
        trainer.model.causal.get_submodule("model.layers.0.mlp.up_proj.base_layer").weight.data[0] ^= 1
        return state

    monkeypatch.setattr(Trainer, "run", repack)
    with pytest.raises(RuntimeError, match="frozen base model changed"):
        run.train()
    assert not (run.output / "adapters").exists()


def test_an_adapter_that_does_not_load_completely_is_refused(
    tiny: Path, done: tuple[StageRun, Any, Any], tmp_path: Path
) -> None:
    """peft only warns about missing keys, and answers as the base does."""
    run, artifact, _ = done
    tensors = load_file(run.folder(artifact) / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((run.folder(artifact) / "adapter_config.json").read_bytes())
    renamed = {name.replace("layers.1", "blocks.1"): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"did not load.*blocks\.1"):
        load_adapter(plain_base(tiny), tmp_path, torch.float32)


def test_the_best_weights_are_published_with_early_stopping_else_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = {}
    for name, early in (("best", {"patience": 5}), ("last", None)):
        script, seen = iter([3.0, 1.0, 2.0, 1.5, 2.5]), list[dict[str, torch.Tensor]]()
        run = stage_run(tmp_path / name, training={"earlyStopping": early})

        def scripted(model: Adapted, *_: Any, script: Any = script, seen: Any = seen) -> float:
            seen.append(model.trained_tensors())
            return float(next(script))

        monkeypatch.setattr("trimtab_trainer.training.methods.objective.mean_loss", scripted)
        artifact, summary = run.train()
        stored = load_file(run.folder(artifact) / "adapter_model.safetensors")
        trained = seen[:3]  # behind them what was exported is measured
        assert [all(torch.equal(stored[weight], each[weight]) for weight in stored) for each in trained] == [
            False,
            name == "best",
            name == "last",
        ]
        figures = json.loads((run.folder(artifact) / "metrics.json").read_text())
        manifest = json.loads((run.folder(artifact) / "MANIFEST.json").read_text())
        assert manifest["records"]["step"] == figures["publishedStep"]
        published[name] = (figures["publishedStep"], summary.validation_loss)
    assert published == {"best": (4, 1.0), "last": (6, 2.0)}


def test_perplexity() -> None:
    assert [perplexity(value) for value in (None, 0.0, 1000.0)] == [None, 1.0, None]
