"""A pytest plugin for a copy of the tree: it sees to it that the copy is tested, and writes how each test ended.

`running` starts it with `-p tests.mutants.judge`; it runs in the copy and imports nothing of `tests.mutants`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ENDINGS = "MUTANT_ENDINGS"
"""Environment variable with the file that endings are written to: {test: [phase, outcome, kinds of error, words]}."""
_ENDINGS: dict[str, list[Any]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test anything but this copy: an editable installation has another tree on the path, too."""
    import trimtab_trainer

    if not Path(trimtab_trainer.__file__).is_relative_to(config.rootpath):
        raise pytest.UsageError(f"{trimtab_trainer.__file__} is not in the copy {config.rootpath}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the phase that did not pass, or the call."""
    report = yield
    if not report.passed or report.when == "call":
        kinds = [kind.__name__ for kind in call.excinfo.type.__mro__] if call.excinfo is not None else []
        words = call.excinfo.exconly(tryshort=True).strip().partition("\n")[0] if call.excinfo is not None else ""
        _ENDINGS.setdefault(item.nodeid, [report.when, report.outcome, kinds, words])
    return report


def pytest_sessionfinish() -> None:
    """Write the endings."""
    Path(os.environ[ENDINGS]).write_text(json.dumps(_ENDINGS))
