"""All weights trained (`lora.type: None`): gradients, exact resumption, and the model that is published."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from trimtab_trainer.__main__ import main
from trimtab_trainer.base.architecture import Targets
from trimtab_trainer.base.base_model import digest_of_entries, entries_of, find_base_model
from trimtab_trainer.base.layers import reach
from trimtab_trainer.contract import ExitCode, Reason, RunConfig, StoredArtifact, StoredBaseModel
from trimtab_trainer.data.view import Sequences
from trimtab_trainer.errors import Interrupted, SettingsInvalid
from trimtab_trainer.evaluate.preparing.adapters import find_adapter
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.prepare import prepare
from trimtab_trainer.publishing import publish
from trimtab_trainer.report import Report
from trimtab_trainer.storage import read_manifest
from trimtab_trainer.training import parts
from trimtab_trainer.training.distributed import world as world_module
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.network.full import PLAIN, Full, load_full, write_full
from trimtab_trainer.training.network.initial import check_initial_adapter
from trimtab_trainer.training.network.model import load_base

from tests.trainer.tiny import make_tiny_experts, make_tiny_model, tiny_weights

from .distributed.ranks import on_ranks
from .runs import CPU, FULL, full_config, gradients, random_rows, run_config, sequences, trained, trainer, unpacked
from .stage import stage_run
from .test_loop import losses, same, weights

OPTIMIZERS = ["AdamW", "AdamW8bit", "PagedAdamW8bit", "SGD"]


def untied(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Make the tiny model with an output head of its own, in two files."""
    make_tiny_model(folder)
    config = json.loads((folder / "config.json").read_text())
    name = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False, "dtype": name}))
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in tiny_weights(0).items()}
    tensors["lm_head.weight"] = torch.from_numpy(tiny_weights(9)["model.embed_tokens.weight"]).to(dtype)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, some in shards.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def plain_gradients(folder: Path, data: Sequences) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean loss over all supervised tokens as transformers alone computes it, row by row."""
    model = load_base(folder, PLAIN, torch.float32, CPU).requires_grad_(True)
    total, tokens = torch.zeros(()), 0
    starts = [*torch.nonzero(torch.from_numpy(data.positions) == 0).flatten().tolist(), len(data.tokens)]
    for begin, end in itertools.pairwise(starts):
        row = torch.from_numpy(data.tokens[begin:end]).long()
        learned = torch.from_numpy(data.supervised[begin:end])[1:]
        logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        total = total + functional.cross_entropy(logits[learned], row[1:][learned], reduction="sum")
        tokens += int(learned.sum())
    (total / tokens).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "packed"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_the_gradient_of_every_weight_is_that_of_the_plain_model(
    tiny: Path, tmp_path: Path, head: str, packed: bool
) -> None:
    base = tiny if head == "tied" else untied(tmp_path / "base")
    rows = random_rows(8)
    data = sequences([rows[:2], rows[2:4], rows[4:6], rows[6:]]) if packed else unpacked(rows)
    batch = 4 if packed else 8
    run = trainer(base, tmp_path, full_config(tmp_path, training={"batchSize": batch, "maxGradientNorm": 0}), data)
    run.model.attend_by_rows()
    found, wanted = gradients(run), plain_gradients(base, data)
    assert found.keys() == wanted.keys()
    assert ("lm_head.weight" in found) is (head == "untied")
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


def test_a_batch_cut_otherwise_and_activations_computed_twice_give_the_same_gradient(
    tiny: Path, tmp_path: Path
) -> None:
    data, found = unpacked(random_rows(8, longest=60)), []
    for size, twice in ((1, False), (4, False), (2, True)):
        config = full_config(tmp_path, training={"batchSize": 8, "microBatchSize": size})
        run = trainer(tiny, tmp_path, config, data)
        if twice:
            run.model.checkpoint_activations()
        found.append(gradients(run))
    for other in found[1:]:
        for name, gradient in found[0].items():
            assert torch.allclose(gradient, other[name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_four_steps_and_four_resumed_are_eight_bit_for_bit(
    tiny: Path, tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 300_000)  # some ten parts
    data = unpacked(random_rows(10))
    training = {"maxSteps": 8, "optimizer": optimizer, "weightDecay": 0.01, "learningRate": 0.0005}
    config = full_config(tmp_path / "a", training=training)
    straight = trainer(tiny, tmp_path / "a", config, data)
    straight.run()
    config = full_config(tmp_path / "b", training=training)
    first = trainer(tiny, tmp_path / "b", config, data)
    while first.state.step < 4:
        first.step()
    first.save()
    first.checkpoints.wait(everything=True)
    stored = [file.name for file in (tmp_path / "b").rglob("model-*.safetensors")]
    assert len(stored) > 3
    second = trainer(tiny, tmp_path / "b", config, data, attempt=1)
    second.resume(next(second.checkpoints.newest_first()))
    assert second.state.step == 4
    second.run()
    assert same(weights(straight), weights(second))
    assert losses(straight) == losses(second)
    assert not same(weights(straight), weights(trainer(tiny, tmp_path / "c", config, data)))


def _flipped(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


PART_DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a part is gone": ("model-00002-of-*", Path.unlink),
    "a part is torn": ("model-00002-of-*", lambda file: file.write_bytes(file.read_bytes()[:-8])),
    "a part has a wrong bit": ("optimizer-00003-of-*", _flipped),
    "a part is another one": (
        "model-00002-of-*",
        lambda file: file.write_bytes(next(file.parent.glob("model-00001-of-*")).read_bytes()),
    ),
}


@pytest.mark.parametrize("case", PART_DAMAGES)
def test_a_checkpoint_of_which_a_part_is_not_as_it_was_written_is_passed_over(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 300_000)
    config = full_config(tmp_path, checkpoint={"everySteps": 2}, training={"maxSteps": 4})
    run = trainer(tiny, tmp_path, config, unpacked(random_rows(10)))
    run.run()
    newest = sorted((tmp_path / "output").rglob("step-000004-*"))[0]
    name, damage = PART_DAMAGES[case]
    damage(next(newest.glob(name)))
    again = trainer(tiny, tmp_path, config, unpacked(random_rows(10)), attempt=1)
    assert next(again.checkpoints.newest_first()).state.step == 2


def test_parts_hold_what_was_written_and_an_incomplete_set_is_none(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.full((100,), float(number)) for number in range(5)}
    parts.save_parts(tensors, tmp_path, parts.MODEL, most=800)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)
    ]
    assert same(parts.load_parts(tmp_path, parts.MODEL), tensors)
    assert parts.weights_in(tmp_path)[0] == parts.MODEL
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match="not all parts of model"):
        parts.load_parts(tmp_path, parts.MODEL)
    with pytest.raises(ValueError, match="not all parts of optimizer"):
        parts.load_parts(tmp_path, "optimizer")
    assert parts.is_weights("adapter.safetensors")
    assert not parts.is_weights("optimizer.safetensors")
    assert not parts.is_weights("model.safetensors.index.json")


def test_a_model_is_published_in_the_files_of_its_base_and_loads_as_that_does(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = stage_run(tmp_path, **FULL)
    artifact, summary = run.train()
    folder = run.folder(artifact)
    assert artifact.full
    assert (artifact.rank, artifact.target_modules) == (None, [])
    assert summary.test_loss is not None
    assert summary.base_test_loss is not None
    assert summary.test_loss < summary.base_test_loss
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    before, after = load_file(tmp_path / "base/model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    assert same({n: p.detach() for n, p in model.named_parameters()}, after)

    manifest = read_manifest(run.store, f"models/{folder.name}")
    assert manifest is not None
    assert manifest.document["artifact"]["baseModel"] == run.prepared.base_model_digest
    assert not (run.output / "adapters").exists()
    assert not run.checkpoints()
    card, page = (folder / "README.md").read_text(), (folder / "report.html").read_text()
    assert "library_name: transformers" in card
    assert "all of whose weights were trained" in card
    assert "LoRA" not in card
    assert "all of whose weights were trained" in page
    assert "Trained model" in page
    assert "LoRA" not in page
    assert json.loads((folder / "metrics.json").read_text())["settings"]["lora"] == {"type": "None"}


def test_what_was_published_is_found_by_prepare_and_serves_as_a_base_model(tmp_path: Path) -> None:
    run = stage_run(tmp_path, **FULL)
    artifact, _ = run.train()
    again = prepare(run.config, tmp_path / "again", Report(stream=run.log))
    assert again.artifact == artifact
    # Its digest as a base model is told by its manifest, without reading the weights.
    model = find_base_model(StoredBaseModel(uri=artifact.uri))
    by_manifest = digest_of_entries(entries_of(model))
    (run.folder(artifact) / "MANIFEST.json").rename(tmp_path / "manifest")
    assert digest_of_entries(entries_of(find_base_model(StoredBaseModel(uri=artifact.uri)))) == by_manifest
    (tmp_path / "manifest").rename(run.folder(artifact) / "MANIFEST.json")
    further = run.config.model_copy(update={"base_model": StoredBaseModel(uri=artifact.uri)})
    assert prepare(further, tmp_path / "further", Report(stream=run.log)).prepared.base_model_digest == by_manifest


def test_a_base_of_16_bits_in_several_files_is_trained_in_32_and_published_as_it_was(tmp_path: Path) -> None:
    run = stage_run(tmp_path, make_base=lambda folder: untied(folder, torch.bfloat16), **FULL)
    artifact, summary = run.train()
    folder = run.folder(artifact)
    names = sorted(file.name for file in folder.glob("model*"))
    assert names == sorted(file.name for file in (tmp_path / "base").glob("model*"))
    for shard in folder.glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(shard).values()} == {torch.bfloat16}
    assert summary.test_loss is not None
    assert '"trained_parameters"' in run.log.getvalue()


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Interruption:
    """Return an interruption that is asked for after some steps."""
    stop, advance = Interruption(), Trainer.advance

    def then(self: Trainer, *args: Any) -> None:
        advance(self, *args)
        if self.state.step == step:
            stop.request()

    monkeypatch.setattr(Trainer, "advance", then)
    return stop


@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupted_run_ends_with_the_digest_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    sections = FULL | {"training": {"earlyStopping": {"patience": 5}}}
    straight = stage_run(tmp_path / "a", **sections)
    artifact, _ = straight.train()
    run = stage_run(tmp_path / "b", **sections)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        run.train(0, killed_at(step, patch))
    assert run.checkpoints()
    again, summary = run.train(1)
    assert summary.resumed_from_step == step
    assert again.digest == artifact.digest


def test_the_best_weights_are_published_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab_trainer.training.methods.objective import Measured, Supervised

    seen: list[dict[str, torch.Tensor]] = []
    script = iter([3.0, 1.0, 2.0])
    measure = Supervised.measure

    def scripted(self: Any, model: Any, split: Any, stop: Any, world: Any = None) -> Measured:
        if not model.causal.training and next(iter(model.parameters.values())).requires_grad is False:
            return measure(self, model, split, stop, world)
        seen.append(model.trained_tensors())
        return Measured(next(script))

    monkeypatch.setattr(Supervised, "measure", scripted)
    run = stage_run(tmp_path, **FULL | {"training": {"earlyStopping": {"patience": 5}}})
    artifact, _ = run.train()
    assert same(load_file(run.folder(artifact) / "model.safetensors"), seen[1])


@pytest.mark.parametrize("early", [False, True], ids=["the last", "the best"])
def test_while_what_is_published_is_measured_nothing_else_of_the_run_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """Beside it were a copy of the weights and, of a stopped run, both copies; of the optimizer twice that before."""
    alive: list[weakref.ref[torch.Tensor]] = []
    seen: list[int] = []
    write, measure = publish.export, publish.measure
    optimizers: list[Any] = []
    made = Trainer.__init__

    def init(self: Trainer, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        optimizers.append(self.optimizer)

    def exported(config: Any, prepared: Any, weights: dict[str, torch.Tensor], *args: Any, **more: Any) -> None:
        assert not optimizers[-1].state
        alive.extend(weakref.ref(tensor) for tensor in weights.values())
        own = {p.data_ptr() for p in args[0].parameters.values()}
        assert all((tensor.data_ptr() in own) is not early for tensor in weights.values()), "no copy of a copy"
        write(config, prepared, weights, *args, **more)

    def measured(*args: Any, **more: Any) -> Any:
        gc.collect()
        seen.append(sum(each() is not None for each in alive))
        return measure(*args, **more)

    monkeypatch.setattr(Trainer, "__init__", init)
    monkeypatch.setattr("trimtab_trainer.training.train.export", exported)
    monkeypatch.setattr("trimtab_trainer.training.train.measure", measured)
    stage_run(tmp_path, **FULL | ({"training": {"earlyStopping": {"patience": 5}}} if early else {})).train()
    assert alive
    assert seen == [0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "NF4, which is the default": ({"quantization": {}}, "quantization.type must be None where lora.type is None"),
    "NF4": ({"quantization": {"type": "NF4"}}, "set quantization: {type: None}, or leave lora.type out"),
    "DPO": ({"training": {"method": "DPO"}}, "training.method must be SFT where lora.type is None"),
    "KTO": ({"training": {"method": "KTO"}}, "training.method must be SFT where lora.type is None"),
    "ORPO": ({"training": {"method": "ORPO"}}, "training.method must be SFT where lora.type is None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    sections, message = REFUSED[case]
    with pytest.raises(ValueError, match=message.replace("{", "\\{")):
        RunConfig.model_validate(
            {
                "baseModel": {"uri": f"file://{tmp_path}/base"},
                "dataset": {"training": {"uri": f"file://{tmp_path}/train.jsonl"}},
                "output": {"uri": f"file://{tmp_path}/output"},
                **FULL,
                **sections,
            }
        )


def test_null_is_neither_and_what_means_nothing_beside_none_is_refused(tmp_path: Path) -> None:
    document = full_config(tmp_path).to_json()
    assert document["lora"]["type"] == "None"
    assert RunConfig.model_validate(document) == full_config(tmp_path)
    with pytest.raises(ValueError, match=r"null says nothing; write lora: \{type: None\}"):
        RunConfig.model_validate(document | {"lora": None})
    for more in ({"rank": 8}, {"dropout": 0.0}, {"targetModules": ["q_proj"]}, {"useDora": True}):
        with pytest.raises(ValueError, match="nothing of lora means anything beside it"):
            RunConfig.model_validate(document | {"lora": {"type": "None", **more}})
    usual = RunConfig.model_validate({key: value for key, value in document.items() if key != "lora"})
    assert usual.adapter is not None
    assert "type" not in usual.to_json()["lora"]


def test_a_mixture_of_experts_is_refused_before_an_accelerator_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="a mixture of experts is not trained whole") as refused:
        stage_run(tmp_path, make_base=make_tiny_experts, **FULL)
    assert refused.value.reason is Reason.BASE_MODEL_INVALID


def test_a_learning_rate_of_adapters_is_warned_of(tmp_path: Path) -> None:
    run = stage_run(tmp_path, **FULL | {"training": {"learningRate": 0.0002}})
    assert "training.learningRate 0.0002 is an adapter's" in run.log.getvalue()
    quiet = stage_run(tmp_path / "b", **FULL | {"training": {"learningRate": 0.00002}})
    assert "is an adapter's" not in quiet.log.getvalue()


def test_a_weight_that_is_no_tensor_of_the_files_is_named(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    model = load_base(base, PLAIN, torch.float32, CPU)
    from trimtab_trainer.training.network.full import train_fully

    shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if "q_proj" not in name}
    with pytest.raises(SettingsInvalid, match=r"layers\.0\.self_attn\.q_proj\.weight") as refused:
        train_fully(model, shapes, torch.float32)
    assert refused.value.reason is Reason.BASE_MODEL_INVALID


def test_a_weight_that_no_gradient_reaches_is_named(tiny: Path, tmp_path: Path) -> None:
    run = trainer(tiny, tmp_path, full_config(tmp_path), unpacked(random_rows(6)))
    run.model.causal.register_parameter("lost", torch.nn.Parameter(torch.zeros(2)))
    run.model.parameters["lost"] = run.model.causal.lost
    with pytest.raises(SettingsInvalid, match=r"no gradient reaches 1 of .* \(lost\)"):
        run.step()


def test_a_published_model_whose_weights_did_not_arrive_is_told(tiny: Path, tmp_path: Path) -> None:
    model = trained(tiny, full_config(tmp_path))
    assert isinstance(model, Full)
    tensors = model.trained_tensors()
    (tmp_path / "made").mkdir()
    write_full(model, tensors, tiny, tmp_path / "made")
    other = {name: tensor + (1 if name == "model.norm.weight" else 0) for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match=r"does not load as it was trained: model\.norm\.weight"):
        load_full(tmp_path / "made", tiny, model, other)


def test_the_base_model_is_there_alone_beside_what_was_published(tiny: Path, tmp_path: Path) -> None:
    model = trained(tiny, full_config(tmp_path))
    assert isinstance(model, Full)
    with pytest.raises(RuntimeError, match="not there alone"):
        model.base_alone()
    with torch.no_grad():
        for parameter in model.parameters.values():
            parameter.mul_(1.1)
    tensors = model.trained_tensors()
    (tmp_path / "made").mkdir()
    write_full(model, tensors, tiny, tmp_path / "made")
    published, base = load_full(tmp_path / "made", tiny, model, tensors), load_base(tiny, PLAIN, torch.float32, CPU)
    row = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        tuned = published.causal(row).logits
        for _ in range(2):
            with published.base_alone():
                assert torch.equal(published.causal(row).logits, base(row).logits)
            assert torch.equal(published.causal(row).logits, tuned)
    assert not torch.equal(tuned, base(row).logits)


def test_products_in_bfloat16_keep_weights_gradients_and_states_in_float32(tiny: Path, tmp_path: Path) -> None:
    config = full_config(tmp_path, training={"maxSteps": 3})
    model = trained(tiny, config, torch.bfloat16)
    run = trainer(tiny, tmp_path, config, unpacked(random_rows(6)), model=model)
    run.gradient()
    assert {p.grad.dtype for p in model.parameters.values() if p.grad is not None} == {torch.float32}
    run.run()
    assert {p.dtype for p in model.parameters.values()} == {torch.float32}
    assert {v.dtype for s in run.optimizer.state.values() for v in s.values()} == {torch.float32}
    exact = trainer(tiny, tmp_path / "exact", config, unpacked(random_rows(6)))
    exact.run()
    assert losses(run) == pytest.approx(losses(exact), rel=0.02)


def test_where_an_adapter_is_asked_for_it_is_refused_by_name(tmp_path: Path) -> None:
    run = stage_run(tmp_path, **FULL)
    artifact, _ = run.train()
    for role in ("target", "baseline", "adapter"):
        stored = StoredArtifact(uri=artifact.uri, digest=artifact.digest)
        with pytest.raises(SettingsInvalid, match=rf"the {role} at .* is a whole model and no adapter") as refused:
            find_adapter(stored, role, None)
        assert refused.value.reason is Reason.ARTIFACT_INVALID
    document = run_config(tmp_path / "b").to_json()
    document["lora"]["initialAdapter"] = {"uri": artifact.uri, "digest": artifact.digest}
    with pytest.raises(SettingsInvalid, match=r"the initial adapter at .* is a whole model and no adapter"):
        check_initial_adapter(RunConfig.model_validate(document), None, Targets((), (), reach({}, {})))


def test_check_and_estimate_say_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stage_run(tmp_path, **FULL)
    (tmp_path / "run.json").write_text(json.dumps(run.config.to_json()))
    assert main(["check", "--config", str(tmp_path / "run.json")]) == 0
    told = capsys.readouterr().out
    assert "all 344,704 weights are trained" in told
    assert "is an adapter's" in told
    assert main(["estimate", "--config", str(tmp_path / "run.json"), "--accelerator", "H100-80GB"]) == 0
    told = capsys.readouterr().out
    assert "all of them trained in float32" in told
    assert "rank" not in told
    assert "adapter" not in told


def test_estimate_refuses_what_prepare_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = full_config(tmp_path).to_json()
    make_tiny_experts(tmp_path / "base")
    (tmp_path / "run.json").write_text(json.dumps(document))
    assert main(["estimate", "--config", str(tmp_path / "run.json")]) == ExitCode.SETTINGS_INVALID
    assert "a mixture of experts is not trained whole" in "".join(capsys.readouterr())


@pytest.mark.parametrize("most", [1 << 26, 40_000], ids=["gradients at once", "gradients in groups"])
def test_two_processes_train_it_as_one_does(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A buffer for all gradients took a quarter more memory, of which no estimate knew."""
    monkeypatch.setattr(world_module, "BUCKET_NUMBERS", most)
    config = full_config(tmp_path, training={"maxSteps": 4, "batchSize": 4, "microBatchSize": 1})
    rows = sequences([[row] for row in random_rows(3)] + [random_rows(3, seed=4)])  # unequal supervised tokens

    def body(world: World) -> dict[str, torch.Tensor]:
        run = trainer(tiny, tmp_path / f"of-{world.size}", config, rows, world=world)
        run.run()
        bucket, sizes = world._bucket, [p.numel() for p in run.model.parameters.values()]
        if bucket is not None:
            assert bucket.numel() <= max(min(most, sum(sizes)), *sizes) + len(sizes)
        return run.model.trained_tensors()

    (want,) = on_ranks(1, tmp_path / "one", body)
    first, second = on_ranks(2, tmp_path / "two", body)
    assert same(first, second)
    apart = torch.cat([(first[name] - want[name]).flatten() for name in want]).norm()
    assert apart < 1e-5 * torch.cat([tensor.flatten() for tensor in want.values()]).norm()
