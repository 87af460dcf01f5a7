"""In which language a text seems to be: told by its script, and for the Latin one by its commonest words.

A guess for tables of an audit, no more: it needs no model and is the same everywhere. Nothing is decided by it.
"""

from __future__ import annotations

import re
from collections import Counter

from .shingles import words

UNKNOWN = "unknown"
CHARACTERS = 800
"""Of a text that are looked at."""
LEAST_SHARE = 0.08
"""Least share of a language's common words among all, below which it is unknown."""

_SCRIPTS = {
    "Japanese": "\u3040-\u30ff",
    "Korean": "\uac00-\ud7af\u1100-\u11ff",
    "Chinese": "\u3400-\u9fff",
    "Cyrillic script": "\u0400-\u04ff",
    "Arabic script": "\u0600-\u06ff\u0750-\u077f",
    "Devanagari script": "\u0900-\u097f",
    "Greek": "\u0370-\u03ff",
    "Hebrew": "\u0590-\u05ff",
    "Thai": "\u0e00-\u0e7f",
}
_COMMON = {
    "English": "the of and to in is that it for you was with are this be have not on what how can do",
    "German": "der die und das ist nicht ein eine zu den mit von sich auf für wie was ich sie es dem",
    "French": "le la les et des est une un du que pour dans qui sur pas ce vous il je au avec",
    "Spanish": "el la los de que y en un una por con para es no se las del como su lo qué",
    "Italian": "il la di che e un una per non è sono con del della le gli come si in da",
    "Portuguese": "o a os de que e do da em um uma para com não se na no por mais como",
    "Dutch": "de het een en van is dat niet in op te zijn voor met die aan er ik wat",
    "Swedish": "och att det en som är på för inte med av ett den jag har till vad",
    "Polish": "i w nie na się z do to jest że jak co o za przez po dla",
    "Turkish": "ve bir bu için ile da de ne olarak gibi daha çok var olan",
    "Indonesian": "yang dan di untuk dengan ini itu dari pada tidak adalah dalam akan",
    "Vietnamese": "và của là có không được các cho một người những trong này với",
}
LANGUAGES = (UNKNOWN, *_SCRIPTS, *_COMMON)
_SCRIPT = {name: re.compile(f"[{characters}]") for name, characters in _SCRIPTS.items()}
_LANGUAGES_OF = {
    word: [LANGUAGES.index(name) for name, text in _COMMON.items() if word in text.split()]
    for word in sorted({word for text in _COMMON.values() for word in text.split()})
}


def language(text: str) -> int:
    """Return the place in LANGUAGES of what a text seems to be written in."""
    text = text[:CHARACTERS]
    if not text.isascii():
        letters = sum(character.isalpha() for character in text)
        for name, script in _SCRIPT.items():
            # Japanese has fewer kana than Han, which it shares with Chinese.
            if letters and len(script.findall(text)) > letters * (0.1 if name == "Japanese" else 0.3):
                return LANGUAGES.index(name)
    found = words(text)
    counts = Counter(number for word in found for number in _LANGUAGES_OF.get(word, ()))
    if not counts:
        return 0
    best = max(sorted(counts), key=lambda number: counts[number])
    return best if counts[best] >= max(2, LEAST_SHARE * len(found)) else 0
