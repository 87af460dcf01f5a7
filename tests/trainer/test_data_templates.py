"""The chat templates of real models: each conversation is taken or refused by name, and learned as TRL marks it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template
from trimtab_trainer.contract import DatasetFormat
from trimtab_trainer.data.encoding import jinja
from trimtab_trainer.data.encoding.jinja import Refused, shaped
from trimtab_trainer.data.encoding.template import ChatTemplate, Rendered
from trimtab_trainer.data.encoding.tokens import RowTokenizer
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.data.reading.messages import Message

from tests.trainer.real_templates import SPECIAL_TOKENS, make_model, names, oracle, oracle_source, source

DOCUMENT = Path(__file__).parents[2] / "docs/chat-templates.md"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "shelf_of",
        "description": "Tell the shelf.",
        "parameters": {"type": "object", "properties": {"part": {"type": "integer"}}, "required": ["part"]},
    },
}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str, thought: str | None = None) -> Message:
    return {"role": "assistant", "content": text, **({"reasoning_content": thought} if thought else {})}


def call(part: int) -> Message:
    function = {"name": "shelf_of", "arguments": {"part": part}}
    return {**answer(""), "tool_calls": [{"type": "function", "id": "abcdefgh1", "function": function}]}


RESULT: Message = {"role": "tool", "content": "shelf 4", "tool_call_id": "abcdefgh1", "name": "shelf_of"}
CONVERSATIONS: dict[str, tuple[tuple[Message, ...], list[Any] | None]] = {
    "one turn": ((user("Which?"), answer("Four.")), None),
    "many turns": (
        (user("Which?"), answer("Four."), user("Box?"), answer("Nine."), user("Row?"), answer("Six.")),
        None,
    ),
    "system": (({"role": "system", "content": "Be short."}, user("Which?"), answer("Four.")), None),
    "tools": ((user("Where?"), call(7), RESULT, answer("On shelf four.")), [TOOL]),
    "calls without a list of tools": ((user("Where?"), call(7), RESULT, answer("On shelf four.")), None),
    "thinking": ((user("Which?"), answer("Four.", "It is odd.")), None),
    "thinking in many turns": (
        (user("Which?"), answer("Four.", "It is odd."), user("Box?"), answer("Nine.", "It is even.")),
        None,
    ),
}
PLAIN = ("one turn", "many turns", "system")

TURN_OPENED, EMPTY, ASKED_TO_THINK = "<|start|>assistant", "<think>\n\n</think>\n\n", "<think>\n"
ADDED: dict[str, tuple[str, ...]] = {
    # What asks for an answer, which no model has to write
    "deepseek_r1_distill": ("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"),
    "deepseekv3": ("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"),
    "gptoss": (TURN_OPENED,),
    "muse_glimmer": (TURN_OPENED,),
    "qwen2_5": ("\n",),
    # A block of thoughts that the template adds where there are none, and the tag with which it asks for thoughts
    "glm4moe": ("\n<think></think>\n",),
    **dict.fromkeys(
        ("nemotron_3_5_lightning", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"),
        ("<think></think>", ASKED_TO_THINK, "\n"),
    ),
    **dict.fromkeys(("qwen3", "qwen3_5_nothink"), (EMPTY,)),
    **dict.fromkeys(("qwen3_5_think", "qwen3_6", "qwen3_8"), (EMPTY, ASKED_TO_THINK)),
}
"""What the oracle learns beside the answer, at its beginning; docs/chat-templates.md has the same in words."""

MARKED_APART = ("diffusion_gemma", "phi3", "phi3_5")
"""Of which the oracle marks thoughts, answer and end apart, without the line ends between them."""

OTHERWISE = {
    # The oracle marks no end of a call; and what asks for the answer after a result does not open the turn.
    ("diffusion_gemma", "tools"): [
        "<|tool_call>call:shelf_of{part:7}<tool_call|><|tool_response>",
        "<|turn>model\nOn shelf four.<turn|>",
    ],
}
OTHERWISE[("diffusion_gemma", "calls without a list of tools")] = OTHERWISE[("diffusion_gemma", "tools")]

ENDS = {**dict.fromkeys((f"gemma4{v}" for v in ("", "_v2", "_v3", "_v4", "_v5")), "<turn|>"), "llama3_1": "<|eot_id|>"}
ENDS["llama3_2"] = "<|eot_id|>"
"""Of templates that TRL has no training variant of."""


def template(name: str) -> ChatTemplate:
    return ChatTemplate(source(name), SPECIAL_TOKENS)


def learned(sequences: list[Rendered]) -> list[str]:
    return [each.text[start:end].rstrip() for each in sequences for start, end in each.spans]


def less_what_is_added(name: str, span: str) -> str:
    for prefix in ADDED.get(name, ()):
        span = span.removeprefix(prefix)
    return span.rstrip()


def marked_turns(name: str, messages: tuple[Message, ...], tools: list[Any] | None, *, parted: bool) -> list[str]:
    """Return what the oracle marks of each turn, less what it adds; of each as the last one if they are `parted`."""
    if not parted:
        return [less_what_is_added(name, span) for span in oracle(name, messages, tools)[1]]
    ends = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    earlier = {number: len(oracle(name, messages[:number], tools)[1]) if number > 1 else 0 for number in ends}
    return [
        less_what_is_added(name, "".join(oracle(name, messages[: number + 1], tools)[1][earlier[number] :]))
        for number in ends
    ]


def test_all_templates_are_there() -> None:
    assert len(names()) >= 41


@pytest.mark.parametrize("name", names())
def test_plain_conversations_are_taken_by_every_template_that_has_their_roles(name: str) -> None:
    for conversation in PLAIN:
        messages, _ = CONVERSATIONS[conversation]
        if (name, conversation) == ("gemma", "system"):
            with pytest.raises(Refused, match="System role not supported"):
                template(name).sequences(messages)
            continue
        (rendered,) = template(name).sequences(messages)
        answers = [each["content"] for each in messages if each["role"] == "assistant"]
        assert len(rendered.spans) == len(answers)
        for said, text in zip(answers, learned([rendered]), strict=True):
            assert said in text
            assert not text.endswith(said), "its end is learned too"
            assert "think" not in text


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [name for name in names() if oracle_source(name) is not None])
def test_what_is_learned_is_what_the_oracle_marks(name: str, conversation: str) -> None:
    messages, tools = CONVERSATIONS[conversation]
    try:
        sequences = template(name).sequences(messages, tools)
    except Refused as error:
        assert_the_oracle_does_no_better(name, conversation, str(error))
        return
    want = OTHERWISE.get((name, conversation)) or marked_turns(name, messages, tools, parted=len(sequences) > 1)
    if name in MARKED_APART:
        assert "".join(learned(sequences)).replace("\n", "") == "".join(want).replace("\n", "")
    else:
        assert learned(sequences) == want


def assert_the_oracle_does_no_better(name: str, conversation: str, error: str) -> None:
    """What is refused because a template leaves it out is left out by the oracle without a word."""
    messages, tools = CONVERSATIONS[conversation]
    if "leaves out" not in error:
        with pytest.raises((jinja2.TemplateError, TypeError, KeyError)):
            oracle(name, messages, tools)
        return
    text, _ = oracle(name, messages, None if "tool_calls" in error else tools)
    missing = {"reasoning_content": "It is", "tools": "Tell the shelf", "tool_calls": "shelf_of", "content": "shelf 4"}
    assert any(key in error and word not in text for key, word in missing.items()), (error, text)


@pytest.mark.parametrize("name", ENDS)
def test_templates_without_an_oracle_are_learned_to_their_end(name: str) -> None:
    for conversation in PLAIN:
        messages, _ = CONVERSATIONS[conversation]
        answers = [each["content"] + ENDS[name] for each in messages if each["role"] == "assistant"]
        assert learned(template(name).sequences(messages)) == answers


@pytest.mark.parametrize("name", names())
def test_the_table_of_the_documents_says_what_is_taken(name: str) -> None:
    def sequences(conversation: str) -> int:
        try:
            return len(template(name).sequences(*CONVERSATIONS[conversation]))
        except Refused:
            return 0

    line = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    tools, thoughts = (cell.strip() for cell in line.split("|")[2:4])
    calls = "calls alone" if sequences("calls without a list of tools") else "no"
    assert tools == ("yes" if sequences("tools") else calls)
    assert thoughts == ("no", "yes", "one sequence a turn")[sequences("thinking in many turns")]


# In tokens


@pytest.mark.parametrize("name", names())
def test_the_prompt_is_the_one_that_an_engine_renders_and_the_tokens_are_exact(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jinja, "TODAY", datetime.now())
    folder = make_model(tmp_path / "model", name)
    tokenizer, engine = RowTokenizer(folder), PreTrainedTokenizerFast.from_pretrained(str(folder))
    compared = 0
    for messages, tools in CONVERSATIONS.values():
        row = Row("a.jsonl line 1", DatasetFormat.MESSAGES, messages, tuple(tools) if tools else None)
        assert tokenizer._template is not None
        try:
            sequences = tokenizer._template.sequences(messages, tools)
        except Refused:  # which conversations are is said above; two at least are none
            continue
        (prompt,) = tokenizer.tokenise_prompts([row])
        shape = tokenizer._template.shape(messages[:-1], tools)
        asked, _ = render_jinja_template(
            conversations=[shaped(messages[:-1], shape)],
            tools=tools,
            chat_template=engine.chat_template,
            add_generation_prompt=True,
            **engine.special_tokens_map,
        )
        assert prompt.tolist() == engine(asked[0], add_special_tokens=False)["input_ids"]
        for tokenised, rendered in zip(tokenizer.tokenise([row]), sequences, strict=True):
            text = engine.decode(tokenised.tokens[tokenised.supervised].tolist(), skip_special_tokens=False)
            assert text == "".join(rendered.text[start:end].rstrip() for start, end in rendered.spans)
        compared += 1
    assert compared >= 2
