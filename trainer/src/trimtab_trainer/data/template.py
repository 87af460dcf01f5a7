"""Chat templates: a conversation becomes text, together with the characters that are the assistant's own.

What is learned is the answer as the whole conversation renders it, its end included. Where a template leaves out part
of an earlier turn once another follows (thoughts, mostly), that turn is learned in a sequence of its own, the
conversation up to it, in which it is the last. A template with `{% generation %}` says itself what is the assistant's.
What a template leaves out even of a last turn would be learned by nobody, so that row is refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

from .jinja import Jinja, Refused, Shape, invalid, shapes_of
from .marks import BREAK, TOOLS, Marked, Places, mark, places
from .messages import Message
from .turns import ENDING, UNLIKE, Conversation, TurnFinder

PROBE: tuple[Message, ...] = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})
CALL_PROBE: tuple[Message, ...] = (
    PROBE[0],
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "call00001", "function": {"name": "look_up", "arguments": {"n": 1}}}],
    },
)
RESULT_PROBE: tuple[Message, ...] = (
    {"role": "tool", "content": "Result", "name": "look_up", "tool_call_id": "call00001"},
    PROBE[1],
)


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


class ChatTemplate:
    """A compiled chat template; templates are run in transformers' sandbox."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], stops: frozenset[str] | None = None) -> None:
        """Compile a template and try it.

        Args:
            source: Jinja.
            special_tokens: by the names that templates know them by.
            stops: tokens that end an answer for an engine, None if that is not known.

        Raises:
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        self._jinja = Jinja(source, special_tokens)
        self._finder = TurnFinder(stops)
        self._shapes: dict[tuple[Shape, ...], Shape] = {}
        self._parts = False
        self._closings: dict[bool, str] = {False: "", True: ""}
        try:
            self.render(PROBE)
        except Refused as error:
            if str(error) == UNLIKE:
                raise invalid(f"{UNLIKE}; use a template whose generation prompt matches") from error
            if isinstance(error, LeftOut):
                raise invalid("it leaves out what the assistant says") from error
            raise invalid(f"it fails on a question and an answer: {error}") from error
        if not self._jinja.marked:
            self._closings[False] = self._closing_of(PROBE, PROBE)
        if self._closings[False]:
            self._finder = TurnFinder(stops, unended=True)
            self._closings[True] = self._closing_of(CALL_PROBE, RESULT_PROBE)

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> Rendered:
        """Return the text of a conversation up to the last turn that is learned, with all turns that are whole in it.

        Raises:
            Refused: the template refuses this conversation, or leaves out something of it.
        """
        return self.sequences(messages, tools)[-1]

    def sequences(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[Rendered]:
        """Return the sequences in which each assistant's turn is learned once; the last one holds the last turn.

        Raises:
            Refused: as `render`.
        """
        learned = [number for number, message in enumerate(messages) if _is_learned(message)]
        last = learned[-1] if learned else max(n for n, each in enumerate(messages) if each["role"] == "assistant")
        waiting, found = learned, list[Rendered]()
        while waiting:
            rendering = _Rendering(self, messages[: waiting[-1] + 1], tools)
            rendered, done = rendering.turns(waiting, last)
            if waiting[-1] not in done:
                raise rendering.left_out(waiting[-1])
            found.append(rendered)
            waiting = [number for number in waiting if number not in done]
        return found[::-1] or [Rendered(self.text(messages[: last + 1], tools), (), whole=True)]

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """Return the text that asks for the last assistant turn, as it is sent to an engine; empty if none precedes it.

        Raises:
            Refused: the template refuses this conversation.
        """
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        return self.text(messages[:last], tools, ask=True) if last else ""

    def check_asking(self) -> None:
        """Refuse a template that marks what is generated, and asks for it otherwise than it writes it.

        Raises:
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        try:
            self._finder.find(_Rendering(self, PROBE, None).conversation(), len(PROBE) - 1)
        except Refused as error:
            raise invalid(f"{error}; use a template whose generation prompt matches") from error

    def text(self, messages: Sequence[Message], tools: Sequence[Any] | None, *, ask: bool = False) -> str:
        """Return the text of a conversation, in the shape in which the least of it is left out.

        Raises:
            Refused
        """
        return self._jinja.render(messages, tools, self.shape(messages, tools), ask=ask)

    def shape(
        self, messages: Sequence[Message], tools: Sequence[Any] | None = None, marked: Marked | None = None
    ) -> Shape:
        """Return the shape in which the least of a conversation is left out; `marked` is the same with marks.

        Raises:
            Refused: the template refuses it in every one.
        """
        marked, shapes = marked or mark(messages, tools), shapes_of(messages)
        best: tuple[int, Shape] | None = None
        refused: Refused | None = None
        preferred = self._shapes.get(shapes)
        for shape in sorted(shapes, key=lambda each: (each != preferred, each.parts != self._parts)):
            try:
                rendered = places(self._jinja.render(marked.messages, marked.tools, shape))
            except Refused as error:
                refused = refused or error
                continue
            missing = len(_missing(marked, rendered))
            if best is None or missing < best[0]:
                best = missing, shape
            if not missing:
                self._shapes[shapes], self._parts = shape, shape.parts
                break
        if best is None:
            raise refused or Refused("it refuses everything")
        return best[1]

    def closing(self, message: Message) -> str:
        """Return what ends a turn that is the last where the template leaves that to the next turn; empty as a rule."""
        return self._closings["tool_calls" in message]

    def _closing_of(self, turn: tuple[Message, ...], following: tuple[Message, ...]) -> str:
        try:
            alone, followed = self.render(turn), self.render((*turn, *following))
        except Refused:
            return ""
        if len(alone.spans) != 1 or len(followed.spans) != 2 or alone.spans[0][1] != len(alone.text):
            return ""
        said, ended = (each.text[slice(*each.spans[0])] for each in (alone, followed))
        tag = ENDING.match(ended[len(said) :]) if ended.startswith(said) else None
        return tag.group(1) if tag else ""


class LeftOut(Refused):
    """The template leaves out part of what somebody wrote."""


class _Rendering:
    """A conversation that ends with an assistant's turn, rendered once as it is and once with marks."""

    def __init__(self, template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Any] | None) -> None:
        self._jinja, self._finder, self._closing = template._jinja, template._finder, template.closing(messages[-1])
        self._messages, self._tools = messages, tools
        self._marked = mark(messages, tools)
        self._shape = template.shape(messages, tools, self._marked)
        self._blocks: list[tuple[int, int]] = []
        if self._jinja.marked:
            text, blocks = self._jinja.generated(self._marked.messages, self._marked.tools, self._shape)
            self._places = places(text)
            self._blocks = [(self._places.without(start), self._places.without(end)) for start, end in blocks]
        else:
            self._places = places(self._jinja.render(self._marked.messages, self._marked.tools, self._shape))
        self.text = self._jinja.render(messages, tools, self._shape)

    def turns(self, waiting: Sequence[int], last: int) -> tuple[Rendered, set[int]]:
        """Return the rendering with what is learned in it, and which of the turns that wait these are.

        Raises:
            Refused
        """
        end = len(self._messages) - 1
        if self.text != self._places.text:
            return self._apart(end, last), {end}
        for piece in _missing(self._marked, self._places):
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
        found = self._finder.find(self.conversation(), message)
        return [found] if found else []

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
        conversation = self.conversation()
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


def _is_learned(message: Message) -> bool:
    if message["role"] != "assistant" or message.get("weight") == 0:
        return False
    return bool(message["content"].strip() or message.get("tool_calls") or message.get("reasoning_content"))


def _missing(marked: Marked, rendered: Places) -> list[Any]:
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
