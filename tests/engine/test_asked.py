"""The vLLM that the evaluate stage starts, the real one: its answers beside our own loop's, and what is left of it.

It needs no cluster: vLLM's command is named in TRIMTAB_VLLM, and computes in float32 on processors.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from trimtab_trainer.command.ask import load_tokenizer
from trimtab_trainer.contract import Reason
from trimtab_trainer.errors import OutOfMemory, SettingsInvalid
from trimtab_trainer.evaluate.asking.generation import Answer, Decoding, Prompt, end_tokens, generate
from trimtab_trainer.evaluate.engine.client import EngineAnswers
from trimtab_trainer.evaluate.engine.process import EngineSettings, RunningEngine, running
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report
from trimtab_trainer.training.network.adapter import Adapted

from deploy.samples.convert_base_model import convert, packaged_gguf
from tests.trainer.train.runs import adapted, run_config, shake

SAME = 0.9
"""Share of greedy answers that are the same text: what is left is rounding, between tokens that are as good as equally
likely. docs/evaluation.md says so."""
QUESTIONS = [
    f"{opening} {thing}?"
    for thing in ("a river", "the moon", "bread", "a library")
    for opening in ("What is", "Tell me in one sentence about", "Where can I find", "Name three parts of")
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "base"
    convert(packaged_gguf(), folder)
    return folder


@pytest.fixture(scope="module")
def model(base: Path) -> Adapted:
    """SmolLM2 with an adapter that changes every answer, and still speaks."""
    model = adapted(base, run_config(base.parent, quantization={"type": "None"}))
    shake(model, 0.02)
    model.peft.eval()
    return model


@pytest.fixture(scope="module")
def settings(base: Path, model: Adapted) -> EngineSettings:
    folder = base.parent / "adapter"
    model.peft.save_pretrained(str(folder))
    return EngineSettings(
        base=base,
        adapters={"target": folder},
        ranks={"target": 4},
        compute_type="float32",
        longest=160,
        at_once=16,
        seed=17,
        accelerated=False,
    )


@pytest.fixture(scope="module")
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def engine(settings: EngineSettings, log: io.StringIO) -> Iterator[RunningEngine]:
    with running(settings, settings.base.parent / "engine", stop=Interruption(), report=Report(stream=log)) as engine:
        yield engine


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[Prompt]:
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    tokens = [tokenizer.apply_chat_template(each, add_generation_prompt=True, return_dict=False) for each in asked]
    return [Prompt(number, tuple(each)) for number, each in enumerate(tokens)]


def ours(model: Adapted, tokenizer: Any, prompts: list[Prompt], decoding: Decoding, base: Path) -> list[Answer]:
    ends = end_tokens(tokenizer, base)
    return generate(model, tokenizer, prompts, decoding, ends, stop=Interruption(), report=Report(stream=io.StringIO()))


DECODINGS = {
    "to the end of the turn": Decoding(48),
    "of few tokens": Decoding(5),
    "to a stop string": Decoding(48, stop=(".", "\n")),
}


@pytest.mark.parametrize("name", DECODINGS)
@pytest.mark.parametrize("side", ["target", "base"])
def test_greedy_answers_are_those_of_our_own_loop(  # noqa: PLR0917 fixtures
    engine: RunningEngine, model: Adapted, prompts: list[Prompt], base: Path, side: str, name: str
) -> None:
    decoding, tokenizer = DECODINGS[name], load_tokenizer(base)
    theirs = EngineAnswers(engine, tokenizer, end_tokens(tokenizer, base), Interruption())
    found = theirs.answers(side, prompts, decoding)
    if side == "base":
        with model.peft.disable_adapter():
            wanted = ours(model, tokenizer, prompts, decoding, base)
    else:
        wanted = ours(model, tokenizer, prompts, decoding, base)
    same = [index for index, (one, other) in enumerate(zip(found, wanted, strict=True)) if one == other]
    print(f"{side}, {name}: {len(same)} of {len(prompts)} answers are the same")
    assert len(same) >= SAME * len(prompts), [(a.text, b.text) for a, b in zip(found, wanted, strict=True) if a != b]
    # What ended them is counted as we count it.
    assert [found[index].tokens for index in same] == [wanted[index].tokens for index in same]
    if side == "target" and name == "to the end of the turn":
        bare = theirs.answers("base", prompts, decoding)
        assert sum(one.text != other.text for one, other in zip(found, bare, strict=True)) > len(prompts) / 2


def test_what_is_drawn_is_the_same_again_and_differs_by_row(
    engine: RunningEngine, tokenizer: Any, prompts: list[Prompt], base: Path
) -> None:
    theirs = EngineAnswers(engine, tokenizer, end_tokens(tokenizer, base), Interruption())
    decoding = Decoding(12, temperature=1.0, top_p=0.9, seed=3)
    again = [Prompt(number, prompts[0].tokens) for number in range(8)]
    first = theirs.answers("base", again, decoding)
    assert theirs.answers("base", again, decoding) == first
    assert len({answer.text for answer in first}) > 4


def test_it_listens_to_nobody_outside_of_this_machine(engine: RunningEngine, log: io.StringIO) -> None:
    group = next(json.loads(line)["pid"] for line in log.getvalue().splitlines() if "pid" in line)
    addresses = {address for process in members(group) for address in listening(process)}
    assert addresses <= {"127.0.0.1"}, addresses


def test_a_question_that_it_does_not_take_is_named(engine: RunningEngine, tokenizer: Any, base: Path) -> None:
    theirs = EngineAnswers(engine, tokenizer, end_tokens(tokenizer, base), Interruption())
    with pytest.raises(SettingsInvalid, match=r"does not take what it is asked: 400 \(.*max_model_len"):
        theirs.answers("base", [Prompt(0, (5,) * 10)], Decoding(1000))


def test_a_model_that_does_not_fit_is_out_of_memory(
    settings: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8,192 tokens of keys and values in float32 are 0.4 GiB; so many more than one GiB holds.
    config = json.loads((settings.base / "config.json").read_text())
    folder = tmp_path / "base"
    folder.mkdir()
    for file in settings.base.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 200_000}))
    large = replace(settings, base=folder, adapters={}, ranks={}, longest=100_000)
    stop, report = Interruption(), Report(stream=io.StringIO())
    with pytest.raises(OutOfMemory, match="KV cache") as caught, running(large, tmp_path, stop=stop, report=report):
        pass
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def test_an_architecture_that_it_does_not_know_is_refused(settings: EngineSettings, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for file in settings.base.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["OddForCausalLM"]}))
    odd = replace(settings, base=folder, adapters={}, ranks={})
    stop, report = Interruption(), Report(stream=io.StringIO())
    with (
        pytest.raises(SettingsInvalid, match="OddForCausalLM") as caught,
        running(odd, tmp_path, stop=stop, report=report),
    ):
        pass
    assert caught.value.reason is Reason.ENGINE_REFUSED


def test_nothing_is_left_of_it(settings: EngineSettings, tmp_path: Path) -> None:
    told = io.StringIO()
    with running(settings, tmp_path, stop=Interruption(), report=Report(stream=told)):
        group = next(json.loads(line)["pid"] for line in told.getvalue().splitlines() if "pid" in line)
        assert len(members(group)) > 1, "the server and its engine core"
    assert members(group) == [], "at once: what comes next needs its memory"


OWNER = """
import os, sys, time
from pathlib import Path
from trimtab_trainer.evaluate.engine.process import EngineSettings, running
from trimtab_trainer.interruption import Interruption
from trimtab_trainer.report import Report

base, scratch = Path(sys.argv[1]), Path(sys.argv[2])
settings = EngineSettings(base, {}, {}, "float32", longest=160, at_once=16, seed=17, accelerated=False)
with running(settings, scratch, stop=Interruption(), report=Report(stream=sys.stdout)):
    time.sleep(3600)
"""


def test_nothing_is_left_of_it_when_its_owner_is_killed(settings: EngineSettings, tmp_path: Path) -> None:
    words = [sys.executable, "-c", OWNER, str(settings.base), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        (group,) = (told["pid"] for told in until(owner.stdout, "engine ready") if "pid" in told)
        found = members(group)
        owner.kill()
    assert len(found) > 2, "the server, its engine core and the guard"
    deadline = time.monotonic() + 30
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert members(group) == []


def until(stream: IO[bytes], message: str) -> Iterator[dict[str, Any]]:
    """Return what is told, up to a message."""
    for line in stream:
        told = json.loads(line)
        yield told
        if told["message"] == message:
            return


def members(group: int) -> list[int]:
    """Return the processes of a group that are not over."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended meanwhile
        if int(its) == group and state != "Z":
            found.append(int(folder.name))
    return found


def listening(process: int) -> list[str]:
    """Return the addresses that a process listens at by TCP."""
    inodes = set()
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            inodes.add(str(each.readlink()))
        except OSError:
            continue  # closed meanwhile
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address = fields[1].partition(":")[0]
                found.append(
                    ".".join(str(each) for each in reversed(bytes.fromhex(address))) if table == "tcp" else address
                )
    return found
