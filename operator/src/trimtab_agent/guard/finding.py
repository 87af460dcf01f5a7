"""Where a request's body names its model, without building the document."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import NamedTuple

from .asgi import NotPassedOn

OBJECT, COLON = re.compile(rb"[ \t\n\r]*\{"), re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
STRUCTURE = re.compile(rb'[^"\[\]{}]*(["\[\]{}])')
INNER = re.compile(rb'[^"\[\]{}]*(?:"[^"\\]*(?:\\.[^"\\]*){0,99}"[^"\[\]{}]*){0,99}(["\[\]{}])', re.DOTALL)
"""Within an inner list or object strings need no look of their own, unless they are many or long. No byte can belong to
two of its parts, so it fails as fast as it matches."""
TEXT = re.compile(rb'(?:[^"\\]+|\\.){1,1000}', re.DOTALL)
STEPS_AT_ONCE, STEPS_ALLOWED = 2_000, 1_000_000
"""Brackets and strings that are passed in search of a body's model: one takes half a microsecond."""


class Named(NamedTuple):
    """The model that a body names, and where: `body[start:end]` is the JSON string."""

    start: int
    end: int
    name: str


def find_model(body: bytes) -> Generator[None, None, Named | None]:
    """Find the top-level member `model` of a JSON object without building the object; None where there is no such text.

    It yields after every few thousand steps, so that others have their turn. What is no JSON is found out by the
    engine; of what is, this finds what a parser finds. The rest of the body is not gone through if nothing in it can
    name a model again.

    Raises:
        NotPassedOn: there are two of them, and parsers differ in which they take, or too much is around it.
    """
    if OBJECT.match(body) is None:
        return None
    at = depth = steps = 0
    found: Named | None = None
    named = 0
    while (mark := INNER.match(body, at) if depth > 1 else STRUCTURE.match(body, at)) is not None:
        steps += 1
        if steps % STEPS_AT_ONCE == 0:
            yield
        if steps > STEPS_ALLOWED:
            raise NotPassedOn(400, "BodyTooComplex", "too many lists, objects and strings to find its model among them")
        start, at = mark.span(1)
        if mark[1] in b"{[":
            depth += 1
        elif mark[1] in b"}]":
            depth -= 1
            if depth <= 0:
                break
        else:
            at = yield from _after_text(body, at)
            colon = COLON.match(body, at) if depth == 1 else None
            if colon is None or not _says_model(body[start:at]):
                continue
            named += 1
            if named > 1:
                raise NotPassedOn(400, "ModelNamedTwice", "the body names its model twice")
            if body[colon.end() : colon.end() + 1] == b'"':
                at = yield from _after_text(body, colon.end() + 1)
                found = _named(body, colon.end(), at)
            if body.find(b'"model"', at) < 0 and body.find(b"\\u006", at) < 0:  # every escaped letter of it begins so
                break
    return found


def _after_text(body: bytes, at: int) -> Generator[None, None, int]:
    """Return where a string ends that has begun before `at`, its closing quote included."""
    while True:
        part = TEXT.match(body, at)
        if part is not None:
            at = part.end()
        if part is None or body[at : at + 1] == b'"':
            return min(at + 1, len(body))
        yield


def _says_model(key: bytes) -> bool:
    if b"\\" not in key:
        return key == b'"model"'
    try:
        return len(key) < 64 and json.loads(key) == "model"
    except ValueError:
        return False


def _named(body: bytes, start: int, end: int) -> Named | None:
    try:
        name = json.loads(body[start:end])
    except ValueError:
        return None
    return Named(start, end, name) if isinstance(name, str) else None


def as_utf8(body: bytes) -> bytes:
    """Return a body as UTF-8: engines read the other encodings of JSON too, and must not see more than the guard."""
    encoding = json.detect_encoding(body)
    if encoding == "utf-8":
        return body
    try:
        return body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
    except UnicodeError:
        return body
