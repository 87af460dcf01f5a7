"""Control tokens in what people wrote: taken for text, whatever the tokenizer would make of them.

Otherwise a text could end a turn or forge one. A `BREAK` within a control token, put there before a template is
rendered, tells the template's own from those that somebody wrote. To encode a text that has such ones, the template's
own are replaced by a character of the private use area, as often as makes the same length; a copy of the tokenizer
knows these alone as tokens, so everything else is encoded as the text it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from ..reading.messages import Message
from .marks import BREAK, THOUGHTS, texts

FIRST_ALIAS = 0x100000
_ALIAS = re.compile("[\U00100000-\U0010ffff]")


class Held(IntEnum):
    """Where what somebody wrote holds control tokens."""

    NOWHERE = 0
    TEXTS = 1
    NAMES = 2
    """In names of arguments, maybe in texts too."""


class ControlTokens:
    """The control tokens of a tokenizer."""

    def __init__(self, backend: Tokenizer, tokens: Mapping[str, int]) -> None:
        """Take a tokenizer and its control tokens: contents and ids. Tags around thoughts are not among them."""
        self._backend, self.tokens = backend, {text: number for text, number in tokens.items() if text}
        guarded = sorted((text for text in self.tokens if not THOUGHTS.fullmatch(text)), key=len, reverse=True)
        self._guarded = re.compile("|".join(map(re.escape, guarded)) or r"(?!)")
        every = sorted(self.tokens, key=len, reverse=True)
        self._every = re.compile("|".join(map(re.escape, every)) or r"(?!)")
        self._aliases = {text: chr(FIRST_ALIAS + number) * len(text) for number, text in enumerate(every)}
        self._plain: Tokenizer | None = None
        self._own = self._ids = np.zeros(0, np.int32)

    def guard(
        self, messages: Sequence[Message], tools: Sequence[Any] | None
    ) -> tuple[list[Message], list[Any] | None, Held]:
        """Return a conversation in which no text holds a control token, and where one did."""
        found = Held.NOWHERE

        def broken(text: str, where: Held = Held.TEXTS) -> str:
            nonlocal found
            guarded = self._guarded.sub(lambda token: token.group()[0] + BREAK + token.group()[1:], text)
            if guarded != text:
                found = max(found, where)
            return guarded

        names = partial(broken, where=Held.NAMES)  # people write these too
        guarded = [texts(message, broken, keys=names) | {"role": message["role"]} for message in messages]
        kept = None if tools is None else [texts(tool, broken, keys=names) for tool in tools]
        return guarded, kept, found

    def encode(self, text: str) -> tuple[npt.NDArray[np.int32], list[tuple[int, int]]]:
        """Return ids and extents of a text with breaks; extents count without these.

        Raises:
            ValueError: it cannot be encoded without making a control token of a text.
        """
        if _ALIAS.search(text):
            raise ValueError("beside a control token it holds characters of the last private use area")
        plain = self._every.sub(lambda token: self._aliases[token.group()], text).replace(BREAK, "")
        encoding = self._copy().encode(plain, add_special_tokens=False)
        ids = self._ids[np.array(encoding.ids, np.int64)]
        alias = np.isin(encoding.ids, self._own)
        if np.isin(ids[~alias], list(self.tokens.values())).any():
            raise ValueError("it holds a control token that the tokenizer cannot take for text")
        return ids, encoding.offsets

    def _copy(self) -> Tokenizer:
        if self._plain is None:
            self._plain = Tokenizer.from_str(self._backend.to_str())
            self._plain.encode_special_tokens = True
            kinds = self._backend.get_added_tokens_decoder()
            for text, alias in self._aliases.items():
                kind = kinds.get(self.tokens[text])
                around = {"lstrip": kind.lstrip, "rstrip": kind.rstrip, "single_word": kind.single_word} if kind else {}
                self._plain.add_tokens([AddedToken(alias, normalized=False, **around)])
            self._own = np.array([self._plain.token_to_id(alias) for alias in self._aliases.values()], np.int32)
            self._ids = np.arange(max(self._plain.get_vocab().values()) + 1, dtype=np.int32)
            self._ids[self._own] = [self.tokens[text] for text in self._aliases]
        return self._plain
