"""The process: `trimtab`, and `kubectl trimtab` by the name that kubectl looks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import Invalid, Problem
from .output import note

COMPLETE = "__complete"
"""What the plugin is run with by `kubectl_complete-trimtab`, which is found beside it."""
OF_SHELLS = ("--install-completion", "--show-completion")


def main() -> None:
    """Run the command line; whatever goes wrong is a sentence on stderr and an exit code."""
    if sys.argv[1:2] == [COMPLETE]:
        from .completion import completed

        sys.stdout.write(completed(sys.argv[2:]))
        return
    from .command import app

    program = Path(sys.argv[0]).name
    try:
        if program.startswith("kubectl") and sys.argv[1:2] and sys.argv[1].partition("=")[0] in OF_SHELLS:
            raise Invalid(
                "kubectl completes its plugins itself, by the program kubectl_complete-trimtab on the PATH",
                "see kubectl completion --help; trimtab --install-completion is for the command trimtab",
            )
        app(prog_name="kubectl trimtab" if program.startswith("kubectl") else "trimtab")
    except Problem as problem:
        note(f"error: {problem}")
        sys.exit(problem.exit_code)
    except BrokenPipeError:  # whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
