"""The prompt of a row is the one that an engine gives its model for the same request: token for token, for the chat
templates of real models."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from tokenizers import Tokenizer
from trimtab_trainer.data.encoding.jinja import Refused as RowRefused
from trimtab_trainer.data.encoding.template import ChatTemplate
from trimtab_trainer.data.reading.messages import Message

from tests.rendering.conftest import Engine, Refused
from tests.trainer.real_templates import SPECIAL_TOKENS, names, source
from tests.trainer.test_data_templates import CONVERSATIONS

PARTS = (
    "the engine takes the template for one that wants lists of parts (`--chat-template-content-format auto`), and the "
    "template joins them otherwise"
)
CALLS = "the engine gives arguments as an object and an empty text beside calls, which the template does not render"
DIFFERENT = {
    ("deepseek_r1_distill", "calls without a list of tools"): CALLS,
    ("deepseekv3", "calls without a list of tools"): CALLS,
    **{
        (name, "system"): PARTS
        for name in ("diffusion_gemma", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5")
    },
}
"""Template and conversation of which row and engine differ, and why; docs/chat-templates.md tells it."""

DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d [A-Z][a-z]{2} \d{4}")
"""Rows are told the same date every day."""


def asked(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return what comes before the last answer, as a client sends it."""
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    sent = copy.deepcopy(list(messages[:last]))
    for message in sent:
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content")
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
            message["content"] = message["content"] or None
    return sent


@pytest.mark.parametrize("name", names())
def test_an_engine_asks_as_rows_were_learned(engine: Engine, name: str) -> None:
    tokenizer = Tokenizer.from_file(str(engine.model / "tokenizer.json"))
    template, found = ChatTemplate(source(name), SPECIAL_TOKENS), dict[str, str]()
    alike = 0
    for conversation, (messages, tools) in CONVERSATIONS.items():
        try:
            template.render(messages, tools)
        except RowRefused:  # such a row is not learned
            continue
        ours = template.prompt(messages, tools)
        try:
            theirs = engine.prompt(source(name), asked(messages), tools)
        except Refused as error:
            found[conversation] = str(error)
            continue
        text = tokenizer.decode(theirs, skip_special_tokens=False)
        dated = "strftime_now" in source(name)
        if (
            DATE.sub("", text) != DATE.sub("", ours)
            if dated
            else theirs != tokenizer.encode(ours, add_special_tokens=False).ids
        ):
            found[conversation] = f"{text!r}\n    is not\n{ours!r}"
        else:
            alike += 1
    known = {conversation for template, conversation in DIFFERENT if template == name}
    assert found.keys() == known, "\n".join(f"{conversation}: {words}" for conversation, words in found.items())
    assert alike
