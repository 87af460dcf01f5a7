"""Lines with the seconds since the start: a person watches, and a long build must show life."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

Word = str | Path
START = time.monotonic()


class Failed(Exception):
    """Something the person at the keyboard should read; printed without a traceback."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:6.1f} s] {text}", file=sys.stderr, flush=True)


def run(command: Sequence[Word], environment: Mapping[str, str] | None = None, stdin: str | Path | None = None) -> str:
    """Run a short command and return what it printed; its errors are shown when it fails. stdin: a text, or a file."""
    words = [str(word) for word in command]
    with stdin.open() if isinstance(stdin, Path) else nullcontext() as file:
        given = {"stdin": file} if file else {"input": stdin}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            words, **given, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise Failed(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def watch(
    what: str,
    command: Sequence[Word],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    every: float = 10.0,
) -> None:
    """Run a long command: every few seconds one line with its newest output, everything only when it fails."""
    words = [str(word) for word in command]
    lines: list[str] = []
    begin = time.monotonic()
    say(what)
    with subprocess.Popen(
        words, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(every):
                newest = lines[-1][:90] if lines else "started"
                say(f"  {what}: {time.monotonic() - begin:.0f} s, {len(lines)} lines, {newest}")

        beats = threading.Thread(target=beat, daemon=True)
        beats.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
        ended.set()
        beats.join()
    if process.returncode:
        tail = "\n".join(lines[-60:])
        raise Failed(f"{what} failed: {' '.join(words)}: exit {process.returncode}\n{tail}")
    say(f"{what}: done in {time.monotonic() - begin:.1f} s")
