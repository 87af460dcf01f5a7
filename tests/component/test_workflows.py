"""Workflows are what GitHub takes: actionlint, compiled from its Go module, has nothing to say."""

from __future__ import annotations

import subprocess

from tests.component.conftest import ROOT


def test_actionlint_has_nothing_to_say() -> None:
    done = subprocess.run(["make", "lint-workflows"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
