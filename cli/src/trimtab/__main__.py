"""The process: `trimtab`, and `kubectl trimtab` by the name that kubectl looks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import Problem
from .output import note


def main() -> None:
    """Run the command line; whatever goes wrong is a sentence on stderr and an exit code."""
    from .command import app

    program = Path(sys.argv[0]).name
    try:
        app(prog_name="kubectl trimtab" if program.startswith("kubectl") else "trimtab")
    except Problem as problem:
        note(f"error: {problem}")
        sys.exit(problem.exit_code)
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
