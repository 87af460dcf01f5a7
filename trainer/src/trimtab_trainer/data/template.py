"""Chat templates: a conversation becomes text, together with the characters that are the assistant's own.

A template with `{% generation %}` says itself which they are. For all others the conversation is rendered up to each
assistant turn, with the generation prompt, and with the turn: what the turn adds is what the model has to write. That
is only true while a template never rewrites what it wrote before, so that is checked, turn by turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2

from ..contract import Reason
from ..errors import SettingsInvalid
from .formats import Message

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
TODAY = datetime(2024, 7, 26)
"""The date that templates which ask for it are told: the same rows give the same tokens on every day."""

UNLIKE = "what it writes to ask for an answer is not how it writes the answer"

PROBE: tuple[Message, ...] = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})


class Refused(Exception):
    """The template refuses this conversation (roles that must alternate, no system turn, ...)."""


@dataclass(frozen=True)
class Rendered:
    """Text to tokenise, and the spans (start, end) of characters that are learned.

    `whole` text has its special tokens already; `marked` spans come from `{% generation %}`.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    whole: bool
    marked: bool = False


class ChatTemplate:
    """A compiled chat template; templates are run in transformers' sandbox."""

    def __init__(self, source: str, special_tokens: dict[str, str]) -> None:
        """Compile a template and try it.

        Raises:
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        from transformers.utils import chat_template_utils

        self._special_tokens = special_tokens
        self._marked = bool(GENERATION.search(source))
        try:
            self._template: Any = chat_template_utils._compile_jinja_template(source)
        except jinja2.TemplateError as error:
            raise invalid(f"it does not compile: {error}") from error
        self._template.globals["strftime_now"] = TODAY.strftime
        try:
            rendered = self.render(PROBE)
        except Refused as error:
            raise invalid(f"it fails on a question and an answer: {error}") from error
        if not any("Answer" in rendered.text[start:end] for start, end in rendered.spans):
            raise invalid("it leaves out what the assistant says")

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return the text of a conversation up to its last assistant turn.

        Raises:
            Refused: the template refuses this conversation.
            SettingsInvalid: CHAT_TEMPLATE_INVALID, the template rewrites earlier turns.
        """
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        messages = list(messages[: last + 1])
        if self._marked:
            return self._render_marked(messages)
        text, spans = self._render(messages), []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            until = self._render(messages[: index + 1])
            start = self._start(messages[: index + 1], until)
            if not text.startswith(until):
                raise invalid(
                    "it writes earlier turns differently once others follow them, so what is learned would differ "
                    "from what is asked; use single-turn rows, or a template with {% generation %}"
                )
            spans.append((start, len(until)))
        return Rendered(text, tuple(spans), whole=True)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text that asks for the last assistant turn, as it is sent to an engine; empty if none precedes it.

        Raises:
            Refused: the template refuses this conversation.
        """
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        return self._render(list(messages[:last]), add_generation_prompt=True) if last else ""

    def _start(self, messages: list[Message], text: str) -> int:
        """Return where the last turn's own characters begin: behind the generation prompt."""
        *before, turn = messages
        if before:
            prompt = self._render(before, add_generation_prompt=True)
            if text.startswith(prompt):
                return len(prompt)
            raise invalid(f"{UNLIKE}; use a template whose generation prompt matches, or one with {{% generation %}}")
        # A conversation that the assistant opens has no prompt: two answers differ where the answer begins.
        other = self._render([{**turn, "content": "\x00" + turn["content"]}])
        return next((index for index, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1]), 0)

    def _render_marked(self, messages: list[Message]) -> Rendered:
        blocks: list[str] = []
        spans: list[tuple[int, int]] = []
        try:
            with self._template.environment.activate_tracker(blocks, spans):
                for block in self._template.generate(messages=messages, **self._variables(False)):
                    blocks.append(block)
        except _FAILURES as error:
            raise Refused(str(error)) from error
        return Rendered("".join(blocks), tuple(spans), whole=True, marked=True)

    def _render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        try:
            return str(self._template.render(messages=messages, **self._variables(add_generation_prompt)))
        except _FAILURES as error:
            raise Refused(str(error)) from error

    def _variables(self, add_generation_prompt: bool) -> dict[str, Any]:
        return {
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
            **self._special_tokens,
        }


_FAILURES = (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError)


def invalid(trouble: str) -> SettingsInvalid:
    """Return the refusal of a chat template that cannot be used."""
    return SettingsInvalid(f"the base model's chat template cannot be used: {trouble}", Reason.CHAT_TEMPLATE_INVALID)
