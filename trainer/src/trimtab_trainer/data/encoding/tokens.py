"""Rows become token ids and a mask of what is learned, exact to the token.

The whole text is tokenised once and the characters' spans are mapped to tokens by their offsets: tokenising prompt and
answer apart would give other tokens at the seam than the model sees when it is asked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...contract import DatasetFormat, Reason
from ...errors import DataInvalid, SettingsInvalid
from ..reading.formats import Row
from ..reading.messages import Message
from .control import ControlTokens, Held
from .jinja import Refused
from .marks import BREAK
from .template import ChatTemplate, Kind, LeftOut, Rendered, Span

BATCH_ROWS = 256
BATCH_CHARACTERS = 1 << 20
"""Of texts that are encoded together, if not one alone has more: an encoding takes some 400 bytes a token."""
GENERATION_CONFIG = "generation_config.json"
OF_PROCESSOR = "chat_template.json"
"""Where models that also take images have their chat template."""

Int32 = npt.NDArray[np.int32]
Bool = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.uint8]
Extents = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Encoded:
    """Tokens int32[n] of a text, where each is in it, and which were added around it bool[n]."""

    tokens: Int32
    extents: Extents
    added: Bool


@dataclass(frozen=True)
class Tokenised:
    """A sequence: tokens int32[n] and of each its `Kind` uint8[n].

    Attributes:
        row: where it comes from; several sequences may come of one row.
        first: it is the first of its row.
        control: where the conversation holds a control token, such as the end of a turn, which was taken for text.
        asked: what is before the last answer is the very text that asks for it.
    """

    row: Row
    tokens: Int32
    kinds: Kinds
    first: bool = True
    control: Held = Held.NOWHERE
    asked: bool = False

    @property
    def supervised(self) -> Bool:
        """Which of the tokens are learned bool[n]."""
        return is_learned(self.kinds)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a tokenizer.

    Attributes:
        size: how many there are.
        written: control tokens that a conversation is written with, its end of a turn among them; ids by contents.
        spare: ids of the other control tokens.
    """

    size: int
    written: dict[str, int]
    spare: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {"size": self.size, "written": self.written, "spare": list(self.spare)}

    @classmethod
    def of(cls, value: dict[str, Any]) -> Vocabulary:
        """Return what `to_json` wrote."""
        return cls(value["size"], value["written"], tuple(value["spare"]))


class RowsRefused(DataInvalid):
    """The chat template refuses so many rows; `first` is what is said of the first of them."""

    def __init__(self, first: str, reason: Reason | None = None, count: int = 1) -> None:
        super().__init__(first + (f" (as {count - 1} more rows are)" if count > 1 else ""), reason)
        self.first, self.count = first, count


class RowTokenizer:
    """The base model's tokenizer and chat template, without torch."""

    def __init__(self, folder: Path, template: str | None = None) -> None:
        """Load tokenizer.json, tokenizer_config.json and the template from a folder.

        Args:
            folder: of the base model; its generation_config.json tells which tokens end an answer for an engine.
            template: the chat template to use instead of the base model's.

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
        control = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        control |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self._special = np.zeros(max(self.size, *control.values()) + 1, np.bool_)
        self._special[list(control.values())] = True
        self._backend: Any = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._asks_alike = False
        self._control = ControlTokens(self._backend, control)
        source = template if template is not None else tokenizer.chat_template or _of_processor(folder)
        if isinstance(source, dict):
            source = source.get("default")
        stops = frozenset(tokenizer.convert_ids_to_tokens(sorted(_ends(folder) | {self._eos})))
        self._template = ChatTemplate(source, dict(tokenizer.special_tokens_map), stops) if source else None

    @property
    def has_template(self) -> bool:
        """Tell whether a chat template keeps prompt and answer apart."""
        return self._template is not None

    def vocabulary(self) -> Vocabulary:
        """Return what there is to know of the tokens that conversations are written with."""
        row = Row("probe", DatasetFormat.PROMPT_COMPLETION, prompt="Question", completion="Answer")
        (probe,) = self.tokenise([row])
        used = set(map(int, probe.tokens[self._special[probe.tokens]]))
        control = self._control.tokens
        return Vocabulary(
            size=self.size,
            written={text: number for text, number in control.items() if number in used},
            spare=tuple(sorted(set(control.values()) - used)),
        )

    def largest_tokens(self) -> tuple[int, int]:
        """Return the largest id of the tokenizer's own tokens, and that of all, those that were added among them."""
        own, every = (self._backend.get_vocab(with_added_tokens=added).values() for added in (False, True))
        return max(own, default=0), max(every, default=0)

    def largest_written(self) -> int:
        """Return the largest id of the tokens that a short conversation is written with, and asked with.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`.
        """
        row = Row("probe", DatasetFormat.PROMPT_COMPLETION, prompt="Question", completion="Answer")
        (whole,), (prompt,) = self.tokenise_whole([row]), self.tokenise_prompts([row])
        return int(max(whole.tokens.max(), prompt.max()))

    def text(self, tokens: Int32, *, control: bool = True) -> str:
        """Return tokens int32[n] as text, with control tokens or as an answer is read, without."""
        written: str = self._backend.decode(tokens.tolist(), skip_special_tokens=not control)
        return written

    def tokenise(self, rows: Iterable[Row]) -> Iterator[Tokenised]:
        """Yield the sequences of each row, in order: one, or several where the template cannot keep earlier turns.

        Raises:
            RowsRefused: the template refuses rows, of which the first is named.
            SettingsInvalid: CHAT_TEMPLATE_INVALID.
        """
        refused = list[DataInvalid]()
        for batch in _batches(rows):
            rendered = list[tuple[Row, list[Rendered], Held]]()
            for row in batch:
                try:
                    rendered.append((row, *self._render(row)))
                except DataInvalid as error:
                    refused.append(error)
            if refused:
                continue  # all that are refused are counted before they are told of
            encoded = iter(self._encode([(row, text) for row, texts, _ in rendered for text in texts]))
            for row, texts, control in rendered:
                for number, text in enumerate(texts):
                    yield Tokenised(row, *self._mask(text, next(encoded)), first=not number, control=control)
        if refused:
            raise RowsRefused(refused[0].message, refused[0].reason, len(refused))

    def tokenise_whole(self, rows: Iterable[Row]) -> Iterator[Tokenised]:
        """Yield one sequence of each row, the last that `tokenise` gives: the whole conversation as it is rendered.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`.
        """
        for batch in _batches(rows):
            rendered = [self._render(row)[0][-1] for row in batch]
            for row, text, encoded in zip(
                batch, rendered, self._encode(list(zip(batch, rendered, strict=True))), strict=True
            ):
                yield Tokenised(row, *self._mask(text, encoded))

    def tokenise_answers(self, rows: Iterable[Row]) -> Iterator[Tokenised]:
        """Yield each row with the tokens that `tokenise_whole` gives it, and a mask of its last answer alone.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`.
        """
        for batch in _batches(rows):
            answers = [self._last_answer(row) for row in batch]
            encoded = self._encode([(row, text) for row, (text, _) in zip(batch, answers, strict=True)])
            for row, (text, asked), each in zip(batch, answers, encoded, strict=True):
                yield Tokenised(row, *self._mask(text, each), asked=asked)

    def tokenise_prompts(self, rows: Iterable[Row]) -> Iterator[Int32]:
        """Yield what is before each row's last answer, int32[n], as an engine is asked: with the generation prompt.

        Raises:
            DataInvalid, SettingsInvalid: as `tokenise`.
        """
        for batch in _batches(rows):
            for encoded in self._encode([(row, self._prompt(row)) for row in batch]):
                tokens, added = encoded.tokens, encoded.added
                stop = len(tokens)
                # Some tokenizers end every text with an end-of-text token, behind which nothing is answered.
                while stop > 1 and added[stop - 1] and tokens[stop - 1] == self._eos:
                    stop -= 1
                yield self._single_beginning(tokens[:stop], np.zeros(stop, np.uint8))[0]

    def _encode(self, rendered: list[tuple[Row, Rendered]]) -> list[Encoded]:
        encodings: dict[int, Encoded] = {}
        for whole in (True, False):
            chosen = [n for n, (_, text) in enumerate(rendered) if text.whole is whole and BREAK not in text.text]
            for part in _by_length(chosen, [len(rendered[index][1].text) for index in chosen]):
                texts = [rendered[index][1].text for index in part]
                # A template writes its own special tokens; a second beginning-of-text token would be one too many.
                for index, encoding in zip(
                    part, self._backend.encode_batch(texts, add_special_tokens=not whole), strict=True
                ):
                    encodings[index] = Encoded(
                        np.array(encoding.ids, np.int32),
                        _extents(encoding.offsets),
                        np.array(encoding.special_tokens_mask, np.bool_),
                    )
        for index, (row, text) in enumerate(rendered):
            if index not in encodings:
                try:
                    tokens, offsets = self._control.encode(text.text)
                except ValueError as error:
                    raise DataInvalid(f"{row.place} cannot be encoded: {error}; correct or remove it") from error
                encodings[index] = Encoded(tokens, _extents(offsets), np.zeros(len(tokens), np.bool_))
        return [encodings[index] for index in range(len(rendered))]

    def _render(self, row: Row) -> tuple[list[Rendered], Held]:
        """Return the sequences of a row, and where it holds control tokens; of preferences one an answer."""
        if row.answers:
            rendered = [self._render_answer(each) for each in row.answers]
            return [text for text, _ in rendered], max(control for _, control in rendered)
        if row.format is DatasetFormat.TEXT:
            return [Rendered(row.text, (Span(0, len(row.text), Kind.LAST),), whole=False)], Held.NOWHERE
        if row.format is DatasetFormat.PROMPT_COMPLETION and self._template is None:
            text = row.prompt + row.completion
            return [Rendered(text, (Span(len(row.prompt), len(text), Kind.LAST),), whole=False)], Held.NOWHERE
        messages, tools, control = self._control.guard(self._conversation(row), row.tools)
        try:
            return self._chat_template().sequences(messages, tools), control
        except Refused as error:
            raise _refused(row, error) from error

    def _render_answer(self, row: Row) -> tuple[Rendered, Held]:
        """Return the one sequence of a prompt and an answer to it.

        Raises:
            DataInvalid: the template leaves out an earlier turn of the answer once another follows.
        """
        texts, control = self._render(row)
        if len(texts) > 1:
            raise DataInvalid(
                f"{row.place}: the chat template leaves out part of an earlier turn of the answer once another "
                "follows, so it is not one sequence; put all but the last turn into the prompt",
                Reason.FORMAT_UNKNOWN,
            )
        return texts[0], control

    def _prompt(self, row: Row) -> Rendered:
        if row.format is DatasetFormat.PROMPT_COMPLETION and self._template is None:
            return Rendered(row.prompt, (), whole=False)
        messages, tools, _ = self._control.guard(self._conversation(row), row.tools)
        try:
            return Rendered(self._chat_template().prompt(messages, tools), (), whole=True)
        except Refused as error:
            raise _refused(row, error) from error

    def _last_answer(self, row: Row) -> tuple[Rendered, bool]:
        """Return a row with its last answer alone as what is learned, and whether just that is asked for before it."""
        if self._template is not None and not self._asks_alike:
            self._template.check_asking()
            self._asks_alike = True
        messages = tuple({key: value for key, value in each.items() if key != "weight"} for each in row.messages)
        rendered = self._render(replace(row, messages=messages))[0][-1]
        prompt = self._prompt(row).text
        asked = rendered.text.startswith(prompt)
        begin = len(prompt) if asked else 0
        turns = (
            replace(span, start=max(begin, span.start))
            for span in rendered.turns
            if span.kind is Kind.LAST and span.end > begin
        )
        return replace(rendered, turns=tuple(turns)), asked

    def _conversation(self, row: Row) -> tuple[Message, ...]:
        if not row.messages:
            return {"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}
        return self._chat_template().conversation(row.messages)

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            raise SettingsInvalid(
                "the base model has no chat template, which Messages data needs; add chat_template to its "
                "tokenizer_config.json, give one by dataset.chatTemplate, or write the data as prompt and completion",
                Reason.CHAT_TEMPLATE_INVALID,
            )
        return self._template

    def _mask(self, rendered: Rendered, encoded: Encoded) -> tuple[Int32, Kinds]:
        rendered = rendered.without_breaks()
        tokens, (starts, ends) = encoded.tokens, encoded.extents
        special = self._special[tokens]
        kinds = np.zeros(len(tokens), np.uint8)
        for span in rendered.turns:
            covered = np.flatnonzero((ends > span.start) & (starts < span.end))
            if len(covered):
                first, last = int(covered[0]), int(covered[-1])
                kinds[first : self._turn_end(rendered, encoded.extents, special, first, last)] = span.kind
        return self._ended(*self._single_beginning(tokens, kinds))

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

    def _single_beginning(self, tokens: Int32, kinds: Kinds) -> tuple[Int32, Kinds]:
        if self._bos is not None and len(tokens) > 1 and tokens[0] == self._bos and tokens[1] == self._bos:
            return tokens[1:], kinds[1:]
        return tokens, kinds

    def _ended(self, tokens: Int32, kinds: Kinds) -> tuple[Int32, Kinds]:
        """Make the last learned token one that ends the answer, else a model never learns to stop."""
        learned = np.flatnonzero(is_learned(kinds))
        if not len(learned) or self._special[tokens[learned[-1]]]:
            return tokens, kinds
        stop = int(learned[-1]) + 1
        return np.append(tokens[:stop], np.int32(self._eos)), np.append(kinds[:stop], kinds[stop - 1])


def is_learned(kinds: Kinds) -> Bool:
    """Return which tokens an answer is learned from, as they are by default."""
    learned: Bool = (kinds == Kind.LEARNED) | (kinds == Kind.LAST)
    return learned


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    stream = iter(rows)
    while batch := list(islice(stream, BATCH_ROWS)):
        yield batch


def _by_length(numbers: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Yield numbers in parts whose lengths add up to no more than `BATCH_CHARACTERS`, or that are one alone."""
    part: list[int] = []
    left = BATCH_CHARACTERS
    for number, length in zip(numbers, lengths, strict=True):
        if part and length > left:
            yield part
            part, left = [], BATCH_CHARACTERS
        part.append(number)
        left -= length
    if part:
        yield part


def _of_processor(folder: Path) -> str | None:
    """Return the chat template that lies beside a tokenizer which has none.

    Raises:
        SettingsInvalid: CHAT_TEMPLATE_INVALID.
    """
    file = folder / OF_PROCESSOR
    try:
        found = json.loads(file.read_bytes()).get("chat_template") if file.exists() else None
    except (ValueError, RecursionError, AttributeError) as error:
        raise SettingsInvalid(
            f"the base model's {OF_PROCESSOR} cannot be read: {error}; restore it", Reason.CHAT_TEMPLATE_INVALID
        ) from error
    return found if isinstance(found, str) else None


def _ends(folder: Path) -> set[int]:
    """Return the ids of the tokens that end an answer for an engine, where the model says so.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID, what it says of them cannot be read.
    """
    file = folder / GENERATION_CONFIG
    if not file.exists():
        return set()
    unreadable = SettingsInvalid(
        f"the base model's {GENERATION_CONFIG} does not say which token ids end an answer (eos_token_id); restore it",
        Reason.BASE_MODEL_INVALID,
    )
    try:
        named = json.loads(file.read_bytes()).get("eos_token_id")
    except (ValueError, RecursionError, AttributeError) as error:
        raise unreadable from error
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if not all(isinstance(each, int) for each in ends):
        raise unreadable
    return set(ends)


def _refused(row: Row, error: Refused) -> DataInvalid:
    if isinstance(error, LeftOut):
        return DataInvalid(f"{row.place}: the chat template does not have all of it: {error}", Reason.FORMAT_UNKNOWN)
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
    # Several times faster than an array of pairs.
    table = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets)).reshape(-1, 2)
    starts, ends = table[:, 0].copy(), table[:, 1]
    empty = starts == ends
    before = np.concatenate(([0], np.maximum.accumulate(ends)[:-1])) if len(ends) else starts
    starts[empty] = np.minimum(before, starts)[empty]
    return starts, ends
