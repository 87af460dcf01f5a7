"""vLLM as a child process: started with what is to be asked, waited for, and ended whatever happens.

It listens on a Unix socket in a folder that this user alone may enter, so no port is open and no other process of the
node reaches it. It reads the base model and the adapters from local folders, offline, as safetensors, and never runs a
model's own code. What it writes goes to a file: its last words are told by name where it does not come up or dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx2

from ...contract import Reason
from ...errors import EngineFailed, OutOfMemory, SettingsInvalid, TrainerError
from ...interruption import Interruption
from ...pages.wording import visible
from ...report import Report
from .limits import rank_for

COMMAND = "TRIMTAB_VLLM"
"""In the environment: vLLM's command; `vllm` on the PATH if absent."""
BASE = "base"
"""Name of the base model alone; adapters have the name of their side."""
SILENT_SECONDS = 900
"""How long it may write nothing while it comes up: kernels are compiled without a word."""
TOLD_SECONDS = 30
PAUSE_SECONDS = 0.5
END_SECONDS = 10
"""From SIGTERM to SIGKILL."""
LOG_BYTES, TOLD_CHARACTERS, CAUSE_CHARACTERS = 64_000, 8_000, 300
"""vLLM names all architectures that it knows, 14 kB of them, where it does not know one."""
VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,63}")
GUARDED = """
exec 3<&0 </dev/null
( trap '' TERM; read -r _ <&3; kill -KILL 0 ) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""
"""Becomes a command, in whose group a shell waits for the end of standard input, and then kills the whole group.

Whoever started it holds the other end, and nobody else: so nothing of it outlives a process that is killed, which on a
laptop nobody else would see to.
"""
SHORTEST = 16
"""Tokens of prompt and answer that an engine is always made for."""

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # its processes meet on loopback, and nobody else is let in
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
}
ON_PROCESSORS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; without it a share of the whole node's memory is taken
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCHDYNAMO_DISABLE": "1",  # there may be no compiler
}
"""Without an accelerator, where the environment does not say otherwise."""

MEMORY = re.compile(
    r"out of memory|outofmemory|cannot allocate memory|can't allocate memory|no available memory for the cache|"
    r"less than desired (gpu|cpu|device) memory|larger than the available kv cache memory|"
    r"to serve at least one request",
    re.IGNORECASE,
)
REFUSED = re.compile(
    r"architectures? .{0,120} (is|are) not supported|does not support lora|is not supported for|"
    r"not supported lora|unsupported lora|vllm (does not|only) support",
    re.IGNORECASE,
)
CAUSE = re.compile(r"(?:^|[\s.])([A-Za-z_]*(?:Error|Exception)): (.+)$")
VALIDATION, DETAIL = re.compile(r"\d+ validation errors? for "), re.compile(r"Value error, (.+?)(?: \[type=|$)")
CONSEQUENCE = re.compile(r"Engine core initialization failed|See root cause above|Engine process failed", re.IGNORECASE)


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is started with.

    Attributes:
        base: folder of the base model.
        adapters: folders of adapters, by the name that requests give.
        ranks: the largest rank of each adapter, by the same names.
        compute_type: of weights and products, as torch names it, such as bfloat16.
        longest: tokens of the longest prompt with its answer.
        at_once: most answers that are written at the same time; the engine's own number if None.
        seed: of what is drawn where a request has no seed.
        accelerated: an accelerator computes, not processors.
    """

    base: Path
    adapters: Mapping[str, Path]
    ranks: Mapping[str, int]
    compute_type: str
    longest: int
    at_once: int | None
    seed: int
    accelerated: bool

    def arguments(self, socket: Path) -> list[str]:
        """Return the command's arguments: where it listens, what it holds, and nothing that only people look at."""
        given = ["serve", str(self.base), "--served-model-name", BASE, "--uds", str(socket)]
        given += ["--dtype", self.compute_type, "--load-format", "safetensors", "--language-model-only"]
        # What the model's folder says of sampling is no part of the question: answers are asked as ours are.
        given += ["--generation-config", "vllm", "--seed", str(self.seed)]
        given += ["--max-model-len", str(max(self.longest, SHORTEST))]
        given += ["--disable-log-stats", "--disable-uvicorn-access-log", "--disable-fastapi-docs"]
        if self.at_once is not None:
            given += ["--max-num-seqs", str(self.at_once)]
        if not self.accelerated:
            given.append("--enforce-eager")
        if self.adapters:
            given += ["--enable-lora", "--max-loras", str(len(self.adapters))]
            given += ["--max-lora-rank", str(rank_for(max(self.ranks.values()))), "--lora-modules"]
            given += [json.dumps({"name": name, "path": str(path)}) for name, path in self.adapters.items()]
        return given

    def environment(self, ours: Mapping[str, str], folder: Path) -> dict[str, str]:
        """Return the child's environment: ours, and what keeps it to itself and to its folder."""
        told = dict(ours) if self.accelerated else {**ON_PROCESSORS, **ours}
        return {
            **told,
            **OFFLINE,
            "VLLM_CACHE_ROOT": str(folder / "cache"),
            "VLLM_CONFIG_ROOT": str(folder / "config"),
            "VLLM_RPC_BASE_PATH": str(folder),
        }


class RunningEngine:
    """An engine that answers."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
        self._process, self._socket, self._log = process, socket, log

    def client(self, connections: int, seconds: float) -> httpx2.Client:
        """Return a client whose requests reach the engine and nothing else."""
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        transport = httpx2.HTTPTransport(uds=str(self._socket), limits=limits)
        timeout = httpx2.Timeout(seconds, pool=None)
        return httpx2.Client(transport=transport, base_url="http://engine", timeout=timeout, trust_env=False)

    def check(self, *, within: float = 0.0) -> None:
        """See that it lives.

        Args:
            within: seconds in which it may still be found dead: a connection breaks before its process has ended.

        Raises:
            OutOfMemory, EngineFailed: it ended.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        if self._process.poll() is not None:
            raise named_end(self._process.returncode, self._log, "while it was asked")


def command(environment: Mapping[str, str]) -> str:
    """Return the path of vLLM's command.

    Raises:
        SettingsInvalid: ENGINE_MISSING.
    """
    named = environment.get(COMMAND) or "vllm"
    found = shutil.which(named, path=environment.get("PATH"))
    if found is None:
        raise SettingsInvalid(
            f"engine: Vllm needs vLLM in the image that evaluates, and there is no command {named}; name an image that "
            "has both in evaluator.image of the chart or in spec.template.image, or leave engine out",
            Reason.ENGINE_MISSING,
        )
    return found


def installed_version(report: Report) -> str:
    """Return the version of vLLM, with what it was built for, as its command tells it.

    Raises:
        SettingsInvalid: ENGINE_MISSING.
        EngineFailed: it does not tell.
    """
    program = command(os.environ)
    try:
        told = subprocess.run(
            [program, "--version"],
            env={**os.environ, **OFFLINE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SILENT_SECONDS,
            check=False,
        )
    except OSError as error:
        raise EngineFailed(f"{program} cannot be run ({error.strerror}); see to the image") from None
    except subprocess.TimeoutExpired:
        raise EngineFailed(f"{program} --version said nothing for {SILENT_SECONDS} s; see to the image") from None
    # Libraries that it loads may have said something before.
    (last,) = told.stdout.strip().splitlines()[-1:] or [""]
    version = last.strip()
    if told.returncode != 0 or not VERSION.fullmatch(version):
        cause = root_cause(told.stderr) or " ".join(visible(version).split())[:CAUSE_CHARACTERS]
        because = f" ({cause})" if cause else ""
        raise EngineFailed(
            f"{program} --version does not tell a version{because}, status {told.returncode}; is it vLLM's command?"
        )
    report("engine found", engine="vLLM", version=version)
    return version


@contextmanager
def running(
    settings: EngineSettings,
    scratch: Path,
    *,
    stop: Interruption,
    report: Report,
) -> Iterator[RunningEngine]:
    """Start an engine, give it once it answers, and end it with all its processes when the block is left.

    Args:
        settings: what it holds.
        scratch: a folder for its log and caches.
        stop: ends the waiting.
        report: is told how long it takes.

    Raises:
        SettingsInvalid: ENGINE_MISSING, ENGINE_REFUSED.
        OutOfMemory, EngineFailed: it did not come up.
        Interrupted: told to stop.
    """
    program = command(os.environ)
    scratch.mkdir(parents=True, exist_ok=True)
    log = scratch / "vllm.log"
    # A socket's path has at most 107 bytes, and the scratch folder may lie deep.
    with tempfile.TemporaryDirectory(prefix="vllm-") as private, log.open("wb") as output:
        socket = Path(private) / "socket"
        began = time.monotonic()
        process = _start([program, *settings.arguments(socket)], settings.environment(os.environ, scratch), output)
        try:
            engine = RunningEngine(process, socket, log)
            report("engine starting", engine="vLLM", pid=process.pid)
            _wait(process, engine, log, stop, report)
            report("engine ready", engine="vLLM", seconds=round(time.monotonic() - began, 1))
            yield engine
        finally:
            with stop.later():
                _end(process)
        report("engine ended", engine="vLLM", seconds=round(time.monotonic() - began, 1))


def _start(words: list[str], environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", GUARDED, "sh", *words],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _wait(
    process: subprocess.Popen[bytes], engine: RunningEngine, log: Path, stop: Interruption, report: Report
) -> None:
    """Return once it answers."""
    began = told = spoke = time.monotonic()
    written = 0
    with engine.client(1, 30.0) as client:
        while True:
            stop.check()
            if process.poll() is not None:
                raise named_end(process.returncode, log, "before it answered", report)
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx2.HTTPError:
                pass  # not yet: the socket is not there, or what answers is not up
            now, size = time.monotonic(), log.stat().st_size
            if size != written:
                written, spoke = size, now
            if now - spoke > SILENT_SECONDS:
                raise EngineFailed(
                    f"vLLM neither answered nor wrote anything for {SILENT_SECONDS} s while it started; see the log of "
                    "the pod"
                )
            if now - told >= TOLD_SECONDS:
                told = now
                report("engine is starting", engine="vLLM", seconds=round(now - began), log=last_line(log))
            time.sleep(PAUSE_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, the server, its engine core and its workers, and wait until their memory is free."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    _signal(process, signal.SIGKILL)  # also what the server has left behind
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    # They are children of its, not ours; what was killed ends within moments, even with much memory to give back.
    deadline = time.monotonic() + END_SECONDS
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)


def _members(group: int) -> list[int]:
    """Return the processes of a group that are not over, as Linux tells them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, its = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its) == group and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def named_end(code: int, log: Path, when: str, report: Report | None = None) -> TrainerError:
    """Return why an engine ended, from its exit status and its last words."""
    text = tail(log)
    if report is not None:
        report.warn("engine ended early", status=code, log=text[-TOLD_CHARACTERS:])
    cause = root_cause(text)
    because = f" ({cause})" if cause else ""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) or MEMORY.search(text):
        return OutOfMemory(
            f"the memory does not suffice for vLLM {when}{because}; raise the memory limit or take an accelerator with "
            "more, or give the tasks shorter rows or a smaller maxNewTokens"
        )
    if REFUSED.search(cause):
        return SettingsInvalid(
            f"vLLM does not take this base model or adapter{because}; leave engine out to ask it by Transformers",
            Reason.ENGINE_REFUSED,
        )
    return EngineFailed(f"vLLM ended {when} with status {code}{because}; see the log of the pod")


def root_cause(text: str) -> str:
    """Return the last error of some last words that is no consequence of another, in a line; "" if they name none."""
    lines = text.splitlines()
    found = [(match[1], match[2], place) for place, line in enumerate(lines) if (match := CAUSE.search(line.rstrip()))]
    causes = [each for each in found if not CONSEQUENCE.search(each[1])]
    if not causes:
        return ""
    kind, said, place = causes[-1]
    if VALIDATION.match(said):  # pydantic says in the next lines what is wrong
        details = (match[1] for line in lines[place + 1 : place + 4] if (match := DETAIL.search(line)))
        said = next(details, said)
    return " ".join(visible(f"{kind}: {said}").split())[:CAUSE_CHARACTERS]


def tail(log: Path) -> str:
    """Return the last words of a log."""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_BYTES))
        return opened.read().decode(errors="replace")


def last_line(log: Path) -> str:
    """Return the last line of a log, for people."""
    lines = [line for line in re.split(r"[\r\n]+", tail(log)) if line.strip()]
    return visible(lines[-1].strip())[:CAUSE_CHARACTERS] if lines else ""
