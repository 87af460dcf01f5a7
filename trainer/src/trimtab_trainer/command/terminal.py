"""A progress bar for people who watch a stage in a terminal; pods and pipes get none."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from ..contract import Progress


class Bar:
    """Shows what a board says: steps done, the activity, losses and speed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        """Show these figures."""
        if not progress.total_steps:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(initial=progress.step, unit="step", file=self._stream, dynamic_ncols=True, leave=True)
        self._bar.total, self._bar.n = progress.total_steps, progress.step
        self._bar.set_description_str(progress.activity, refresh=False)
        figures = {
            "loss": progress.loss,
            "validation": progress.validation_loss,
            "tokens/s": progress.tokens_per_second,
        }
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items() if value is not None})

    def close(self) -> None:
        """Leave the bar as it is, and its line."""
        if self._bar is not None:
            self._bar.close()


class Lines:
    """A stream of whole lines that stand above the bar instead of in it."""

    def write(self, text: str) -> int:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stdout, end="")
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()


def watched() -> bool:
    """Tell whether somebody watches."""
    return sys.stderr.isatty()
