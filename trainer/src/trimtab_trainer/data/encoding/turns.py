"""Where a turn begins and ends within a conversation that was rendered whole.

A turn begins behind what the template writes to ask for it, and what it adds there by itself (a block of thoughts that
is empty) is not the assistant's. It ends with what the template writes behind it, as far as that is not the beginning
of the next turn. Both are told from the conversation cut off there; as they depend on little but the text between two
pieces, which is one of a handful, they are looked up, so that a long conversation is not rendered once a turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .jinja import Refused
from .marks import TAG, Piece, Places

_BLOCK = r"(?:<(?P<tag>[^<>/\s]+)>\s*</(?P=tag)>|\[(?P<word>[A-Z]+)\]\s*\[/(?P=word)\])\n*"
EMPTY = re.compile(r"\s*" + _BLOCK)
"""A block of thoughts in which there are none."""
_LAST_EMPTY = re.compile(_BLOCK + r"\Z")
OPENER = re.compile(r"(?:<(?:think|thinking|thought|reasoning)>|\[THINK\]|<\|channel>thought)\s*\Z")
"""With which some templates ask for thoughts."""
UNLIKE = "what it writes to ask for an answer is not how it writes the answer"
MOST_GAPS = 4096

_TAG = re.compile(TAG)
ENDING = re.compile(rf"\s*({TAG})")
"""A tag that may end what is before it."""


@dataclass(frozen=True)
class Conversation:
    """A rendering with its pieces; `asking` and `ending` render it up to a message, with what asks for it and with it.

    Raises (both):
        Refused
    """

    places: Places
    pieces: Sequence[Piece]
    last: int
    asking: Callable[[int], Places]
    ending: Callable[[int], Places]

    @cached_property
    def _pieces_of(self) -> dict[int, list[int]]:
        numbers: dict[int, list[int]] = {}
        for number, piece in enumerate(self.pieces):
            numbers.setdefault(piece.message, []).append(number)
        return numbers

    def of(self, message: int) -> list[int]:
        """Return the pieces of a message."""
        return self._pieces_of.get(message, [])

    def extent(self, message: int) -> tuple[int, int] | None:
        """Return where a message's own text begins and ends; None where not all of it is there, and together."""
        starts, ends, own = self.places.starts, self.places.ends, self.of(message)
        if not own or not all(number in starts and number in ends for number in own):
            return None
        counts = dict.fromkeys(own, 1)
        if any(len(starts[number]) > 1 for number in own):
            # The name of a tool is repeated with its call, and again with what it answered, which is another's turn.
            alone = self.places if message == self.last else self.ending(message)
            counts = {number: len(alone.starts.get(number, ())) for number in own}
        first = min(each for number in own for each in starts[number][: counts[number]])
        last = max(each for number in own for each in ends[number][: counts[number]])
        others = (each for number, found in starts.items() if number not in own for each in found)
        return None if any(first < each < last for each in others) else (first, last)


@dataclass
class TurnFinder:
    """What is between turns, remembered.

    Attributes:
        stops: the tokens that end an answer for an engine, None if unknown.
        unended: the template ends no turn, so that what begins the next one ends it.
    """

    stops: frozenset[str] | None = None
    unended: bool = False
    _begins: dict[tuple[str, int], int] = field(default_factory=dict)
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def find(self, conversation: Conversation, message: int) -> tuple[int, int] | None:
        """Return what is learned of an assistant's turn, as positions of the text; None where part of it is missing.

        Raises:
            Refused: the template asks for an answer otherwise than it writes it.
        """
        extent = conversation.extent(message)
        if extent is None:
            return None
        return self._begin(conversation, message, extent[0]), self._end(conversation, message, extent[1])

    def _begin(self, conversation: Conversation, message: int, first: int) -> int:
        before = _last_end(conversation.places, first)
        gap = conversation.places.text[before:first]
        known = self._begins.get((gap, message == 0))
        if known is None:
            known = len(gap) if message == 0 else begin_of(gap, conversation.asking(message), before, conversation)
            _remember(self._begins, (gap, message == 0), known)
        return before + known

    def _end(self, conversation: Conversation, message: int, last: int) -> int:
        places = conversation.places
        after = min((each for starts in places.starts.values() for each in starts if each >= last), default=None)
        gap = places.text[last:after]
        tail = next(
            conversation.pieces[number].tail for number in conversation.of(message) if last in places.ends[number]
        )
        own = len(tail) if gap.startswith(tail) else 0
        if message == conversation.last:
            return last + len(gap)
        known = self._ends.get((gap, own))
        if known is None:
            alone = conversation.ending(message)
            until = max((end for ends in alone.ends.values() for end in ends), default=len(alone.text))
            known = end_of(gap, alone.text[until:], own, self.stops, unended=self.unended)
            _remember(self._ends, (gap, own), known)
        return last + known


def begin_of(gap: str, asked: Places, before: int, conversation: Conversation) -> int:
    """Return how much of the text before a turn's own is not the assistant's.

    Args:
        gap: the text between what is before the turn and the first of its own.
        asked: the conversation up to the turn, with what asks for it.
        before: where the gap begins.
        conversation: to compare with.

    Raises:
        Refused: the template writes the turn otherwise when it is asked for.
    """
    until = _last_end(asked, len(asked.text))
    question = asked.text[until:]
    if conversation.places.text.startswith(asked.text):
        question = asked.text[before:]
    block = _LAST_EMPTY.search(question)
    plain = question[: block.start()] if block else OPENER.sub("", question)
    begin = next((len(each) for each in (question, plain, plain.rstrip()) if gap.startswith(each)), None)
    if begin is None:
        raise Refused(UNLIKE)
    empty = EMPTY.match(gap, min(begin, len(plain)))
    return max(begin, empty.end()) if empty else begin


def end_of(gap: str, alone: str, own: int, stops: frozenset[str] | None, *, unended: bool = False) -> int:
    """Return how much of the text behind a turn's own ends it.

    Args:
        gap: the text between the turn's own and what follows.
        alone: the text behind it where nothing follows.
        own: characters at the beginning of both that are the turn's own after all.
        stops, unended: as in `TurnFinder`.
    """
    shared = _shared(gap, alone)
    if unended and shared == len(alone) and (next_turn := ENDING.match(gap, shared)):
        return next_turn.end()
    if _TAG.search(gap, own, shared):
        return shared
    following = ENDING.match(gap, max(own, shared))
    if following is None:
        return max(own, shared)
    # Another token ends it where something follows, or the beginning of what follows is what ends it.
    if ENDING.match(alone, max(own, shared)):
        return following.end()
    if not alone[max(own, shared) :].strip() and (stops is None or following.group(1) in stops):
        return following.end()
    return max(own, shared)


def _shared(left: str, right: str) -> int:
    """Return the length of what two texts begin with, no tag cut in two."""
    length = next(
        (at for at, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), min(len(left), len(right))
    )
    for text in (left, right):
        cut = next((tag for tag in _TAG.finditer(text) if tag.start() < length < tag.end()), None)
        length = cut.start() if cut else length
    return length


def _last_end(places: Places, until: int) -> int:
    return max((end for ends in places.ends.values() for end in ends if end <= until), default=0)


def _remember(known: dict[tuple[str, int], int], key: tuple[str, int], value: int) -> None:
    if len(known) >= MOST_GAPS:
        known.clear()
    known[key] = value
