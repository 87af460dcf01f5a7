"""What models answered to a question: values, and nothing that asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .views import Shown


@dataclass(frozen=True)
class Reply(Shown):
    """What one model answered.

    Attributes:
        model: as it was asked for.
        revision: that answered, as the guard says; empty for the base.
        seconds: from the question to the last word.
        problem: why there is no answer, or no end of it.
    """

    model: str
    text: str
    revision: str = ""
    seconds: float = 0.0
    problem: str = ""


class Replies(tuple[Reply, ...], Shown):
    """What several models answered to a question, in the order in which they were asked for.

    Attributes:
        question: that was asked.
        engine: that answered.
    """

    question: str = ""
    engine: str = ""

    @classmethod
    def of(cls, replies: Iterable[Reply], question: str, engine: str) -> Replies:
        made = cls(replies)
        made.question, made.engine = question, engine
        return made


def title_of(reply: Reply) -> str:
    """Return the name that was asked, and behind an alias the revision that answered."""
    behind = reply.revision and reply.revision != reply.model
    return f"{reply.model} ({reply.revision})" if behind else reply.model
