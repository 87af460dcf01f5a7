"""What the base model and the adapter answer to a few held-out rows: the most likely token each time, for people.

The rows are asked as they were tokenised, so the prompt is what training saw. Bounded in rows, tokens and time, and no
reason to lose an adapter that is trained and measured: what cannot be answered is said on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.encoding.tokens import load_tokenizer
from ..data.view import Sequences
from ..errors import Interrupted
from ..evaluate.asking.generation import Decoding, Prompt, end_tokens, generate
from ..interruption import Interruption
from ..report import Report
from ..training.network.trained import Trained
from .page import HeldOut, HeldOutAnswer

ROWS = 4
PROMPT_TOKENS = 1024
"""Rows that ask for more are not shown."""
MOST_TOKENS, FEWEST_TOKENS = 64, 8
SECONDS = 60.0
"""About the time that all answers may take; a slow machine writes shorter ones."""
NO_TEST_ROWS = "No test rows were held out, so none was asked. dataset.test holds some out."
ALL_TOO_LONG = f"Every test row asks in more than {PROMPT_TOKENS:,} tokens, which is too long to show."


@dataclass(frozen=True)
class Question:
    """A row cut in two: what is asked, and the answer that the row has; int32 [n] and [m]."""

    prompt: npt.NDArray[np.int32]
    reference: npt.NDArray[np.int32]


def questions(test: Sequences, rows: int = ROWS) -> list[Question]:
    """Return a few rows, spread over all that are short enough.

    A row is asked for its last answer; of a text without questions, for its second half.
    """
    starts = np.flatnonzero(test.positions == 0)
    fitting = []
    wanted = [True] * len(starts) if test.wanted is None else test.wanted
    for start, end, shown in zip(starts, [*starts[1:], len(test.tokens)], wanted, strict=True):
        if not shown:  # another answer to the same question, or one that nobody wants
            continue
        begin, stop = _answer(test.supervised[start:end])
        if 0 < begin <= PROMPT_TOKENS and begin < stop:
            fitting.append((int(start), int(start) + begin, int(start) + stop))
    places = np.linspace(0, len(fitting) - 1, min(rows, len(fitting))).round()
    chosen = [fitting[int(place)] for place in places]
    return [Question(test.tokens[start:begin], test.tokens[begin:stop]) for start, begin, stop in chosen]


def _answer(supervised: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return where the last answer of a row begins and ends."""
    learned = np.flatnonzero(supervised)
    if not len(learned):
        return 0, 0
    stop = int(learned[-1]) + 1
    others = np.flatnonzero(~supervised[:stop])
    begin = int(others[-1]) + 1 if len(others) else 0
    return (begin, stop) if begin > 1 else (stop // 2, stop)


def answer_held_out(
    model: Trained,
    folder: Path,
    test: Sequences | None,
    *,
    chat_template: Path | None = None,
    stop: Interruption,
    report: Report,
) -> HeldOut:
    """Return what both write for a few test rows.

    Args:
        model: the published adapter on its base.
        folder: the base model's, with its tokenizer.
        test: the rows.
        chat_template: the one that they were rendered with, where it is not the base model's.
        stop: ends it.
        report: is told what could not be done.

    Raises:
        Interrupted: told to stop.
    """
    if test is None:
        return HeldOut(missing=NO_TEST_ROWS)
    try:
        template = chat_template.read_text() if chat_template is not None else None
        return _answered(model, folder, template, questions(test), stop=stop, report=report)
    except Interrupted:
        raise
    except Exception as error:  # libraries raise anything; the adapter is there, and measured
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        report.warn("held-out rows were not answered", error=reason)
        return HeldOut(missing=f"The test rows could not be asked ({reason}).")


def _answered(
    model: Trained, folder: Path, template: str | None, asked: list[Question], *, stop: Interruption, report: Report
) -> HeldOut:
    if not asked:
        return HeldOut(missing=ALL_TOO_LONG)
    tokenizer = load_tokenizer(folder)
    ends = end_tokens(tokenizer, folder, template)
    prompts = [Prompt(number, tuple(question.prompt.tolist())) for number, question in enumerate(asked)]
    started = monotonic()
    write(model, tokenizer, prompts, 1, ends, stop=stop, report=report)
    # The first token costs most: the whole prompt is read for it.
    tokens = int(min(MOST_TOKENS, max(FEWEST_TOKENS, SECONDS / 2 / max(1e-3, monotonic() - started))))
    adapter = write(model, tokenizer, prompts, tokens, ends, stop=stop, report=report)
    with model.base_alone():
        base = write(model, tokenizer, prompts, tokens, ends, stop=stop, report=report)
    return HeldOut(
        tuple(
            HeldOutAnswer(
                decoded(tokenizer, question.prompt, special=True), decoded(tokenizer, question.reference), *texts
            )
            for question, *texts in zip(asked, base, adapter, strict=True)
        ),
        tokens,
    )


def write(
    model: Trained,
    tokenizer: Any,
    prompts: list[Prompt],
    tokens: int,
    ends: frozenset[int],
    *,
    stop: Interruption,
    report: Report,
) -> list[str]:
    """Return what a model writes to each prompt, in at most so many tokens."""
    answers = generate(model, tokenizer, prompts, Decoding(tokens), ends, stop=stop, report=report)
    return [answer.text.strip() for answer in answers]


def decoded(tokenizer: Any, tokens: npt.NDArray[np.int32], *, special: bool = False) -> str:
    """Return tokens as text, with or without special ones: a prompt is shown as the model sees it."""
    text: str = tokenizer.decode(tokens.tolist(), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
    return text.strip()
