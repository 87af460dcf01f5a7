"""Patterns of tenants, matched in time linear in the text: RE2 has no pattern that takes for ever. No torch."""

from __future__ import annotations

from functools import lru_cache

import re2

MEMORY_BYTES = 1 << 23
"""Of one compiled pattern; RE2 refuses those that would be larger."""


class PatternRefused(ValueError):
    """A pattern that RE2 does not take; the message says why."""


class Pattern:
    """A pattern that is looked for in texts."""

    def __init__(self, pattern: str) -> None:
        """Compile it.

        Raises:
            PatternRefused
        """
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MEMORY_BYTES
        try:
            self._compiled = re2.compile(pattern, options)
        except UnicodeEncodeError as error:
            raise PatternRefused(f"the pattern {pattern[:80]!r} has half of a surrogate pair") from error
        except re2.error as error:
            told = error.args[0] if error.args else ""
            why = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
            raise PatternRefused(
                f"the pattern {pattern[:80]!r} is none of RE2 ({why}); it has no backreferences and looks neither "
                "ahead nor behind (https://github.com/google/re2/wiki/Syntax)"
            ) from error

    def is_in(self, text: str) -> bool:
        """Tell whether it is found anywhere in a text; what UTF-8 cannot write is read as a question mark."""
        return self._compiled.search(_writable(text)) is not None

    def cut_from(self, text: str) -> str:
        """Return a text without what it is found in."""
        without: str = self._compiled.sub("", _writable(text))
        return without


def _writable(text: str) -> str:
    return text.encode(errors="replace").decode()


@lru_cache(maxsize=1024)
def pattern_of(pattern: str) -> Pattern:
    """Return a compiled pattern.

    Raises:
        PatternRefused
    """
    return Pattern(pattern)
