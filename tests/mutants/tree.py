"""Copies of the working tree, changes that are not committed included, in which faults are put back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("pyproject.toml", "docs", "deploy/samples", "tests/mutants/judge.py", "tests/trainer", "trainer")
"""What the trainer's tests read."""


def copy_tree(target: Path) -> Path:
    """Write what is needed into a folder that is not there; return the folder."""
    for name in _names():
        source = ROOT / name
        if source.is_file():  # not what was deleted and is still in the index
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
    return target


def _names() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *NEEDED]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60).stdout
    return [name for name in listed.decode().split("\0") if name]
