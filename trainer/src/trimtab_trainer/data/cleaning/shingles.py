"""Texts as sets of hashed word 3-grams, by which near duplicates are recognised; the same on every machine.

Blind to case, width, punctuation and characters that nobody sees. Scripts that are written without blanks between
words count by characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ...invisible import without_invisible

SHINGLE_WORDS = 3
REMEMBERED_WORDS = 200_000
"""Words whose hashes are kept, about 30 MB."""

Hashes = npt.NDArray[np.uint64]

_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Khmer, kana and Han."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
# Odd 64-bit constants: those of SplitMix64 (Steele, Lea, Flood 2014), and the golden ratio's.
_FIRST, _SECOND, _THIRD = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class _Words(dict[str, int]):
    """Hashes of words, made when they are asked for."""

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "big")
        return value


class Shingler:
    """Makes the shingles of texts, and remembers words that it has hashed."""

    def __init__(self) -> None:
        self._words = _Words()

    def __call__(self, text: str) -> Hashes:
        """Return the distinct hashes of a text's word 3-grams uint64[n], ascending; of a shorter one all its words."""
        known = self._words
        hashes = np.array([known[word] for word in words(text)], np.uint64)
        if not len(hashes):
            return hashes
        if len(hashes) < SHINGLE_WORDS:
            hashes = np.pad(hashes, (0, SHINGLE_WORDS - len(hashes)))
        grams = hashes[:-2] * _FIRST + hashes[1:-1] * _SECOND + hashes[2:] * _THIRD
        grams ^= grams >> np.uint64(31)
        return distinct(grams * _SECOND)


def distinct(values: Hashes) -> Hashes:
    """Return the distinct values, ascending; several times faster than `numpy.unique` on a few hundred."""
    values = np.sort(values)
    different = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=different[1:])
    return values[different]


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation."""
    text = without_invisible(text)
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def common_shingles(rows: Iterable[Hashes], share: float, least: int) -> Hashes:
    """Return the shingles that are in more than `share` of the rows, and in more than `least`, ascending."""
    sets = list(rows)
    if not sets:
        return np.zeros(0, np.uint64)
    shingles, counts = np.unique(np.concatenate(sets), return_counts=True)
    return shingles[counts > max(least, share * len(sets))]


def similarity(left: Hashes, right: Hashes) -> float:
    """Return the Jaccard similarity of two sets of shingles."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    whole = len(left) + len(right) - shared
    return shared / whole if whole else 0.0


def said(row: dict[str, object]) -> str:
    """Return what is said in a row, as stored: its turns but for system messages, its prompt, and each answer or text.

    System messages are left out because they are the instruction that all rows repeat.
    """
    parts: list[str] = []
    for key in ("messages", "prompt", "completion", "chosen", "rejected", "text"):
        value = row.get(key)
        if key == "messages" or _are_messages(value):
            parts.extend(_turns(value))
        else:
            parts.extend(texts_of(value))
    return "\n".join(parts)


def _are_messages(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and "role" in each for each in value)


def _turns(messages: object) -> Iterable[str]:
    for message in messages if isinstance(messages, Sequence) else ():
        if isinstance(message, dict) and message.get("role") != "system":
            yield from texts_of(message.get("content"))
            yield from texts_of(message.get("reasoning_content"))
            yield from texts_of(message.get("tool_calls"))


def texts_of(value: object) -> Iterable[str]:
    """Yield the texts of a content: one, or those within parts and calls, whatever the order of their keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from texts_of(value[key])
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)
