"""A search without a cluster: the same trials, nothing trained twice, whoever is killed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.__main__ import main, named
from trimtab_trainer.contract import ExitCode, Reason, RunConfig
from trimtab_trainer.contract.sweeps.settings import trial_id
from trimtab_trainer.errors import Interrupted, SettingsInvalid, StorageFailed, TrainerError
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.sweep import alone, configuration
from trimtab_trainer.sweep.configuration import read_search
from trimtab_trainer.sweep.running import Ran

from tests.trainer.markup import Page
from tests.trainer.tiny import make_tiny_model, tiny_rows, write_rows

from .searches import RATES, Played, write

SECONDS = 600


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(alone, "ran", made)
    return made


def search(file: Path) -> int:
    return alone.run(file, None, Interruption())


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (file.with_suffix(".sweep") / "trials.jsonl").read_text().splitlines()]


def test_trials_run_one_after_the_other_and_the_best_is_told(
    tmp_path: Path, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, parallelTrials=4)
    assert search(file) == ExitCode.DONE
    assert [config.training.learning_rate for config in played.configs] == RATES[:3]
    told = lines(file)
    assert [(each["id"], each["value"]) for each in told] == [
        (trial_id({"training.learningRate": rate}), 1 + rate) for rate in RATES[:3]
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "ignored: parallelTrials is of a cluster alone: trials run one after another"
    assert "template.spec.template of a cluster alone" in out[1]
    assert "secretName of a cluster alone" in out[2]
    assert out[4].split()[:4] == [told[0]["id"], "1/3", "1", "*"]
    assert out[-3] == "maxTrials = 3 of the 4 points of the grid were begun"
    assert out[-2] == f"3 trials; the best is {told[0]['id']} with validationLoss 1: training.learningRate = 0.0001"
    assert "The search has ended" in Page.of((tmp_path / "sweep.sweep" / "sweep.html").read_text()).text


def test_what_has_a_result_is_not_run_again_and_more_may_be_asked_for(tmp_path: Path, played: Played) -> None:
    search(write(tmp_path, maxTrials=2))
    search(write(tmp_path, maxTrials=2))
    assert len(played.configs) == 2
    search(write(tmp_path, maxTrials=4))
    assert [config.training.learning_rate for config in played.configs] == RATES


def test_a_search_that_was_stopped_goes_on_with_the_trial_that_it_was_at(tmp_path: Path, played: Played) -> None:
    def stopped(config: RunConfig) -> Ran:
        raise Interrupted("told to stop")

    undisturbed, played.result = played.result, stopped
    with pytest.raises(Interrupted):
        search(write(tmp_path))
    played.result = undisturbed
    search(write(tmp_path))
    assert [config.training.learning_rate for config in played.configs] == [RATES[0], *RATES[:3]]
    assert [each["state"] for each in lines(tmp_path / "sweep.yaml")] == ["Complete"] * 3


def test_tpe_chooses_what_it_chooses_in_a_cluster(tmp_path: Path, played: Played) -> None:
    span = {"minimum": 1e-5, "maximum": 1e-2, "scale": "Log"}
    parameters = [{"name": "training.learningRate", "range": span}, {"name": "lora.rank", "values": [4, 8]}]
    search(write(tmp_path, parameters=parameters, algorithm={"type": "TPE", "seed": 7}, maxTrials=8))
    first = [(config.training.learning_rate, config.lora.rank) for config in played.configs]
    assert len(set(first)) == 8
    other = tmp_path / "other"
    other.mkdir()
    search(write(other, parameters=parameters, algorithm={"type": "TPE", "seed": 7}, maxTrials=8))
    assert [(config.training.learning_rate, config.lora.rank) for config in played.configs[8:]] == first


def test_a_point_whose_digits_another_has_is_no_trial(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "trial_id", lambda parameters: f"{RATES.index(*parameters.values()) // 2:08x}")
    search(write(tmp_path, maxTrials=4))
    assert [config.training.learning_rate for config in played.configs] == [RATES[0], RATES[2]]


def test_a_trial_of_folds_is_its_folds(tmp_path: Path, played: Played) -> None:
    values = iter([1.0, 2.0, 3.0])
    played.result = lambda config: Ran(10.0, value=next(values))
    dataset = {"training": {"uri": f"file://{tmp_path}/train.jsonl"}}
    file = write(tmp_path, folds=3, maxTrials=1, template={"dataset": dataset})
    search(file)
    folds = [config.dataset.validation for config in played.configs]
    assert [(each.folds, each.fold) for each in folds if each is not None] == [(3, 0), (3, 1), (3, 2)]
    (trial,) = lines(file)
    assert (trial["value"], trial["standardError"]) == (2.0, pytest.approx(1 / 3**0.5, 1e-5))
    assert trial["acceleratorSeconds"] == 30


def test_a_point_that_cannot_be_is_a_bad_one_and_the_search_goes_on(tmp_path: Path, played: Played) -> None:
    def memory(config: RunConfig) -> Ran:
        if config.training.learning_rate == RATES[0]:
            return Ran(5.0, reason=Reason.OUT_OF_MEMORY, message="too large")
        return Ran(5.0, value=1.0)

    played.result = memory
    file = write(tmp_path)
    search(file)
    assert [each.get("reason") for each in lines(file)] == ["OutOfMemory", None, None]
    other = tmp_path / "other"
    other.mkdir()
    file = write(other, parameters=[{"name": "training.epochs", "values": [1, 2]}], maxTrials=2)
    before = len(played.configs)
    with pytest.raises(SettingsInvalid, match=r"no trial has a value \(SettingsInvalid\)"):
        search(file)
    assert len(played.configs) == before, "epochs and maxSteps exclude each other: nothing was begun"


@pytest.mark.parametrize("folds", [None, 2])
def test_a_value_of_other_rows_than_those_of_the_first_one_is_none(
    tmp_path: Path, played: Played, folds: int | None
) -> None:
    """As in a cluster; a better value of the wrong rows would win else."""
    of = {RATES[0]: "sha256:a", RATES[1]: "sha256:b", RATES[2]: "sha256:a"}
    played.result = lambda config: Ran(5.0, value=1.0, rows=of[config.training.learning_rate])
    dataset = {"training": {"uri": f"file://{tmp_path}/train.jsonl"}}
    spec: dict[str, Any] = {"folds": folds, "template": {"dataset": dataset}} if folds else {}
    file = write(tmp_path, **spec)
    search(file)
    assert [(each.get("reason"), each.get("value")) for each in lines(file)] == [
        (None, 1.0),
        ("ValidationRowsDiffer", None),
        (None, 1.0),
    ]
    before = len(played.configs)
    file.write_text(file.read_text().replace("maxTrials: 3", "maxTrials: 4"))
    of[RATES[3]] = "sha256:b"
    search(file)
    assert len(played.configs) == before + (folds or 1)
    assert lines(file)[3]["reason"] == "ValidationRowsDiffer", "known of the first one after a new start too"


def test_a_fault_that_all_trials_share_ends_the_search_at_once_and_one_that_passes_stops_it(
    tmp_path: Path, played: Played
) -> None:
    played.result = lambda config: Ran(1.0, reason=Reason.DATASET_MALFORMED, message="train.jsonl, line 3")
    with pytest.raises(TrainerError, match="line 3"):
        search(write(tmp_path))
    assert len(played.configs) == 1
    played.result = lambda config: Ran(1.0, reason=Reason.STORAGE_FAILED, message="no answer")
    with pytest.raises(StorageFailed, match="run the same command again"):
        search(write(tmp_path))
    played.result = lambda config: Ran(1.0, value=1.0)
    search(write(tmp_path))
    assert len(lines(tmp_path / "sweep.yaml")) == 3


def test_a_machine_that_is_full_makes_no_trial_bad(
    tmp_path: Path, played: Played, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the disk that the trainer works on, nor the one that the search keeps its folder on."""
    file = write(tmp_path)
    command = ["sweep", "--config", str(file)]
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")
    words = named(full)
    assert words is not None
    played.result = lambda config: Ran(1.0, reason=words.reason, message=words.message)
    assert main(command) == ExitCode.STORAGE_FAILED
    assert "scratch space is full (/tmp/x); free some and run the same command again" in capsys.readouterr().err

    def write_nothing(*_: object) -> None:
        raise full

    played.result = lambda config: Ran(1.0, value=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", write_nothing)
        assert main(command) == ExitCode.STORAGE_FAILED
    assert "/tmp/x: No space left on device; mend that and run the same command again" in capsys.readouterr().err
    assert main(command) == ExitCode.DONE
    assert [each["state"] for each in lines(file)] == ["Complete"] * 3


def test_patience_and_budget_end_it_as_in_a_cluster(
    tmp_path: Path, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    search(write(tmp_path, maxTrials=4, stopAfterTrialsWithoutImprovement=2))
    assert "2 trials in a row were no better" in capsys.readouterr().out
    assert len(played.configs) == 3
    other = tmp_path / "other"
    other.mkdir()
    search(write(other, maxTrials=4, budget={"acceleratorSeconds": 25}))
    assert "another trial would exceed budget.acceleratorSeconds = 25: 20 are spent" in capsys.readouterr().out


def test_a_folder_of_another_search_is_refused(tmp_path: Path, played: Played) -> None:
    search(write(tmp_path))
    with pytest.raises(SettingsInvalid, match="of another search"):
        search(write(tmp_path, parameters=[{"name": "lora.rank", "values": [4, 8]}]))
    (tmp_path / "sweep.sweep" / "search.json").write_text("{")
    with pytest.raises(SettingsInvalid, match=r"search\.json cannot be read"):
        search(write(tmp_path))


def test_two_processes_do_not_search_in_one_folder(tmp_path: Path, played: Played) -> None:
    file = write(tmp_path, maxTrials=1)
    told: list[str] = []

    def again(config: RunConfig) -> Ran:
        with pytest.raises(SettingsInvalid) as refused:
            search(file)
        told.append(refused.value.message)
        return Ran(10.0, value=1.0)

    played.result = again
    search(file)
    (message,) = told
    assert message.startswith(f"another process searches in {tmp_path / 'sweep.sweep'}; wait for its end")
    assert [each["state"] for each in lines(file)] == ["Complete"]
    search(write(tmp_path, maxTrials=1))
    assert len(played.configs) == 1, "it is free again, and nothing is trained twice"


def fail_to_lock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*of: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)


def test_a_folder_that_cannot_be_locked_is_refused(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(SettingsInvalid, match=r"cannot be locked \(Input/output error\).*--folder"):
        search(write(tmp_path, maxTrials=1))
    assert not played.configs


def test_a_file_system_without_locks_can_be_searched_in(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_lock(monkeypatch, errno.ENOLCK)
    search(write(tmp_path, maxTrials=1))
    assert len(played.configs) == 1


FILES: dict[str, tuple[str, str]] = {
    "no file": ("", "is no object"),
    "no YAML": ("a: [", "neither YAML nor JSON"),
    "another kind": ("kind: FineTuneJob\nspec: {}", "is a FineTuneJob"),
    "no spec": ("kind: FineTuneSweep\nspec: 3", "spec is no object"),
    "a field that is none": ("maxTrial: 3", "is maxTrials meant?"),
    "a date": ("parameters: [{name: lora.rank, values: [2026-01-01]}]", "put it in quotes"),
    "without a template": ("parameters: [{name: lora.rank, values: [4]}]", "template"),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_sweep_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        read_search(file)
    assert words in caught.value.message
    assert str(file) in caught.value.message


SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "no such path": ({"parameters": [{"name": "lora.rang", "values": [1]}]}, "is lora.rank meant?"),
    "nothing of the result": ({"parameters": [{"name": "output.uri", "values": ["s3://a/b"]}]}, "does not define"),
    "beyond the field": (
        {"parameters": [{"name": "lora.rank", "range": {"minimum": 0, "maximum": 8}}]},
        "must be at least 1",
    ),
    "two base models": (
        {"parameters": [{"name": "baseModel.uri", "values": ["s3://models/b", "s3://models/c"]}]},
        "compared",
    ),
    "an evaluation": ({"objective": {"evaluation": {"metric": "a/b"}}}, "judges its trials by validationLoss"),
    "folds and a fraction": ({"folds": 3}, "remove its fraction or uri"),
    "nothing held out": (
        {"template": {"dataset": {"training": {"uri": "s3://data/b"}}}},
        "needs template.spec.dataset.validation, or folds",
    ),
    "another chat template": (
        {"parameters": [{"name": "dataset.chatTemplate", "values": ["s3://data/a", "s3://data/b"]}]},
        "another chat template has other tokens",
    ),
    "another split": ({"parameters": [{"name": "dataset.splitSeed", "values": [1, 2]}]}, "decides which rows"),
    "another data mix of which rows are held out": (
        {"parameters": [{"name": "dataset.training", "values": [{"uri": "s3://data/b"}, {"uri": "s3://data/c"}]}]},
        "dataset.training decides which rows",
    ),
    "another part that counts": (
        {"parameters": [{"name": "training", "values": [{"lossOn": "AllTokens"}, {"maxSteps": 3}]}]},
        "training.lossOn decides which rows",
    ),
    "a loss that is another quantity for each value": (
        {
            "template": {"training": {"method": "DPO"}},
            "parameters": [{"name": "training.preference.beta", "values": [0.1, 0.3]}],
        },
        "training.preference decides what the validation loss is",
    ),
    "a number in quotes": ({"parameters": [{"name": "lora.rank", "values": ["8", 16]}]}, '"8" is refused'),
    "a value that is none": ({"parameters": [{"name": "lora.rank", "values": [8, "many"]}]}, '"many" is refused'),
    "a template with a value that is none": ({"template": {"training": {"maxSteps": -3}}}, "training.maxSteps: Input"),
    "a section that is none": ({"template": {"trainings": {"maxSteps": 3}}}, "is training meant?"),
    "an objective with another field": ({"objective": {"directoin": "Maximize"}}, "no field directoin"),
    "nothing to train": ({"template": {"baseModel": {}}}, "template.spec.baseModel.uri: Field required"),
}


@pytest.mark.parametrize(("spec", "words"), SPECS.values(), ids=SPECS)
def test_a_search_that_cannot_be_is_refused_by_name_before_anything_is_begun(
    tmp_path: Path, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_search(write(tmp_path, **spec))
    assert words in caught.value.message


def test_a_bare_spec_is_understood_too(tmp_path: Path) -> None:
    whole = read_search(write(tmp_path))
    bare = tmp_path / "bare.json"
    body = {"template": {"spec": dict(whole.template)}, "algorithm": {"type": "Grid"}}
    bare.write_text(json.dumps({**body, "parameters": [{"name": "training.learningRate", "values": RATES}]}))
    assert read_search(bare).name == "bare"
    assert read_search(bare).digest == whole.digest


def start(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trimtab_trainer", "sweep", "--config", str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait(until: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_killed_in_the_middle_it_goes_on_and_trains_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real runs of a tiny model, each in its process; the search is killed while the second one trains."""
    make_tiny_model(tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", tiny_rows(40))
    file = write(tmp_path, maxTrials=2, parameters=[{"name": "training.learningRate", "values": [1e-2, 1e-6]}])
    folders = [tmp_path / "sweep.sweep" / "trials" / trial_id({"training.learningRate": rate}) for rate in (1e-2, 1e-6)]
    with start(file) as process:

        def trains() -> bool:
            log = folders[1] / "run.log"
            return (folders[0] / "result.json").exists() and log.exists() and "step" in log.read_text()

        wait(trains, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(lines(file)) == 1
    with start(file) as process:
        output = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == ExitCode.DONE, output
    assert [(folder / "run.attempts").read_text() for folder in folders] == ["1", "2"]
    told = lines(file)
    assert [each["state"] for each in told] == ["Complete", "Complete"]
    assert told[0]["value"] < told[1]["value"], "the other one learns nothing in four steps"
    assert told[0]["curve"]["validationSteps"] == [2, 4]
    assert told[0]["rowsDigest"] == told[1]["rowsDigest"]
    assert told[0]["rowsDigest"].startswith("sha256:")
    assert f"the best is {told[0]['id']}" in output
    with start(file) as process:
        output = process.communicate(timeout=SECONDS)[0]
    assert [(folder / "run.attempts").read_text() for folder in folders] == ["1", "2"], "all is known"
    capsys.readouterr()
    assert main(["sweep-report", str(tmp_path / "output"), "--output", str(tmp_path / "page")]) == 0
    said = capsys.readouterr().out
    assert "2 trials; the best is" in said
    assert "training.learningRate = 0.01" in said
    page = Page.of((tmp_path / "page" / "sweep.html").read_text()).text
    assert "2 trials over 1 parameter, judged by" in page
