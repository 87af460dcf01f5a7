"""A compiled chat template, run in transformers' sandbox, and the shapes in which templates want what they are given.

Templates differ in what they take for the same conversation: contents as text or as lists of parts, nothing or an empty
text beside tool calls, arguments as an object or as JSON. An engine finds that out, so it is found out here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2

from ...contract import Reason
from ...errors import SettingsInvalid

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
TODAY = datetime(2024, 7, 26)
"""The date that templates which ask for it are told: the same rows give the same tokens on every day."""

_FAILURES = (
    *(jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError),
)
"""With which an expression of a template ends."""


class Refused(Exception):
    """The template refuses this conversation (roles that must alternate, no system turn, ...)."""


@dataclass(frozen=True)
class Shape:
    """How a conversation is handed to a template."""

    parts: bool = False
    nothing: bool = False
    json_arguments: bool = False


SHAPES = tuple(
    Shape(parts, nothing, json_arguments)
    for parts in (False, True)
    for json_arguments in (False, True)
    for nothing in (False, True)
)


class Jinja:
    """A compiled template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile it.

        Raises:
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        from transformers.utils import chat_template_utils

        if not isinstance(source, str):
            raise invalid(f"it is no text but a {type(source).__name__}")
        self.marked = bool(GENERATION.search(source))
        self._special_tokens = special_tokens
        try:
            self._template: Any = chat_template_utils._compile_jinja_template(source)
        except (jinja2.TemplateError, SyntaxError, RecursionError, ValueError) as error:
            # Jinja's translation is compiled by Python, which bears fewer levels.
            raise invalid(f"it does not compile: {error}") from error
        self._template.globals["strftime_now"] = TODAY.strftime

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, shape: Shape, *, ask: bool = False
    ) -> str:
        """Return the text of a conversation; `ask` adds what asks for the next answer.

        Raises:
            Refused
        """
        try:
            return str(self._template.render(messages=shaped(messages, shape), **self._variables(tools, ask)))
        except _FAILURES as error:
            raise _failed(error) from error

    def generated(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, shape: Shape
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation, and where the template's `{% generation %}` blocks are in it.

        Raises:
            Refused
        """
        blocks: list[str] = []
        spans: list[tuple[int, int]] = []
        try:
            with self._template.environment.activate_tracker(blocks, spans):
                for block in self._template.generate(
                    messages=shaped(messages, shape), **self._variables(tools, ask=False)
                ):
                    blocks.append(block)
        except _FAILURES as error:
            raise _failed(error) from error
        return "".join(blocks), spans

    def _variables(self, tools: Sequence[Any] | None, ask: bool) -> dict[str, Any]:
        return {"add_generation_prompt": ask, "tools": tools, "documents": None, **self._special_tokens}


def shapes_of(messages: Sequence[Mapping[str, Any]]) -> tuple[Shape, ...]:
    """Return the shapes that differ for a conversation."""
    calls = any("tool_calls" in message for message in messages)
    blank = any("tool_calls" in message and not message["content"] for message in messages)
    return tuple(shape for shape in SHAPES if (calls or not shape.json_arguments) and (blank or not shape.nothing))


def shaped(messages: Sequence[Mapping[str, Any]], shape: Shape) -> list[dict[str, Any]]:
    """Return canonical messages as a template wants them.

    Thoughts are given under each name that templates know them by.
    """
    result = []
    for message in messages:
        each = {key: value for key, value in message.items() if key != "weight"}
        if "reasoning_content" in each:
            each |= {"reasoning": each["reasoning_content"], "thinking": each["reasoning_content"]}
        if "tool_calls" in each:
            if shape.nothing and not each["content"]:
                each["content"] = None
            if shape.json_arguments:
                each["tool_calls"] = [_json_arguments(call) for call in each["tool_calls"]]
        if shape.parts and each["content"] is not None:
            each["content"] = [{"type": "text", "text": each["content"]}]
        result.append(each)
    return result


def _failed(error: Exception) -> Refused:
    return Refused(str(error) or type(error).__name__)


def _json_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def invalid(trouble: str) -> SettingsInvalid:
    """Return the refusal of a chat template that cannot be used."""
    return SettingsInvalid(f"the base model's chat template cannot be used: {trouble}", Reason.CHAT_TEMPLATE_INVALID)
