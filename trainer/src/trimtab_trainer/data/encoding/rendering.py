"""One rendering of a conversation: its text, and what of it is the assistant's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any

from ..reading.messages import Message
from .jinja import Jinja, Refused, Shape
from .marks import BREAK, TOOLS, Marked, Piece, Places, places
from .turns import UNLIKE, Conversation, TurnFinder


class Kind(IntEnum):
    """Whose a token is: not the assistant's; learned; learned, of the last such turn; not to be learned (weight 0)."""

    GIVEN = 0
    LEARNED = 1
    LAST = 2
    EXCLUDED = 3


@dataclass(frozen=True)
class Span:
    """Characters of an assistant's turn."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Rendered:
    """Text to tokenise, and what of it is the assistant's.

    `whole` text has its special tokens already; `marked` spans come from `{% generation %}`. A `BREAK` within a control
    token says that it is a part of what somebody wrote.
    """

    text: str
    turns: tuple[Span, ...]
    whole: bool
    marked: bool = False

    def without_breaks(self) -> Rendered:
        """Return the text as it was written."""
        if BREAK not in self.text:
            return self
        at = [found for found, each in enumerate(self.text) if each == BREAK]
        turns = (
            replace(span, start=span.start - bisect_left(at, span.start), end=span.end - bisect_left(at, span.end))
            for span in self.turns
        )
        return replace(self, text=self.text.replace(BREAK, ""), turns=tuple(turns))

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Where the characters are that are learned."""
        return tuple((span.start, span.end) for span in self.turns if span.kind in (Kind.LEARNED, Kind.LAST))


class LeftOut(Refused):
    """The template leaves out part of what somebody wrote."""


class Rendering:
    """A conversation that ends with an assistant's turn, rendered once as it is and once with marks."""

    def __init__(
        self,
        jinja: Jinja,
        finder: TurnFinder,
        messages: Sequence[Message],
        tools: Sequence[Any] | None,
        *,
        marked: Marked,
        fit: tuple[Shape, Places],
        closing: str,
    ) -> None:
        """Render a conversation.

        Args:
            jinja: the template.
            finder: of its turns.
            messages: the last one is an assistant's.
            tools: of the conversation.
            marked: the same with marks.
            fit: the shape that the template wants, and the conversation with marks as it was rendered in it.
            closing: what ends the last turn, where only the next one would write that.

        Raises:
            Refused
        """
        self._jinja, self._finder, self._closing = jinja, finder, closing
        self._messages, self._tools, self._marked = messages, tools, marked
        self._shape, self._places = fit
        self._blocks: list[tuple[int, int]] = []
        if jinja.marked:
            text, blocks = jinja.generated(marked.messages, marked.tools, self._shape)
            self._places = places(text)
            self._blocks = [(self._places.without(start), self._places.without(end)) for start, end in blocks]
        self.text = jinja.render(messages, tools, self._shape)

    def turns(self, waiting: Sequence[int], last: int) -> tuple[Rendered, set[int]]:
        """Return the rendering with what is learned in it, and which of the turns that wait these are.

        Raises:
            Refused
        """
        end = len(self._messages) - 1
        if self.text != self._places.text:
            return self._apart(end, last), {end}
        for piece in missing_pieces(self._marked, self._places):
            if piece.message == TOOLS or self._messages[piece.message]["role"] != "assistant":
                raise _left_out(piece.key, piece.message)
        spans, done = list[Span](), set[int]()
        for number, message in enumerate(self._messages):
            if message["role"] != "assistant":
                continue
            weighed = message.get("weight") != 0
            for start, stop in self._found(number):
                kind = Kind.GIVEN if weighed else Kind.EXCLUDED
                if number in waiting:
                    kind = Kind.LAST if number == last else Kind.LEARNED
                    done.add(number)
                if kind is not Kind.GIVEN:
                    spans.append(Span(start, stop, kind))
        return self._closed(tuple(spans)), done

    def left_out(self, message: int) -> Refused:
        """Return the refusal of a turn of which the template leaves out a part though it is the last."""
        missing = [
            piece
            for number, piece in enumerate(self._marked.pieces)
            if piece.message == message and number not in self._places.starts
        ]
        return _left_out(missing[0].key if missing else "content", message)

    def _found(self, message: int) -> list[tuple[int, int]]:
        if self._jinja.marked:
            return self._generated(message)
        found = self._finder.find(self.conversation, message)
        return [found] if found else []

    @cached_property
    def conversation(self) -> Conversation:
        """Return the rendering with its pieces."""
        marked = self._marked

        @lru_cache(maxsize=1)
        def asking(message: int) -> Places:
            return places(self._jinja.render(marked.messages[:message], marked.tools, self._shape, ask=True))

        @lru_cache(maxsize=1)
        def ending(message: int) -> Places:
            return places(self._jinja.render(marked.messages[: message + 1], marked.tools, self._shape))

        return Conversation(self._places, marked.pieces, len(self._messages) - 1, asking, ending)

    def _generated(self, message: int) -> list[tuple[int, int]]:
        """Return the template's own blocks of a turn: those in which, or behind which nothing but, a piece of it is."""
        conversation = self.conversation
        if conversation.extent(message) is None:
            return []
        starts = sorted(
            (at, self._marked.pieces[number].message) for number, found in self._places.starts.items() for at in found
        )
        owners = (next((number for at, number in reversed(starts) if at < end), TOOLS) for _, end in self._blocks)
        return [block for block, owner in zip(self._blocks, owners, strict=True) if owner == message]

    def _apart(self, end: int, last: int) -> Rendered:
        """Return the last turn alone, where marks lead the template astray: what it adds to what asks for it."""
        asked = self._jinja.render(self._messages[:end], self._tools, self._shape, ask=True) if end else ""
        content = self._messages[end]["content"].strip()
        if not self.text.startswith(asked):
            raise Refused(UNLIKE)
        if content not in self.text[len(asked) :]:
            raise _left_out("content", end)
        return self._closed((Span(len(asked), len(self.text), Kind.LAST if end == last else Kind.LEARNED),))

    def _closed(self, spans: tuple[Span, ...]) -> Rendered:
        text = self.text
        if spans and self._closing and spans[-1].end == len(text):
            text = text.rstrip() + self._closing
            spans = (*spans[:-1], replace(spans[-1], end=len(text)))
        return Rendered(text, spans, whole=True, marked=self._jinja.marked)


def missing_pieces(marked: Marked, rendered: Places) -> list[Piece]:
    """Return the pieces that are not there, but for thoughts of turns before the last one."""
    end = len(marked.messages) - 1
    return [
        piece
        for number, piece in enumerate(marked.pieces)
        if number not in rendered.starts and not (piece.thought and piece.message != end)
    ]


def _left_out(key: str, message: int) -> LeftOut:
    what = "the tools" if message == TOOLS else f"{key} of message {message + 1}"
    remedy = "remove the row" if key == "content" else f"put {key} into dataset.ignoreKeys if it means nothing"
    return LeftOut(
        f"it leaves out {what}, so that something else would be learned than was written; {remedy}, or give a template "
        "that writes it by dataset.chatTemplate"
    )
