"""The order of documents, [term, number]: an agent takes none that is not above what it holds.

The term is that of the leader: its Lease's transitions at least, and above the term of everything that is seen, because
a Lease may be made anew (in another namespace, from a backup) and counts from one then. A former leader does not outbid
its successor: it decided before it saw the successor's documents, and once it sees them its Lease is over, so that the
fence lets nothing of it out (`runtime.leader`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

Sequence = tuple[int, int]
"""[term, number]; the first was the Lease's transitions alone, and still is where nothing higher is seen."""

CREDIBLE = 2**53
"""No operator gets there. A higher one in a pod's answer concerns the documents for that pod alone, and one that
somebody wrote into a status or signed for new pods concerns none: there is no number above the highest."""
FIRST_NUMBER = 1_500_000_000_000
"""Numbers are milliseconds since 1970 or above: what lies below (2017) was sent by hand."""


def milliseconds(now: datetime) -> int:
    """Return the least number of a document that is made now.

    It is the floor because an object that is created again under the name of a deleted one remembers nothing.
    """
    return int(now.timestamp() * 1000)


def beyond(term: int, seen: Iterable[Sequence], number: int) -> Sequence:
    """Return a sequence above all that was seen, of this term or a later one, and of at least a number."""
    highest, last = max(seen, default=(0, 0))
    if highest > term or (highest == term and last >= CREDIBLE):
        return highest + 1, number
    return term, max(number, last + 1) if highest == term else number


def credible(sequence: Sequence) -> bool:
    """Tell whether an operator may have used a sequence that a pod tells."""
    return max(sequence) <= CREDIBLE


def of_an_operator(sequence: Sequence) -> bool:
    """Tell whether a document of this sequence was made by an operator, and not signed by a person's hand."""
    return sequence[1] >= FIRST_NUMBER
