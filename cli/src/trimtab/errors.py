"""What can go wrong, each with the sentence that a person reads and the code that a script sees."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Problem(Exception):
    """Nothing more can be done: one sentence, and where there is one the next step.

    Attributes:
        exit_code: of the process: 1 an error, 3 no answer from a cluster, 4 not allowed; 2 is a wrong command line.
    """

    exit_code = 1

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(f"{sentence}: {next_step}" if next_step else sentence)
        self.sentence = sentence
        self.next_step = next_step


class NotFound(Problem):
    """No such object."""


class Invalid(Problem):
    """What was asked for cannot be: a manifest, a name, two objects that do not compare.

    Attributes:
        causes: field and message of each fault, where the API server names them.
    """

    def __init__(self, sentence: str, next_step: str = "", causes: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(sentence, next_step)
        self.causes = causes


class Conflict(Problem):
    """Somebody else wrote at the same time."""


class Expired(Problem):
    """A watch cannot go on from where it was: only a list tells what is there now."""


class Unreachable(Problem):
    """No cluster is known, or it does not answer."""

    exit_code = 3


class NotAllowed(Problem):
    """The API server does not know the user, or the user may not do this."""

    exit_code = 4


class NotInstalled(Problem):
    """The cluster does not serve a kind of ours."""


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint with the names that are nearly the one that was asked for, or nothing."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(found)}?" if found else ""
