"""What a run takes: by its status, and by the trainer, which is run as the program that it is."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from trimtab import Client, Invalid
from trimtab.costs import Cost, cost_of
from trimtab.estimating import configuration, together
from trimtab.kinds import kind_named
from trimtab.objects import parse
from trimtab_trainer.contract import RunConfig

from tests.unit.cli.cluster import FakeCluster, ago, finetunejob
from tests.unit.cli.conftest import Run

MODEL = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.fixture
def model_config(tmp_path: Path) -> Path:
    """config.json of an 8B model."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(MODEL))
    return file


@pytest.fixture
def manifests(tmp_path: Path, run: Run) -> Path:
    """What `new` writes: a FineTuneJob among others."""
    file = tmp_path / "demo.yaml"
    flags = ("--base-model", "s3://models/base", "--data", "s3://rows/", "--output", "s3://out", "-f", str(file))
    assert run("new", "demo", *flags).code == 0
    return file


def test_a_file_is_estimated_without_a_cluster(
    manifests: Path, model_config: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    chosen = ("--model-config", str(model_config), "--accelerator", "H100-80GB", "--accelerator", "L4")
    told = run("estimate", str(manifests), *chosen, "--tokens", "12000000", "--price", "2.5")
    assert (told.code, told.err) == (0, "")
    about, _, head, first, second = told.out.splitlines()
    assert about == "8.03 billion weights; sizes in GiB; twice: activations are computed twice"
    assert head.split() == ["ACCELERATOR", "FITS", "PEAK", "OF", "MICRO-BATCH", "TOKENS/S", "TIME", "COST"]
    assert first.split()[:2] == ["H100-80GB", "yes"]
    assert second.split()[0] == "L4"


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({}, 1),
        ({"nodes": 2}, 2),
        ({"template": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}, 4),
        ({"nodes": 2, "template": {"resources": {"requests": {"nvidia.com/gpu": "8"}}}}, 16),
        ({"nodes": 2, "template": {"resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "4"}}}}, 2),
        ({"nodes": "two", "template": {"resources": {"limits": {"nvidia.com/gpu": "1k", "amd.com/gpu": 2}}}}, 2),
    ],
)
def test_gpus_of_all_pods_train_together(spec: dict[str, object], want: int) -> None:
    assert together(spec) == want


def test_a_run_of_several_is_estimated_as_such_and_all_are_paid_for(
    manifests: Path, model_config: Path, run: Run, tmp_path: Path
) -> None:
    bodies = list(yaml.safe_load_all(manifests.read_text()))
    spec = next(each["spec"] for each in bodies if each["kind"] == "FineTuneJob")
    spec |= {"nodes": 2, "template": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}
    (tmp_path / "several.yaml").write_text(yaml.safe_dump_all(bodies))
    chosen = (
        "--model-config",
        str(model_config),
        "--accelerator",
        "H100-80GB",
        "--tokens",
        "12000000",
        "--price",
        "36",
    )
    several, one = (run("estimate", str(file), *chosen).out for file in (tmp_path / "several.yaml", manifests))
    assert "8 accelerators train together, sizes are of each" in several
    assert "train together" not in one
    (found,) = Client.estimate_file(tmp_path / "several.yaml", model_config=model_config, tokens=12_000_000).devices[
        -1:
    ]
    assert found.accelerators == 8
    assert found.seconds is not None
    assert found.accelerator_seconds == 8 * found.seconds
    assert "divided" not in several
    large = tmp_path / "large.json"
    large.write_text(json.dumps(MODEL | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}))
    of_large = ("--model-config", str(large), "--accelerator", "L40S")
    divided = run("estimate", str(tmp_path / "several.yaml"), *of_large).out.splitlines()
    assert divided[0].endswith("; divided: each holds its part of the base model")
    assert divided[-1].split()[:3] == ["L40S", "yes,", "divided"]
    assert float(several.split()[-1].replace(",", "")) == pytest.approx(
        float(one.split()[-1].replace(",", "")), rel=0.2
    )


def test_it_is_the_trainers_own_estimate(manifests: Path, model_config: Path, tmp_path: Path) -> None:
    job = next(each for each in yaml.safe_load_all(manifests.read_text()) if each["kind"] == "FineTuneJob")
    (tmp_path / "run.json").write_text(json.dumps(configuration(job["spec"])))
    trainer = str(Path(sys.executable).parent / "trimtab-trainer")
    command = [trainer, "estimate", "--config", str(tmp_path / "run.json"), "--model-config", str(model_config)]
    done = subprocess.run([*command, "--json", "--tokens", "1000"], capture_output=True, check=True, timeout=120)
    theirs = json.loads(done.stdout)["estimates"]
    ours = Client.estimate_file(manifests, model_config=model_config, tokens=1000).devices
    assert [(each.accelerator, each.peak, each.seconds) for each in ours] == [
        (each["accelerator"], each["peakBytes"], each["seconds"]) for each in theirs
    ]
    assert len(ours) > 3


def test_the_trainer_takes_every_part_of_a_spec() -> None:
    """What is not secret goes to it, and its model refuses what it does not know."""
    spec = yaml.safe_load((Path(__file__).parents[3] / "deploy/samples/finetunejob.yaml").read_text())["spec"]
    made = RunConfig.model_validate(configuration(spec))
    assert made.base_model.uri == spec["baseModel"]["uri"]
    assert made.dataset.training.uri == spec["dataset"]["training"]["uri"]


def test_a_file_without_a_job_and_a_trainer_that_is_not_there(
    manifests: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none.yaml").write_text("kind: Evaluation\n")
    assert run("estimate", str(tmp_path / "none.yaml")).err == (
        f"error: {tmp_path / 'none.yaml'} has 0 FineTuneJobs: give a file with one\n"
    )
    monkeypatch.setattr("trimtab.estimating.TRAINER", "no-such-trainer")
    told = run("estimate", str(manifests))
    assert told.code == 1
    assert "no-such-trainer is not installed" in told.err
    assert "uv tool install" in told.err


def test_what_the_trainer_refuses_is_told_in_its_words(manifests: Path, model_config: Path, run: Run) -> None:
    told = run("estimate", str(manifests), "--model-config", str(model_config), "--accelerator", "Abacus")
    assert told.code == 1
    assert "Abacus is not known" in told.err
    assert told.err.count("\n") == 1


RUNNING = finetunejob(
    "demo",
    conditions=[{"type": "Succeeded", "status": "Unknown", "reason": "Training"}],
    progress={"step": 100, "totalSteps": 200, "etaSeconds": 1800},
    activeSeconds=700,
    acceleratorSeconds=1200,
    lostAcceleratorSeconds=600,
    dataset={"tokens": 1_000_000},
    attempts=[{"number": 2, "stage": "train", "jobName": "demo-train-2", "accelerators": 2, "startTime": ago(hours=1)}],
)


def test_a_status_tells_what_was_taken_and_what_will_be() -> None:
    body = {**RUNNING, "metadata": {"name": "demo"}}
    began = body["status"]["attempts"][0]["startTime"]
    now = datetime.fromisoformat(began).replace(tzinfo=UTC).timestamp() + 1000
    cost = cost_of(parse(kind_named("ftj"), body), datetime.fromtimestamp(now, UTC))
    assert cost == Cost(seconds=1700, remaining=1800, accelerators=2, accelerator_seconds=3200, lost=600)
    assert cost.total == 3200 + 2 * 1800


def test_the_command_tells_it_in_words(empty: FakeCluster, run: Run) -> None:
    empty.put(RUNNING)
    lines = run("estimate", "demo", "--price", "2").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["So far", "Lost", "To come", "At the end"]
    assert lines[1] == "Lost        0.17 accelerator hours, 0.33 at 2 an hour: work that was done again"
    assert lines[2] == "To come     30m on 2 accelerators"
    alone = {**RUNNING["status"]["attempts"][0], "accelerators": 1}
    empty.put({**RUNNING, "status": {**RUNNING["status"], "attempts": [alone]}})
    assert "To come     30m on 1 accelerator\n" in run("estimate", "demo").out
    empty.put(RUNNING)
    told = json.loads(run("estimate", "demo", "-o", "json").out)
    assert told["cost"]["lost"] == 600


def test_a_run_that_has_not_begun_says_so(empty: FakeCluster, run: Run) -> None:
    empty.put(finetunejob("demo"))
    assert "To come  not known before the first steps" in run("estimate", "demo").out


def test_the_tokens_that_were_counted_are_those_of_the_estimate(empty: FakeCluster, model_config: Path) -> None:
    empty.put(RUNNING)
    with Client() as client:
        counted = client.estimate("demo", model_config=model_config, accelerators=["L4"])
        given = client.estimate("demo", model_config=model_config, accelerators=["L4"], tokens=2_000_000)
        assert counted.devices[0].seconds is not None
        assert given.devices[0].seconds == pytest.approx(2 * counted.devices[0].seconds, rel=0.01)
        assert "ACCELERATOR" in counted._repr_html_()
        with pytest.raises(Invalid):
            client.estimate("evaluation/demo")
