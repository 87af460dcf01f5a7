"""A process that imports large libraries once and forks for each run of pytest: importing takes longer than most tests.

    python -m tests.mutants.preloaded torch transformers ...

reads requests, a line of JSON each, and answers each with a line: whether the run ended in time. What is under test is
imported by the forks alone, each from its own copy. `running` starts it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

OURS = ("tests", "trimtab_trainer")


def main(libraries: list[str]) -> None:
    """Import the libraries, then answer requests until there are no more."""
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    for name in ("pytest", *libraries):
        module: Any = importlib.import_module(name)
        if name == "torch":  # for as long as this process lives: bitsandbytes is imported after it
            module.compile = uncompiled
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


def uncompiled(function: Any = None, **_: Any) -> Any:
    """Return a function as it is, or a decorator that does."""
    return function if function is not None else uncompiled


def run(root: str, arguments: list[str], environment: dict[str, str], output: str, seconds: float) -> bool:
    """Run pytest in a fork, with all that it starts in a session of its own; tell whether it ended in time.

    Args:
        root: the copy that is tested, where it runs.
        arguments: of pytest.
        environment: variables that are set.
        output: file for what it prints.
        seconds: after which it is ended.
    """
    child = os.fork()
    if child == 0:
        become_pytest(Path(root), arguments, environment, Path(output))
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.02)
    return True


def become_pytest(root: Path, arguments: list[str], environment: dict[str, str], output: Path) -> NoReturn:
    """Run pytest in this process, as if it had been started in the copy, and end it."""
    code = 1
    try:
        os.setsid()
        for number, file, flags in ((0, os.devnull, os.O_RDONLY), (1, str(output), os.O_WRONLY | os.O_CREAT)):
            os.dup2(os.open(file, flags, 0o644), number)
        os.dup2(1, 2)
        os.environ.update(environment)
        here = str(Path.cwd())
        os.chdir(root)
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        sys.path[:] = [*environment["PYTHONPATH"].split(os.pathsep), *(each for each in sys.path if each != here)]
        import pytest

        code = int(pytest.main(arguments))
        sys.stdout.flush()
    except BaseException:  # whatever it is, it is told in the output, and this process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
