"""Chat templates: a conversation becomes text, together with the characters that are the assistant's own.

What is learned is the answer as the whole conversation renders it, its end included. Where a template leaves out part
of an earlier turn once another follows (thoughts, mostly), that turn is learned in a sequence of its own, the
conversation up to it, in which it is the last. A template with `{% generation %}` says itself what is the assistant's.
What a template leaves out even of a last turn would be learned by nobody, so that row is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reading.messages import Message
from .jinja import Jinja, Refused, Shape, invalid, shapes_of
from .marks import Marked, Places, mark, places
from .rendering import Kind, LeftOut, Rendered, Rendering, Span, missing_pieces
from .results import OPENING, unwrapped
from .turns import ENDING, UNLIKE, TurnFinder

__all__ = ["PROBE", "ChatTemplate", "Kind", "LeftOut", "Refused", "Rendered", "Span"]

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
        # What ends a last turn where the template leaves that to the next one: without calls, and with some.
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
        self._wraps_results = OPENING in source and self._writes_before_results(OPENING)

    def conversation(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return messages without what this template writes around them by itself."""
        return unwrapped(messages) if self._wraps_results else tuple(messages)

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
            rendering = self._rendering(messages[: waiting[-1] + 1], tools)
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
            self._finder.find(self._rendering(PROBE, None).conversation, len(PROBE) - 1)
        except Refused as error:
            raise invalid(f"{error}; use a template whose generation prompt matches") from error

    def text(self, messages: Sequence[Message], tools: Sequence[Any] | None, *, ask: bool = False) -> str:
        """Return the text of a conversation, in the shape in which the least of it is left out.

        Raises:
            Refused
        """
        return self._jinja.render(messages, tools, self.shape(messages, tools), ask=ask)

    def shape(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> Shape:
        """Return the shape in which the least of a conversation is left out.

        Raises:
            Refused: the template refuses it in every one.
        """
        return self.fit(mark(messages, tools))[0]

    def fit(self, marked: Marked) -> tuple[Shape, Places]:
        """Return the shape in which the least of a conversation is left out, and where its marks are then.

        Raises:
            Refused: the template refuses it in every one.
        """
        shapes = shapes_of(marked.messages)
        best: tuple[int, Shape, Places] | None = None
        refused: Refused | None = None
        preferred = self._shapes.get(shapes)
        for shape in sorted(shapes, key=lambda each: (each != preferred, each.parts != self._parts)):
            try:
                rendered = places(self._jinja.render(marked.messages, marked.tools, shape))
            except Refused as error:
                refused = refused or error
                continue
            missing = len(missing_pieces(marked, rendered))
            if best is None or missing < best[0]:
                best = missing, shape, rendered
            if not missing:
                self._shapes[shapes], self._parts = shape, shape.parts
                break
        if best is None:
            raise refused or Refused("it refuses everything")
        return best[1:]

    def _rendering(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> Rendering:
        marked = mark(messages, tools)
        closing = self._closings["tool_calls" in messages[-1]]
        fit = self.fit(marked)
        return Rendering(self._jinja, self._finder, messages, tools, marked=marked, fit=fit, closing=closing)

    def _writes_before_results(self, tag: str) -> bool:
        try:
            before, _, _ = self.text((*CALL_PROBE, *RESULT_PROBE), None).partition(RESULT_PROBE[0]["content"])
        except Refused:
            return False
        return before.rstrip().endswith(tag)

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


def _is_learned(message: Message) -> bool:
    if message["role"] != "assistant" or message.get("weight") == 0:
        return False
    return bool(message["content"].strip() or message.get("tool_calls") or message.get("reasoning_content"))
