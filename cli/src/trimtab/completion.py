"""Completion for `kubectl trimtab`: kubectl runs `kubectl_complete-trimtab` with the words so far, the last of them
unfinished, and reads a line for each way to go on, then a line with a colon and what it is to do with them.

The verbs complete themselves as in any shell; this is another form of the same answer.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Sequence

PROGRAM = "trimtab"
NO_FILES, FILES = 4, 0
"""What cobra calls its directives: no names of files beside these; and by default what the shell completes itself."""


def main() -> None:
    """Complete the words of the command line."""
    sys.stdout.write(completed(sys.argv[1:]))


def completed(words: Sequence[str]) -> str:
    """Return what kubectl reads; where nothing is known to follow, names of files may."""
    from .command import app

    asked = {
        "_TRIMTAB_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join([PROGRAM, *words]),
        "COMP_CWORD": str(max(1, len(words))),
    }
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    told = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(SystemExit),  # how click ends when it has completed
        ):
            app(prog_name=PROGRAM)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    found = told.getvalue().split()
    return "".join(f"{each}\n" for each in found) + f":{NO_FILES if found else FILES}\n"


if __name__ == "__main__":
    main()
