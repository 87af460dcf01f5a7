"""Rows become token ids and a mask of what is learned, exact to the token.

The whole text is tokenised once and the characters' spans are mapped to tokens by their offsets: tokenising prompt and
answer apart would give other tokens at the seam than the model sees when it is asked.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contract import DatasetFormat, Reason
from ..errors import DataInvalid, SettingsInvalid
from .formats import Message, Row
from .template import UNLIKE, ChatTemplate, Refused, Rendered, invalid

BATCH_ROWS = 256

Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]
Extents = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Tokenised:
    """A row's tokens int32[n] and which of them are learned bool[n].

    `control` tells that the text of a turn holds a control token, such as the end of a turn, which becomes one.
    """

    row: Row
    tokens: Int32
    supervised: Bool
    control: bool = False


class RowTokenizer:
    """The base model's tokenizer and chat template, without torch."""

    def __init__(self, folder: Path) -> None:
        """Load tokenizer.json, tokenizer_config.json and the template from a folder.

        Raises:
            SettingsInvalid: BASE_MODEL_INVALID or CHAT_TEMPLATE_INVALID.
        """
        tokenizer = load_tokenizer(folder)
        self.size = len(tokenizer)
        if tokenizer.eos_token_id is None:
            raise SettingsInvalid(
                "the base model's tokenizer names no eos_token, so no answer would ever end; set it in "
                "tokenizer_config.json",
                Reason.BASE_MODEL_INVALID,
            )
        self._eos = int(tokenizer.eos_token_id)
        self._bos = tokenizer.bos_token_id
        added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special = added | set(tokenizer.all_special_ids)
        self._special = np.zeros(max(self.size, *special) + 1, np.bool_)
        self._special[list(special)] = True
        control = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        control.update(tokenizer.all_special_tokens)
        self._control = re.compile("|".join(map(re.escape, sorted(filter(None, control)))))
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        source = tokenizer.chat_template
        if isinstance(source, dict):
            source = source.get("default")
        self._template = ChatTemplate(source, dict(tokenizer.special_tokens_map)) if source else None

    @property
    def has_template(self) -> bool:
        """Tell whether a chat template keeps prompt and answer apart."""
        return self._template is not None

    def tokenise(self, rows: Iterable[Row]) -> Iterator[Tokenised]:
        """Yield each row with its tokens and mask, in order.

        Raises:
            DataInvalid: the template refuses a row, which is named.
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        stream = iter(rows)
        while batch := list(islice(stream, BATCH_ROWS)):
            rendered = [self._render(row) for row in batch]
            encoded = self._encode(rendered)
            for row, text, encoding in zip(batch, rendered, encoded, strict=True):
                yield Tokenised(row, *self._mask(text, encoding), text.whole and self._holds_control(row))

    def tokenise_answers(self, rows: Iterable[Row]) -> Iterator[Tokenised]:
        """Yield each row with the tokens that `tokenise` gives it, and a mask of its last answer alone.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`; and CHAT_TEMPLATE_INVALID if the template writes an answer
                otherwise than it asks for it.
        """
        stream = iter(rows)
        while batch := list(islice(stream, BATCH_ROWS)):
            rendered = [self._last_answer(row) for row in batch]
            for row, text, encoding in zip(batch, rendered, self._encode(rendered), strict=True):
                yield Tokenised(row, *self._mask(text, encoding))

    def tokenise_prompts(self, rows: Iterable[Row]) -> Iterator[Int32]:
        """Yield what is before each row's last answer, int32[n], as an engine is asked: with the generation prompt.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`.
        """
        stream = iter(rows)
        while batch := list(islice(stream, BATCH_ROWS)):
            for encoding in self._encode([self._prompt(row) for row in batch]):
                tokens = np.array(encoding.ids, np.int32)
                added = np.array(encoding.special_tokens_mask, np.bool_)
                stop = len(tokens)
                # Some tokenizers end every text with an end-of-text token, behind which nothing is answered.
                while stop > 1 and added[stop - 1] and tokens[stop - 1] == self._eos:
                    stop -= 1
                yield self._single_beginning(tokens[:stop], np.zeros(stop, np.bool_))[0]

    def _holds_control(self, row: Row) -> bool:
        return any(self._control.search(message["content"]) for message in _conversation(row))

    def _encode(self, rendered: list[Rendered]) -> list[Any]:
        encodings: list[Any] = [None] * len(rendered)
        for whole in (True, False):
            chosen = [index for index, text in enumerate(rendered) if text.whole is whole]
            texts = [rendered[index].text for index in chosen]
            # A template writes its own special tokens; a second beginning-of-text token would be one too many.
            for index, encoding in zip(
                chosen, self._backend.encode_batch(texts, add_special_tokens=not whole), strict=True
            ):
                encodings[index] = encoding
        return encodings

    def _render(self, row: Row) -> Rendered:
        if row.format is DatasetFormat.TEXT:
            return Rendered(row.text, ((0, len(row.text)),), whole=False)
        if row.format is DatasetFormat.PROMPT_COMPLETION and self._template is None:
            text = row.prompt + row.completion
            return Rendered(text, ((len(row.prompt), len(text)),), whole=False)
        try:
            return self._chat_template().render(_conversation(row))
        except Refused as error:
            raise _refused(row, error) from error

    def _prompt(self, row: Row) -> Rendered:
        if row.format is DatasetFormat.PROMPT_COMPLETION and self._template is None:
            return Rendered(row.prompt, (), whole=False)
        try:
            return Rendered(self._chat_template().prompt(_conversation(row)), (), whole=True)
        except Refused as error:
            raise _refused(row, error) from error

    def _last_answer(self, row: Row) -> Rendered:
        rendered, prompt = self._render(row), self._prompt(row).text
        if not rendered.text.startswith(prompt):
            raise invalid(f"{UNLIKE}; use a template whose generation prompt matches")
        begin = len(prompt) if prompt or not rendered.whole else rendered.spans[-1][0]
        return replace(rendered, spans=tuple((max(begin, start), end) for start, end in rendered.spans if end > begin))

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            raise SettingsInvalid(
                "the base model has no chat template, which Messages data needs; add chat_template to its "
                "tokenizer_config.json, or write the data as prompt and completion",
                Reason.CHAT_TEMPLATE_INVALID,
            )
        return self._template

    def _mask(self, rendered: Rendered, encoding: Any) -> tuple[Int32, Bool]:
        tokens = np.array(encoding.ids, np.int32)
        starts, ends = _extents(encoding.offsets)
        special = self._special[tokens]
        supervised = np.zeros(len(tokens), np.bool_)
        for start, end in rendered.spans:
            covered = np.flatnonzero((ends > start) & (starts < end))
            if len(covered):
                first, last = int(covered[0]), int(covered[-1])
                supervised[first : self._turn_end(rendered, (starts, ends), special, first, last)] = True
        tokens, supervised = self._single_beginning(tokens, supervised)
        return self._ended(tokens, supervised)

    def _turn_end(self, rendered: Rendered, extents: Extents, special: Bool, first: int, last: int) -> int:
        """Return the index behind a turn's last learned token: its end-of-turn token, not the blanks behind that."""
        if not rendered.whole:
            return last + 1
        starts, ends = extents
        stop = last
        while stop > first and not special[stop] and not rendered.text[starts[stop] : ends[stop]].strip():
            stop -= 1
        # A {% generation %} block may close before the end-of-turn token.
        if rendered.marked and not special[stop] and last + 1 < len(special) and special[last + 1]:
            return last + 2
        return stop + 1

    def _single_beginning(self, tokens: Int32, supervised: Bool) -> tuple[Int32, Bool]:
        if self._bos is not None and len(tokens) > 1 and tokens[0] == self._bos and tokens[1] == self._bos:
            return tokens[1:], supervised[1:]
        return tokens, supervised

    def _ended(self, tokens: Int32, supervised: Bool) -> tuple[Int32, Bool]:
        """Make the last supervised token one that ends the answer, else a model never learns to stop."""
        learned = np.flatnonzero(supervised)
        if not len(learned) or self._special[tokens[learned[-1]]]:
            return tokens, supervised
        stop = int(learned[-1]) + 1
        return (
            np.append(tokens[:stop], np.int32(self._eos)),
            np.append(supervised[:stop], np.True_),
        )


def _conversation(row: Row) -> tuple[Message, ...]:
    return row.messages or (
        {"role": "user", "content": row.prompt},
        {"role": "assistant", "content": row.completion},
    )


def _refused(row: Row, error: Refused) -> DataInvalid:
    return DataInvalid(f"{row.place}: the chat template refuses it: {error}; correct or remove it")


def load_tokenizer(folder: Path) -> Any:
    """Return a `PreTrainedTokenizerFast`; transformers' automatic class would import torch (3 s, 500 MiB).

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise _unreadable(error) from error
    except Exception as error:
        # tokenizers raises bare Exception for a tokenizer.json that it cannot read
        if type(error) is Exception:
            raise _unreadable(error) from error
        raise


def _unreadable(error: Exception) -> SettingsInvalid:
    text = str(error).split("\n", 1)[0][:300]
    return SettingsInvalid(f"the base model's tokenizer cannot be read: {text}", Reason.BASE_MODEL_INVALID)


def _extents(offsets: list[tuple[int, int]]) -> Extents:
    """Return where each token starts and ends in the text; tokens that were trimmed to nothing get their blanks back.

    Byte-level tokenizers report a token of blanks as empty, and the bytes of one character as the same extent.
    """
    table = np.array(offsets, np.int64).reshape(-1, 2)
    starts, ends = table[:, 0].copy(), table[:, 1]
    empty = starts == ends
    before = np.concatenate(([0], np.maximum.accumulate(ends)[:-1])) if len(ends) else starts
    starts[empty] = np.minimum(before, starts)[empty]
    return starts, ends
