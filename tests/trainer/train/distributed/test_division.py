"""A base model divided among processes: the bytes, the gradient and the run of one that is whole."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from trimtab_trainer import probe
from trimtab_trainer.base.architecture import read_shapes
from trimtab_trainer.base.base_model import find_base_model
from trimtab_trainer.base.layers import reach
from trimtab_trainer.contract import ExitCode, LoraSettings, QuantizationSettings, Reason, StoredBaseModel
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.probe import check_forward
from trimtab_trainer.report import Report
from trimtab_trainer.storage import open_store
from trimtab_trainer.training.batches import Batches
from trimtab_trainer.training.distributed.checkpoints import newest_first
from trimtab_trainer.training.distributed.world import World
from trimtab_trainer.training.loading import alike
from trimtab_trainer.training.loop import Trainer
from trimtab_trainer.training.loss import summed_loss
from trimtab_trainer.training.machine import hardware
from trimtab_trainer.training.machine.sizing import Sizing
from trimtab_trainer.training.methods.reference import References
from trimtab_trainer.training.methods.splits import preferences_in, splits_of
from trimtab_trainer.training.network.adapter import Adapted, add_adapter
from trimtab_trainer.training.network.division import Division, Unit
from trimtab_trainer.training.network.model import frozen_hash, load_base
from trimtab_trainer.training.network.product import fuse
from trimtab_trainer.training.validation import mean_loss

from tests.long import LONG
from tests.trainer import tiny as tiny_model
from tests.trainer.tiny import make_tiny_experts, make_tiny_model
from tests.trainer.train.families import make_family
from tests.trainer.train.methods.preferences import random_answers, side
from tests.trainer.train.runs import CPU, gradients, plain_base, random_rows, shake, trainer, unpacked
from tests.trainer.train.stage import stage_run

from .pods import container
from .ranks import on_ranks
from .test_gradient import Weights, all_stop_together, assert_close, assert_same, data, settings


def model(base: Path, config: Any, world: World, divided: bool = True) -> Adapted:
    """Return a base model with a fresh adapter, as `train` builds it."""
    division = Division(world) if divided else None
    found = load_base(base, config.quantization, torch.float32, CPU, division)
    adapted = add_adapter(found, config.lora, torch.float32, config.training.seed)
    assert fuse(adapted.module) or config.lora.target_parameters
    adapted.attend_by_rows()
    return adapted


def run_of(base: Path, root: Path, config: Any, rows: Any, world: World, *more: Any, **others: Any) -> Trainer:
    """Return a trainer on a divided base model, on a whole one where it is alone."""
    own = others.pop("model", None) or model(base, config, world, others.pop("divided", world.size > 1))
    return trainer(base, root, config, rows, *more, model=own, world=world, **others)


@pytest.mark.parametrize(
    ("size", "quantization"),
    [
        pytest.param(size, kind, marks=() if (size, kind) in ((1, "NF4"), (2, "None"), (4, "NF4")) else LONG)
        for size in (1, 2, 4)
        for kind in ("NF4", "None")
    ],
)
def test_bytes_and_gradient_are_those_of_a_whole_model(
    tiny: Path, tmp_path: Path, size: int, quantization: str
) -> None:
    """Packed, with ten times the supervised tokens in some sequences, and every other layer computed twice.

    Some linear layers are adapted, which are fused, and some are the library's own, which keeps their weights.
    """
    plain, some = {"type": quantization, "computeType": "Float32"}, {"targetModules": ["q_proj", "down_proj"]}
    config = settings(tmp_path, training={"maxGradientNorm": 0}, quantization=plain, lora=some)
    rows = data(packed=True)

    def body(world: World, divided: bool) -> tuple[str, Weights, float, Weights]:
        run = run_of(tiny, tmp_path, config, rows, world, divided=divided)
        shake(run.model)
        kept = gradients(run)
        run.model.checkpoint_activations(0.5)
        assert run.model.holding.differing() == []
        return run.base_hash, kept, mean_loss(run.model, run.training, run.stop, 3, world), gradients(run)

    ((known, want, loss, again),) = on_ranks(1, tmp_path / "one", lambda world: body(world, divided=False))
    for found in on_ranks(size, tmp_path / "several", lambda world: body(world, divided=True)):
        assert found[0] == known
        assert_close(found[1], want)
        assert found[2] == pytest.approx(loss, rel=1e-6)
        assert_close(found[3], again)


@pytest.mark.parametrize("pods", [1, 2])
def test_a_whole_run_is_that_of_one_process(tiny: Path, tmp_path: Path, pods: int) -> None:
    """With dropout, clipping, evaluations and a best checkpoint, as without division."""
    early = {"evaluateEverySteps": 2, "earlyStopping": {"patience": 9}, "optimizer": "AdamW", "learningRate": 0.005}
    config = settings(tmp_path, training=early, lora={"dropout": 0.2}, checkpoint={"everySteps": 3})
    rows, held_out = data(packed=False), unpacked(random_rows(7, seed=9))

    def body(world: World) -> tuple[Weights, list[float], list[float]]:
        run = run_of(tiny, tmp_path / f"of-{world.size}", config, rows, world, held_out)
        state = run.run()
        losses, evaluated = [point.loss for point in state.curve], [point.loss for point in state.evaluations]
        return run.model.trained_tensors(), losses, evaluated

    (want,) = on_ranks(1, tmp_path / "one", body)
    first, second = on_ranks(2, tmp_path / "two", body, pods=pods)
    assert_same(second[0], first[0])
    moved = torch.cat([(first[0][name] - want[0][name]).flatten() for name in want[0]]).norm()
    assert moved < 1e-5 * torch.cat([tensor.flatten() for tensor in want[0].values()]).norm()
    for found in (first, second):
        assert found[1] == pytest.approx(want[1], rel=1e-5)
        assert found[2] == pytest.approx(want[2], rel=1e-5)


@pytest.mark.parametrize(
    ("before", "after"), [((2, True), (1, False)), ((1, False), (2, True)), ((4, True), (2, True))]
)
def test_any_number_goes_on_from_a_checkpoint_whole_or_divided(
    tiny: Path, tmp_path: Path, before: tuple[int, bool], after: tuple[int, bool]
) -> None:
    rows = data(packed=False)

    def body(world: World, until: int, attempt: int, name: str, divided: bool) -> tuple[Weights, int, str]:
        config, log = settings(tmp_path / name, 1, lora={"dropout": 0.2}), io.StringIO()
        run = run_of(tiny, tmp_path / name, config, rows, world, attempt=attempt, log=log, divided=divided)
        for checkpoint in newest_first(run.checkpoints, world, run.stop):
            run.resume(checkpoint)
            break
        resumed = run.state.step
        while run.state.step < until:
            run.step()
        run.save()
        run.checkpoints.wait(everything=True)
        return run.model.trained_tensors(), resumed, log.getvalue()

    ((want, _, _),) = on_ranks(1, tmp_path / "straight", lambda world: body(world, 6, 0, "straight", divided=False))
    on_ranks(before[0], tmp_path / "before", lambda world: body(world, 3, 0, "broken", divided=before[1]))
    ended = on_ranks(after[0], tmp_path / "after", lambda world: body(world, 6, 1, "broken", divided=after[1]))
    for found, resumed, log in ended:
        assert resumed == 3
        assert "the frozen base differs" not in log
        assert_close(found, want)


def alive() -> int:
    """Return the bytes of all tensors of this process that have memory, but for those that are frozen."""
    found = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and not each.is_meta:  # `isinstance` wakes objects that are not there
            storage = each.untyped_storage()
            found[storage._cdata] = storage.nbytes()
    return sum(found.values())


@pytest.mark.parametrize(("size", "quantization"), [(2, "NF4"), pytest.param(4, "NF4", marks=LONG), (2, "None")])
def test_each_process_holds_its_part_and_one_layer_while_it_loads(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, quantization: str
) -> None:
    """Measured in memory, not planned: what has storage before and after."""
    config = settings(tmp_path, quantization={"type": quantization, "computeType": "Float32"})

    def body(world: World, divided: bool) -> tuple[int, int, int]:
        gc.collect()  # what an earlier test left
        gc.freeze()  # and what all libraries have, so that it is not looked through again and again
        try:
            return measured(world, divided)
        finally:
            gc.unfreeze()

    def measured(world: World, divided: bool) -> tuple[int, int, int]:
        before, most = alive(), [0]
        divide = Unit.divide

        def watched(unit: Unit, division: Division) -> None:
            most[0] = max(most[0], alive() - before)
            divide(unit, division)

        monkeypatch.setattr(Unit, "divide", watched)
        division = Division(world) if divided else None
        base = load_base(tiny, config.quantization, torch.float32, CPU, division)
        held = alive() - before
        assert base is not None
        if division is None:
            return held, 0, 0
        division.differing()  # every unit was there once
        division.leader_first(lambda: None, world, Interruption())
        end = time.monotonic() + 30  # a thread of gloo's lets go of the number that was announced a moment later
        while alive() - before > held and time.monotonic() < end:
            time.sleep(0.01)
        assert alive() - before <= held
        return held, most[0], max(unit.size for unit in division.units)

    ((whole, _, _),) = on_ranks(1, tmp_path / "one", lambda world: body(world, divided=False))
    for held, most, unit in on_ranks(size, tmp_path / "several", lambda world: body(world, divided=True)):
        assert whole / size < held < whole / size * 1.1 + 8192  # norms, and what is rounded up
        assert most < whole / size + 1.1 * unit + 8192


def test_a_process_whose_slice_is_another_is_found_by_all(tiny: Path, tmp_path: Path) -> None:
    """Bytes that changed, and bytes that were loaded otherwise: gathered, they are the same in all processes."""
    config = settings(tmp_path)

    def told(found: Adapted, world: World) -> str:
        try:
            alike(Sizing(2, 0.0), frozen_hash(found.module), found, world)
        except RuntimeError as error:
            return str(error)
        return "went on"

    def body(world: World, base: Path) -> tuple[str, str]:
        found = model(base, config, world)
        before = told(found, world)
        if world.rank == 1:
            found.holding.units[1].own[5] ^= 1  # type: ignore[union-attr]
        return before, told(found, world)

    begins = "the frozen base is not the same in all 2 processes, so their sums mean nothing: what is gathered is not"
    for before, after in on_ranks(2, tmp_path / "two", lambda world: body(world, tiny)):
        assert before == "went on"
        assert after == f"{begins} what these loaded: rank 0 (model.layers.0), 1 (model.layers.0)"
    other = make_tiny_model(tmp_path / "other", seed=1)
    for before, _ in on_ranks(2, tmp_path / "others", lambda world: body(world, other if world.rank else tiny)):
        assert before.startswith(begins)


def test_a_process_without_a_sequence_takes_part_in_its_passes(tiny: Path, tmp_path: Path) -> None:
    """The last batch of an epoch has two sequences for four processes, and one is without supervised tokens."""
    rows = unpacked(random_rows(6))
    rows.supervised[rows.offsets[2] : rows.offsets[3]] = False
    config = settings(tmp_path, 1, training={"batchSize": 4, "maxSteps": 2, "evaluateEverySteps": 1})

    def body(world: World) -> Weights:
        run = run_of(tiny, tmp_path / f"of-{world.size}", config, rows, world, unpacked(random_rows(3, seed=9)))
        run.run()
        return run.model.trained_tensors()

    (want,) = on_ranks(1, tmp_path / "one", body)
    for found in on_ranks(4, tmp_path / "four", body):
        assert_close(found, want)


@pytest.mark.parametrize("where", ["before", "within", "backward", "evaluate"])
def test_memory_that_runs_out_in_the_middle_of_a_pass_keeps_nobody_waiting(
    tiny: Path, tmp_path: Path, where: str
) -> None:
    config, rows = settings(tmp_path, 4, training={"maxSteps": 2, "evaluateEverySteps": 2}), unpacked(random_rows(8))

    def body(world: World, scarce: bool) -> tuple[Weights, int, float | None]:
        run = run_of(tiny, tmp_path / f"{world.size}-{scarce}", config, rows, world, unpacked(random_rows(9, seed=9)))

        def runs_out(tokens: Any) -> None:
            training = run.model.module.training
            if world.rank == 1 and len(tokens) > 2 and training is (where != "evaluate"):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

        if scarce:
            text: Any = run.model.text
            layer = text.layers[1]
            if where == "before":
                text.register_forward_pre_hook(lambda *seen: runs_out(seen[-1]["input_ids"]), with_kwargs=True)
            elif where == "backward":
                layer.register_forward_hook(
                    lambda *seen: seen[-1].register_hook(runs_out) and None if seen[-1].requires_grad else None
                )
            else:
                layer.mlp.register_forward_hook(lambda *seen: runs_out(seen[-1]))
        run.run()
        return run.model.trained_tensors(), run.micro_batch, run.state.validation_loss

    ((want, _, loss),) = on_ranks(1, tmp_path / "one", lambda world: body(world, scarce=False))
    for found, micro_batch, measured in on_ranks(2, tmp_path / "two", lambda world: body(world, scarce=True)):
        assert micro_batch == (4 if where == "evaluate" else 2)
        assert_close(found, want)
        assert measured == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("during", ["hidden", "evaluate"])
def test_one_that_is_told_to_stop_tells_all_between_two_passes(tiny: Path, tmp_path: Path, during: str) -> None:
    rows, held_out = data(packed=False), unpacked(random_rows(4, seed=9))
    config = settings(tmp_path, training={"evaluateEverySteps": 2})

    def tell(world: World, run: Trainer) -> None:
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    all_stop_together(tmp_path, lambda world: run_of(tiny, tmp_path, config, rows, world, held_out), during, tell)


def test_experts_and_a_head_of_its_own_are_divided_too(tmp_path: Path) -> None:
    base = make_tiny_experts(tmp_path / "experts")
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    settings_of_base = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings_of_base | {"tie_word_embeddings": False}))
    experts = {"targetParameters": ["experts.gate_up_proj", "experts.down_proj"], "dropout": 0.0}
    config, rows = settings(tmp_path, training={"maxGradientNorm": 0}, lora=experts), data(packed=False)

    def body(world: World) -> tuple[str, int, Weights]:
        run = run_of(base, tmp_path, config, rows, world)
        shake(run.model)
        run.model.checkpoint_activations(0.5)
        holding: Any = run.model.holding
        held = sum(len(unit.own) for unit in holding.units) if world.size > 1 else 0
        return run.base_hash, held, gradients(run)

    ((known, _, want),) = on_ranks(1, tmp_path / "one", body)
    assert any(".experts." in name for name in want)
    whole = sum(tensor.nbytes for tensor in weights.values() if tensor.ndim > 1)
    for found, held, gradient in on_ranks(2, tmp_path / "two", body):
        assert found == known
        assert held < whole / 2
        assert_close(gradient, want)


def test_memory_for_the_layer_after_this_one_is_not_asked_for_twice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be fetched ahead is fetched when it is needed, and the other process notices nothing."""
    config, rows = settings(tmp_path, training={"maxGradientNorm": 0}), data(packed=False)
    gather, asked = Unit.gather, [0]

    def body(world: World, scarce: bool) -> Weights:
        run = run_of(tiny, tmp_path, config, rows, world)
        shake(run.model)

        def gathered(unit: Unit, of: World) -> Any:
            asked[0] += 1
            if asked[0] == 2 and world.rank == 1:
                raise MemoryError("can't allocate memory")
            return gather(unit, of)

        if scarce:
            monkeypatch.setattr(Unit, "gather", gathered)
        return gradients(run)

    (want,) = on_ranks(1, tmp_path / "one", lambda world: body(world, scarce=False))
    for found in on_ranks(2, tmp_path / "two", lambda world: body(world, scarce=True)):
        assert_close(found, want)


@pytest.mark.parametrize(
    "family",
    [
        "qwen3_moe:Qwen3MoeForCausalLM",
        "gpt_oss:GptOssForCausalLM",
        "gemma3:Gemma3ForConditionalGeneration",
        "falcon_h1:FalconH1ForCausalLM",
        "gpt2:GPT2LMHeadModel",
    ],
)
def test_models_of_other_kinds_learn_the_same(tmp_path: Path, family: str) -> None:
    """Mixtures, sinks, vision beside the text, state spaces, a head of the embedding: bit by bit."""
    make_family(family, tmp_path)
    files = find_base_model(StoredBaseModel(uri=tmp_path.as_uri()))
    left_out, shaped = reach(read_shapes(files), files.config).left_out, LoraSettings(rank=4, dropout=0.0)

    def learned(division: Division | None) -> tuple[str, Weights]:
        base = load_base(tmp_path, QuantizationSettings(), torch.float32, CPU, division)
        adapted = add_adapter(base, shaped, torch.float32, 1, left_out)
        fuse(adapted.module)
        shake(adapted)
        check_forward(adapted, packing=False)
        rows = [[3 + token % 240 for token in row] for row in random_rows(2, longest=12)]
        batch = Batches(unpacked(rows)).lay(np.arange(2), CPU)
        summed_loss(adapted.hidden(batch), batch.targets, adapted.head).backward()
        found = {name: p.grad for name, p in adapted.parameters.items() if p.grad is not None}
        return frozen_hash(adapted.module), found

    (known, want), (divided, found) = learned(None), learned(Division(World()))
    assert divided == known
    assert_same(found, want)


@pytest.mark.parametrize("refuses", [1, probe.DRAWS])
def test_what_one_process_draws_again_all_do(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: int
) -> None:
    """In 16 bits one of them may refuse the first draw, and the others not; computed by all, they go on together."""
    config, original = settings(tmp_path), probe._probe_forward

    def body(world: World) -> tuple[list[int], str]:
        base = load_base(tiny, config.quantization, torch.bfloat16, CPU, Division(world))
        adapted = add_adapter(base, config.lora, torch.bfloat16, config.training.seed)
        drawn: list[int] = []

        def refusing(found: Any, packing: bool, draw: int) -> None:
            drawn.append(draw)
            original(found, packing, draw)
            if world.rank == 0 and draw < refuses:
                raise SettingsInvalid("rounded otherwise here")

        monkeypatch.setattr(probe, "_probe_forward", refusing)
        try:
            check_forward(adapted, False, world.gather)
        except SettingsInvalid as error:
            return drawn, str(error)
        return drawn, ""

    again = (list(range(min(refuses + 1, probe.DRAWS))), "" if refuses < probe.DRAWS else "rounded otherwise here")
    assert on_ranks(2, tmp_path / "two", body, patience=30) == [again, again]


def test_layers_that_compute_in_another_order_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    found = model(tiny, settings(tmp_path), World())
    found.text.layers = torch.nn.ModuleList(reversed(list(found.text.layers)))  # type: ignore[arg-type]
    with pytest.raises(
        SettingsInvalid, match=r"model\.layers\.\d computes out of turn, so this model cannot be divided"
    ):
        check_forward(found, packing=False)


def test_a_model_whose_layers_are_not_found_is_refused_by_name(tiny: Path) -> None:
    base = plain_base(tiny)  # loaded without division
    with pytest.raises(
        SettingsInvalid, match="one accelerator does not hold LlamaForCausalLM, and its layers cannot be"
    ):
        Division(World()).arrange(base)


@pytest.mark.parametrize("method", ["DPO", "KTO", "ORPO"])
def test_a_method_learns_the_same(tiny: Path, tmp_path: Path, method: str) -> None:
    """What it compares with is computed by the leader alone, with the others' slices."""
    training = {"method": method, "maxSteps": 2, "batchSize": 6, "microBatchSize": 2, "evaluateEverySteps": 2}
    config = settings(tmp_path, training=training)
    each = 1 if method == "KTO" else 2
    labels = {"labels": [number % 3 > 0 for number in range(9)]} if each == 1 else {}
    rows = side(random_answers(9, each), **labels)

    def body(world: World) -> tuple[Weights, float | None, list[str]]:
        view: Any = SimpleNamespace(train=rows, validation=rows, test=None)
        splits, log = splits_of(view, config.training), io.StringIO()
        run = run_of(tiny, tmp_path / f"of-{world.size}", config, rows, world, rows)
        run.training, run.validation = splits["train"], splits["validation"]
        if config.training.method.needs_reference:
            own = References(
                open_store(f"file://{tmp_path}/of-{world.size}", None),
                {},
                tmp_path / f"r-{world.rank}",
                run.stop,
                Report(stream=log),
            )
            compared = preferences_in(splits)
            run.model.holding.leader_first(lambda: own.give(run.model, compared, with_adapter=False), world, run.stop)
        state = run.run()
        return run.model.trained_tensors(), state.validation_loss, log.getvalue().splitlines()

    (want,) = on_ranks(1, tmp_path / "one", body)
    for rank, found in enumerate(on_ranks(2, tmp_path / "two", body)):
        assert_close(found[0], want[0])
        assert found[1] == pytest.approx(want[1], rel=1e-5)
        assert sum("computed" in line for line in found[2]) == (rank == 0 and method != "ORPO")
        assert sum("there already" in line for line in found[2]) == (method != "ORPO")


def test_a_run_is_divided_where_one_process_does_not_hold_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, is stopped and goes on, and what is published was measured with the slices of both."""
    monkeypatch.setattr(tiny_model, "LAYERS", 8)  # of two layers the largest units are more than all
    sections: dict[str, Any] = {"training": {"maxSteps": 6, "optimizer": "SGD", "learningRate": 0.5}}
    one, run = stage_run(tmp_path / "one", **sections), stage_run(tmp_path / "two", **sections)
    want, alone = one.train()
    monkeypatch.setattr(hardware, "memory", lambda *_, **__: 1 << 20)

    def stop(pids: list[int]) -> None:
        os.kill(pids[0], signal.SIGTERM)

    stopped = container(tmp_path / "two", run, 0, ("checkpoint stored", stop))
    assert (stopped.code, stopped.words.reason) == (ExitCode.INTERRUPTED, Reason.INTERRUPTED)
    ended = container(tmp_path / "two", run, 1)
    assert ended.code == ExitCode.DONE, ended.words.message
    for each in (stopped, ended):
        (divided, *_) = each.told("the base model is divided: one process does not hold it")
        assert divided["base_bytes_of_each"] < divided["base_bytes"] < divided["least_bytes_undivided"]
        assert each.told("model loaded")[0]["base_divided_among"] == 2
    summary, artifact = ended.words.summary, ended.words.artifact
    assert artifact is not None
    assert (summary.step, summary.world_size) == (6, 2)
    assert summary.test_loss == pytest.approx(alone.test_loss, rel=1e-5)
    found = load_file(run.folder(artifact) / "adapter_model.safetensors")
    wanted = load_file(one.folder(want) / "adapter_model.safetensors")
    assert_close(found, wanted)
    metrics = json.loads((run.folder(artifact) / "metrics.json").read_text())
    assert metrics["machine"]["baseModel"] == "divided among 2"
    assert "divided among 2" in (run.folder(artifact) / "report.html").read_text()
    assert not ended.told("held-out rows were not answered")
