"""What the command `trimtab-trainer` does before its own imports are done."""

from __future__ import annotations

import signal
import subprocess
import sys

from trimtab_trainer.contract import ExitCode
from trimtab_trainer.start import INTERRUPTED

TOLD_WHILE_IT_IMPORTS = """
import os, signal, sys
from importlib.abc import MetaPathFinder
from importlib.metadata import entry_points

class Told(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "trimtab_trainer.config":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Told())
(command,) = entry_points(group="console_scripts", name="trimtab-trainer")
sys.argv = ["trimtab-trainer", "prepare", "--config", "/nowhere"]
sys.exit(command.load()())
"""


def test_it_can_be_told_to_stop_while_it_imports() -> None:
    """Process 1 of a container gets no signal without a handler, and a deleted pod waited for its grace period."""
    ended = subprocess.run([sys.executable, "-c", TOLD_WHILE_IT_IMPORTS], check=False, capture_output=True)
    assert ended.returncode == ExitCode.INTERRUPTED, (signal.SIGTERM, ended.stderr.decode())
    assert INTERRUPTED == ExitCode.INTERRUPTED
