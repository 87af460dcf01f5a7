"""An engine that is started: what it is given, how its end is named, and that nothing of it is left."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import ExitCode, Reason
from trimtab_trainer.errors import EngineFailed, Interrupted, OutOfMemory, SettingsInvalid, TrainerError
from trimtab_trainer.evaluate.engine import process as process_module
from trimtab_trainer.evaluate.engine.process import COMMAND, EngineSettings, installed_version, root_cause, running
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report

from tests.trainer.evaluate.engine import fake_vllm
from tests.trainer.evaluate.engine.conftest import FakeVllm

Fake = Callable[..., FakeVllm]


def settings(folder: Path, **changes: Any) -> EngineSettings:
    given: dict[str, Any] = {
        "base": folder / "base",
        "adapters": {},
        "ranks": {},
        "compute_type": "bfloat16",
        "longest": 300,
        "at_once": None,
        "seed": 17,
        "accelerated": True,
    }
    return EngineSettings(**{**given, **changes})


def start(folder: Path, log: io.StringIO | None = None, stop: Interruption | None = None, **changes: Any) -> None:
    """Start an engine and end it again."""
    report = Report(stream=log or io.StringIO())
    with running(settings(folder, **changes), folder / "engine", stop=stop or Interruption(), report=report):
        pass


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def options(arguments: list[str]) -> dict[str, str]:
    """Return each option with what follows it."""
    return {
        each: following for each, following in zip(arguments, [*arguments[1:], ""], strict=True) if each[:2] == "--"
    }


def test_it_is_given_what_is_asked_and_nothing_that_reaches_out(fake: Fake, tmp_path: Path) -> None:
    made, log = fake(), io.StringIO()
    start(tmp_path, log, seed=4)
    given = options(made.started["arguments"])
    assert made.started["arguments"][:2] == ["serve", str(tmp_path / "base")]
    assert given["--dtype"] == "bfloat16"
    assert given["--max-model-len"] == "300"
    assert given["--load-format"] == "safetensors"
    assert given["--generation-config"] == "vllm", "no sampling settings of the model's folder"
    assert given["--seed"] == "4"
    assert not {"--trust-remote-code", "--host", "--port", "--enable-lora", "--max-num-seqs", "--enforce-eager"} & set(
        given
    )
    told = made.started["environment"]
    assert told["HF_HUB_OFFLINE"] == told["TRANSFORMERS_OFFLINE"] == told["VLLM_NO_USAGE_STATS"] == "1"
    assert told["DO_NOT_TRACK"] == "1"
    assert told["VLLM_HOST_IP"] == "127.0.0.1"
    assert told["VLLM_CACHE_ROOT"].startswith(str(tmp_path)), "the root of the container is read-only"
    assert Path(given["--uds"]).parent.exists() is False, "the folder of the socket is gone with the engine"
    events = [json.loads(line)["message"] for line in log.getvalue().splitlines()]
    assert events == ["engine starting", "engine ready", "engine ended"]


def test_nobody_else_enters_the_folder_of_its_socket(fake: Fake, tmp_path: Path) -> None:
    made = fake()
    with running(settings(tmp_path), tmp_path / "engine", stop=Interruption(), report=Report(stream=io.StringIO())):
        path = Path(options(made.started["arguments"])["--uds"])
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert len(os.fsencode(path)) < 108


def test_adapters_are_given_with_a_rank_that_it_knows(fake: Fake, tmp_path: Path) -> None:
    made = fake()
    adapters = {"target": tmp_path / "a=b", "baseline": tmp_path / "c d"}
    start(tmp_path, adapters=adapters, ranks={"target": 24, "baseline": 8}, at_once=16)
    arguments = made.started["arguments"]
    given = options(arguments)
    assert given["--max-lora-rank"] == "32"
    assert given["--max-loras"] == "2"
    assert given["--max-num-seqs"] == "16"
    modules = [json.loads(each) for each in arguments[arguments.index("--lora-modules") + 1 :]]
    assert modules == [{"name": name, "path": str(path)} for name, path in adapters.items()]


def test_on_processors_it_compiles_nothing_and_takes_a_bounded_cache_unless_it_is_told_otherwise(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake()
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-3")
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    start(tmp_path, accelerated=False, longest=3)
    assert "--enforce-eager" in made.started["arguments"]
    assert options(made.started["arguments"])["--max-model-len"] == "16"
    told = made.started["environment"]
    assert (told["VLLM_CPU_KVCACHE_SPACE"], told["VLLM_CPU_OMP_THREADS_BIND"]) == ("1", "0-3")


def test_an_image_without_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMAND, str(tmp_path / "nothing"))
    with pytest.raises(SettingsInvalid, match=r"evaluator\.image of the chart or in spec\.template\.image") as caught:
        start(tmp_path)
    assert caught.value.reason is Reason.ENGINE_MISSING


ENDS: dict[str, tuple[type[TrainerError], Reason, str]] = {
    "unsupported": (
        SettingsInvalid,
        Reason.ENGINE_REFUSED,
        r"Model architectures \['OddForCausalLM'\] are not supported",
    ),
    "no room": (OutOfMemory, Reason.OUT_OF_MEMORY, r"OutOfMemoryError: CUDA out of memory"),
    "small cache": (OutOfMemory, Reason.OUT_OF_MEMORY, r"To serve at least one request .*maxNewTokens"),
    "is killed at once": (OutOfMemory, Reason.OUT_OF_MEMORY, r"raise the memory limit"),
    "broken": (EngineFailed, Reason.ENGINE_FAILED, r"status 1 \(FileNotFoundError: .*'kernels'\); see the log"),
}


@pytest.mark.parametrize("fault", ENDS)
def test_an_end_before_it_answers_has_the_name_of_its_cause(fake: Fake, tmp_path: Path, fault: str) -> None:
    fake(fault)
    kind, reason, words = ENDS[fault]
    log = io.StringIO()
    with pytest.raises(kind, match=words) as caught:
        start(tmp_path, log)
    assert caught.value.reason is reason
    assert len(caught.value.message) < 600
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [each["message"] for each in told] == ["engine starting", "engine ended early"]


def test_one_that_says_nothing_is_given_up(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("says nothing")
    monkeypatch.setattr(process_module, "SILENT_SECONDS", 1)
    with pytest.raises(EngineFailed, match="neither answered nor wrote anything for 1 s") as caught:
        start(tmp_path)
    assert caught.value.exit_code is ExitCode.BUG, "which the operator tries again"


def test_while_it_starts_it_is_told_how_long(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("says nothing")
    monkeypatch.setattr(process_module, "SILENT_SECONDS", 2)
    monkeypatch.setattr(process_module, "TOLD_SECONDS", 0)
    log = io.StringIO()
    with pytest.raises(EngineFailed):
        start(tmp_path, log)
    assert any(json.loads(line)["message"] == "engine is starting" for line in log.getvalue().splitlines())


def test_a_signal_ends_the_waiting_and_the_engine(fake: Fake, tmp_path: Path) -> None:
    fake("says nothing")
    log, stop = io.StringIO(), Interruption()

    def interrupt() -> None:
        while '"pid"' not in log.getvalue():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with stop.listening(), pytest.raises(Interrupted), stop.at_once():
        start(tmp_path, log, stop)
    (process,) = (json.loads(line)["pid"] for line in log.getvalue().splitlines() if "pid" in line)
    assert not alive(process)


def test_one_that_does_not_want_to_end_is_ended_with_its_children(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake("does not want to end")
    monkeypatch.setattr(process_module, "END_SECONDS", 0.5)
    start(tmp_path)
    # Nothing is waited for: what comes next needs their memory.
    assert not [each for each in json.loads(made.seen.read_text()) if alive(each)]


OWNER = """
import sys, time
from pathlib import Path
from trimtab_trainer.evaluate.engine.process import running
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from tests.trainer.evaluate.engine.test_process import settings

folder = Path(sys.argv[1])
with running(settings(folder), folder / "engine", stop=Interruption(), report=Report(stream=sys.stderr)):
    print("up", flush=True)
    time.sleep(600)
"""


def test_one_whose_owner_is_killed_ends_with_its_children(fake: Fake, tmp_path: Path) -> None:
    made = fake("does not want to end")
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        processes = json.loads(made.seen.read_text())
        assert all(alive(each) for each in processes)
        owner.kill()
    deadline = time.monotonic() + 120
    while any(alive(each) for each in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [each for each in processes if alive(each)]


def test_its_version_is_told_by_its_command(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    log = io.StringIO()
    assert installed_version(Report(stream=log)) == "0.0.0+fake"
    assert json.loads(log.getvalue())["version"] == "0.0.0+fake"
    monkeypatch.setenv(fake_vllm.VERSION, "usage: another program")
    with pytest.raises(EngineFailed, match=r"does not tell a version \(usage: another program\), status 0"):
        installed_version(Report(stream=log))


def test_a_command_that_cannot_be_loaded_is_told_with_its_words(fake: Fake, tmp_path: Path) -> None:
    fake("cannot be loaded")
    with pytest.raises(EngineFailed, match=r"\(ImportError: libcuda\.so\.1: .*\), status 1"):
        installed_version(Report(stream=io.StringIO()))
    (tmp_path / "vllm").write_text("#!/nowhere/python\n")
    with pytest.raises(EngineFailed, match="cannot be run"):
        installed_version(Report(stream=io.StringIO()))


def test_no_port_is_opened(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection by an address")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    start(tmp_path)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("INFO all is well", ""),
        ("ValueError: a\nRuntimeError: Engine core initialization failed. See root cause above.", "ValueError: a"),
        ("x.y.FirstError: one\nSecondError: two\x1b[0m", "SecondError: two␛[0m"),
        ("ValidationError: 2 validation errors for A\n  b\n  Value error, no c [type=d]", "ValidationError: no c"),
    ],
)
def test_the_cause_is_the_last_error_that_is_no_consequence(text: str, cause: str) -> None:
    assert root_cause(text) == cause
