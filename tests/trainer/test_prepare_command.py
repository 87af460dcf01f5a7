"""The command line: exit codes, last words, one JSON event a line, no torch, an end within moments of SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_trainer import prepare as prepare_module
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import Artifact, ExitCode, Prepared, Reason, Stage, TerminationMessage
from trimtab_trainer.contract.outcome import TERMINATION_MESSAGE_BYTES
from trimtab_trainer.errors import DataInvalid, Interrupted, OutOfMemory, SettingsInvalid, StorageFailed
from trimtab_trainer.report import Report

from tests.trainer.conftest import ObjectStorage, write_keys
from tests.trainer.tiny import tiny_rows, write_rows


@pytest.fixture
def document(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    write_rows(tmp_path / "data/a.jsonl", tiny_rows(20))
    return {
        "run": {"name": "guide", "namespace": "team", "uid": "1b4e28ba"},
        "baseModel": {"uri": tiny_model.as_uri()},
        "dataset": {"training": {"uri": (tmp_path / "data/a.jsonl").as_uri()}},
        "output": {"uri": (tmp_path / "out").as_uri()},
        "training": {"maxSequenceLength": 128},
    }


def command(folder: Path, document: Any, *more: str, stage: str = "prepare") -> list[str]:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(document))
    return [stage, "--config", str(file), "--termination-log", str(folder / "last"), *more]


def last_words(folder: Path) -> TerminationMessage:
    message = TerminationMessage.decode((folder / "last").read_text())
    assert message is not None
    return message


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_one_of_several_processes_is_refused_before_anything_is_written(
    stage: str, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun starts them: each would train the same and write checkpoints of the same names."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command(tmp_path, document, stage=stage)) == ExitCode.SETTINGS_INVALID
    message = last_words(tmp_path)
    assert message.reason is Reason.SETTINGS_INVALID
    assert message.message.startswith("WORLD_SIZE=2: this is one of several processes")
    assert not (tmp_path / "out").exists()


def test_one_process_that_was_started_as_such_goes_on(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(command(tmp_path, document)) == ExitCode.DONE


def test_a_pod_that_will_not_hold_the_run_is_the_first_warning(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document["dataset"]["audit"] = {"minimumShare": 0}
    told = {"memoryBytes": 256 << 20, "accelerators": 0, "of a later version": 1}
    monkeypatch.setenv("TRIMTAB_TRAIN_LIMITS", json.dumps(told))
    assert main(command(tmp_path, document)) == ExitCode.DONE
    first = last_words(tmp_path).warnings[0]
    assert first.startswith("training takes about 0.")
    assert first.endswith(
        "and the limit of the pod's memory is 0.2 GiB: raise template.resources.limits.memory, or lower "
        "training.maxSequenceLength"
    )
    for enough_or_unreadable in ('{"memoryBytes": 8000000000}', "{"):
        monkeypatch.setenv("TRIMTAB_TRAIN_LIMITS", enough_or_unreadable)
        assert main(command(tmp_path, document)) == ExitCode.DONE
        assert not [warning for warning in last_words(tmp_path).warnings if "memory" in warning]


def test_a_batch_that_its_accelerators_cannot_share_is_refused_before_they_are_asked_for(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document["training"] |= {"batchSize": 6, "microBatchSize": 2}
    monkeypatch.setenv("TRIMTAB_TRAIN_LIMITS", json.dumps({"accelerators": 8}))
    assert main(command(tmp_path, document)) == ExitCode.SETTINGS_INVALID
    assert "training.batchSize 6 is less than the 8 accelerators" in last_words(tmp_path).message
    monkeypatch.setenv("TRIMTAB_TRAIN_LIMITS", json.dumps({"accelerators": 4}))
    assert main(command(tmp_path, document)) == ExitCode.SETTINGS_INVALID
    assert "training.microBatchSize 2 on 4 accelerators" in last_words(tmp_path).message
    del document["training"]["microBatchSize"]
    assert main(command(tmp_path, document)) == ExitCode.DONE
    told = [each for each in last_words(tmp_path).warnings if "accelerators" in each]
    assert told[0].startswith("training.batchSize 6 cannot be divided among 4 accelerators")


def test_a_good_end_is_told_three_ways(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, document, "--attempt", "3", "--scratch", str(tmp_path / "scratch"))) == ExitCode.DONE
    message = last_words(tmp_path)
    assert (message.stage, message.reason, message.attempt) == (Stage.PREPARE, Reason.COMPLETED, 3)
    assert message.run_uid == "1b4e28ba"
    assert message.prepared is not None
    assert message.prepared.rows == 20
    assert message.summary.total_steps == message.prepared.total_steps == 3
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["message"] == "prepared"
    assert all(event["run"] == "team/guide" and event["attempt"] == 3 for event in events)


ENDS: dict[str, tuple[Exception, ExitCode, Reason]] = {
    "settings": (SettingsInvalid("x", Reason.BUCKET_NOT_FOUND), ExitCode.SETTINGS_INVALID, Reason.BUCKET_NOT_FOUND),
    "data": (DataInvalid("x", Reason.DATASET_EMPTY), ExitCode.DATA_INVALID, Reason.DATASET_EMPTY),
    "memory": (OutOfMemory("x"), ExitCode.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY),
    "python's memory": (MemoryError(), ExitCode.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY),
    "the accelerator's memory": (
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
        ExitCode.OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
    ),
    "the processor's memory": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        ExitCode.OUT_OF_MEMORY,
        Reason.OUT_OF_MEMORY,
    ),
    "storage": (StorageFailed("x"), ExitCode.STORAGE_FAILED, Reason.STORAGE_FAILED),
    "a full disk": (OSError(28, "No space left"), ExitCode.SETTINGS_INVALID, Reason.SETTINGS_INVALID),
    "a signal": (Interrupted("x"), ExitCode.INTERRUPTED, Reason.INTERRUPTED),
    "a bug": (ZeroDivisionError("x"), ExitCode.BUG, Reason.BUG),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_end_has_its_exit_code_and_reason(
    document: dict[str, Any],
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error, code, reason = ENDS[name]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(prepare_module, "prepare", fail)
    assert main(command(tmp_path, document)) == code
    assert last_words(tmp_path).reason is reason
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["level"] == "error"
    assert ("trace" in event) == (reason is Reason.BUG)


WRONG: dict[str, tuple[Any, str]] = {
    "a path": (
        {"baseModel": {"uri": "./models/tiny"}},
        "baseModel.uri: './models/tiny' is none of s3://bucket/prefix, file:///absolute/path and hf://org/name@revision",
    ),
    "a short path": (
        {"output": {"uri": "out"}},
        "output.uri: 'out' is none of s3://bucket/prefix and file:///absolute/pa",
    ),
    "a short path of a base model": (
        {"baseModel": {"uri": "tiny"}},
        "baseModel.uri: 'tiny' is none of s3://bucket/prefix, file:///absolute/path and hf://org/name@revision",
    ),
    "a bucket in capitals": (
        {"baseModel": {"uri": "s3://My_Bucket/x"}},
        "baseModel.uri: 's3://My_Bucket/x' names no bucket: its name has 3 to 63 small letters, digits, points and hy",
    ),
    "a link that was signed": (
        {"output": {"uri": "https://bucket.test/a?X-Amz-Signature=secret"}},
        "output.uri: 'https://bucket.test/a' is none of",
    ),
    "a password": ({"output": {"uri": "https://me:p@ss@host.test/a"}}, "output.uri: 'https://host.test/a' is none of"),
    "a data set of a hub without its revision": (
        {"dataset": {"training": {"uri": "hf://datasets/org/name"}}},
        "file:///absolute/path and hf://datasets/org/name@revision",
    ),
    "a field that does not exist": ({"training": {"epoch": 3}}, "training.epoch: Extra inputs"),
    "a field out of bounds": ({"training": {"batchSize": 0}}, "training.batchSize: Input should be greater"),
    "two ways at once": ({"training": {"epochs": 1, "maxSteps": 2}}, "training: set epochs or maxSteps, not both"),
    "early stopping without validation": ({"training": {"earlyStopping": {}}}, "needs dataset.validation"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_names_its_fields(document: dict[str, Any], tmp_path: Path, name: str) -> None:
    changes, words = WRONG[name]
    assert main(command(tmp_path, {**document, **changes})) == ExitCode.SETTINGS_INVALID
    assert words in last_words(tmp_path).message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "run.yaml is empty; give the sections baseModel, dataset and output"),
        ("- a", "run.yaml is a list; give the sections baseModel, dataset and output"),
        ("kind: FineTuneJob\nspec: {}", "run.yaml is a FineTuneJob; give the sections of its spec alone"),
    ],
)
def test_a_file_that_is_no_configuration_says_what_one_is(tmp_path: Path, text: str, words: str) -> None:
    arguments = command(tmp_path, {})
    (tmp_path / "run.yaml").write_text(text)
    assert main(arguments) == ExitCode.SETTINGS_INVALID
    assert words in last_words(tmp_path).message


def test_a_configuration_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    arguments = command(tmp_path, {})
    (tmp_path / "run.yaml").write_text("a: [")
    assert main(arguments) == ExitCode.SETTINGS_INVALID
    assert "neither YAML nor JSON" in last_words(tmp_path).message
    (tmp_path / "run.yaml").unlink()
    assert main(arguments) == ExitCode.SETTINGS_INVALID
    assert "run.yaml: No such file" in last_words(tmp_path).message


def test_a_taken_progress_port_is_no_failure(document: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(command(tmp_path, document, "--progress-port", port)) == ExitCode.DONE


def test_a_termination_log_that_cannot_be_written_is_no_failure(document: dict[str, Any], tmp_path: Path) -> None:
    assert main([*command(tmp_path, document), "--termination-log", str(tmp_path)]) == ExitCode.DONE


def test_every_line_is_json_whatever_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    Report({"run": "x"}).warn("odd", loss=float("nan"), rate=float("inf"), file=Path("a"), text="ü\n")
    line = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (line["level"], line["loss"], line["rate"], line["file"], line["text"]) == (
        "warning",
        "nan",
        "inf",
        "a",
        "ü\n",
    )


def test_no_secret_is_told(
    document: dict[str, Any], tmp_path: Path, object_storage: ObjectStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_keys(tmp_path / "keys", object_storage.endpoint, "canary-id", "canary-secret")
    document["output"] = {"uri": "s3://trainer/x", "credentials": {"directory": str(folder), "secretName": "the-keys"}}
    assert main(command(tmp_path, document)) == ExitCode.SETTINGS_INVALID
    assert last_words(tmp_path).reason is Reason.ACCESS_DENIED
    captured = capsys.readouterr()
    assert "canary" not in captured.out + captured.err + (tmp_path / "last").read_text()


def test_prepare_imports_no_torch_and_the_contract_next_to_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "import trimtab_trainer.contract\n"
        "roots = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "ours = {'trimtab_trainer', 'pydantic', 'pydantic_core', 'typing_extensions', 'annotated_types',\n"
        "        'typing_inspection', '__main__'}\n"
        "print(sorted(root for root in roots - ours if not root.startswith('_')))\n"
        "from trimtab_trainer.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, [name for name in ('torch', 'peft', 'bitsandbytes') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command(tmp_path, document)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "[]"
    assert lines[-1] == "0 []"
    assert done.stderr == ""


def test_sigterm_ends_prepare_within_moments(document: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as silent:  # a storage that accepts connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        folder = write_keys(tmp_path / "keys", f"http://127.0.0.1:{silent.getsockname()[1]}", "id", "secret")
        document["output"] = {"uri": "s3://trainer/x", "credentials": {"directory": str(folder)}}
        process = subprocess.Popen([sys.executable, "-m", "trimtab_trainer", *command(tmp_path, document)])
        silent.accept()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == ExitCode.INTERRUPTED
    assert last_words(tmp_path).reason is Reason.INTERRUPTED


def test_a_signal_in_the_middle_of_rust_or_python_ends_prepare(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallow(*_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:  # as libraries do that retry
            time.sleep(60)

    monkeypatch.setattr(prepare_module, "prepare", swallow)
    start = time.monotonic()
    assert main(command(tmp_path, document)) == ExitCode.INTERRUPTED
    assert time.monotonic() - start < 50
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


DIGEST = "sha256:" + "0" * 64


def test_the_last_words_always_fit() -> None:
    prepared = Prepared(
        base_model_digest=DIGEST, rows_digest=DIGEST, view_digest=DIGEST, run_digest=DIGEST, rows=1, tokens=1
    )
    artifact = Artifact(uri="s3://x", digest=DIGEST, rank=1, target_modules=["m" * 200] * 60, base_model_digest=DIGEST)
    message = TerminationMessage(
        stage=Stage.TRAIN, run_uid="x", attempt=0, reason=Reason.COMPLETED, message="é" * 9000, prepared=prepared
    )
    for each in (message, message.model_copy(update={"artifact": artifact})):
        text = each.encode()
        assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
        decoded = TerminationMessage.decode(text)
        assert decoded is not None
        assert decoded.prepared == prepared
