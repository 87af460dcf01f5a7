"""What tools answered, in rows that bring the tags with them which a template writes around it.

Data in Hermes' format have them in the turn itself, and several answers in one turn. A template of the same format
writes them too, so that a model would learn to read them twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..reading.messages import Message

OPENING = "<tool_response>"
_RESULT = re.compile(rf"\s*{OPENING}\s*(.*?)\s*</tool_response>\s*", re.DOTALL)


def unwrapped(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation with what tools answered without these tags, each answer as a message of its own."""
    return tuple(each for message in messages for each in _apart(message))


def _apart(message: Message) -> Iterator[Message]:
    found = list(_RESULT.finditer(message["content"])) if message["role"] == "tool" else []
    if not found or "".join(each.group() for each in found) != message["content"]:
        yield message  # text beside the tags is somebody's own
        return
    for each in found:
        yield {**message, "content": each.group(1)}
