"""The bar of a terminal: what the board says, and lines that stand above it."""

from __future__ import annotations

import io
import sys

import pytest
from trimtab_trainer.command.terminal import Bar, Lines
from trimtab_trainer.contract import Stage
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report


def test_a_bar_shows_what_the_board_says() -> None:
    screen = io.StringIO()
    board = ProgressBoard("uid", 0, Stage.TRAIN)
    bar = board.watcher = Bar(screen)
    board.update(activity="Loading")
    assert screen.getvalue() == ""
    board.update(total_steps=40, step=10, activity="Training", loss=1.23456, tokens_per_second=9876.5)
    board.update(step=20, validation_loss=1.5)
    bar.close()
    shown = screen.getvalue()
    assert "Training:" in shown
    assert "20/40" in shown
    assert "50%" in shown
    assert "loss=1.235" in shown
    assert "validation=1.5" in shown
    assert "tokens/s=9876" in shown


def test_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(sys.stderr)
    board = ProgressBoard("uid", 0, Stage.TRAIN)
    board.watcher = bar
    board.update(total_steps=4, step=1, activity="Training")
    Report({"run": "a"}, Lines())("step", step=1)
    bar.close()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('{"time": ')
    assert line.endswith('"run": "a", "step": 1}')
