"""What pods of tenants answer: read up to a bound, never unpacked, and parsed by what raises one exception alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

AS_IT_IS: Mapping[str, str] = {"Accept-Encoding": "identity"}
"""A few kilobytes unpack to gigabytes; requests say `auto_decompress=False` besides."""
CONTAINERS, VALUES = 16_384, 131_072
"""Lists and objects, and commas between their members: parsing takes 20 ms at most, whatever the bytes are."""
ERRORS_READ = 8


class Unreadable(Exception):
    """An answer that is too large, or none that is understood; the message says which."""


async def body_of(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the bytes of an answer.

    Raises:
        Unreadable: it has more than `limit`.
        aiohttp.ClientError, TimeoutError, OSError: it broke off.
    """
    chunks, size = [], response.content_length or 0
    if size <= limit:
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            chunks.append(chunk)
            if size > limit:
                break
    if size > limit:
        raise Unreadable(f"an answer of more than {limit} bytes")
    return b"".join(chunks)


def parsed(model: type[M], text: bytes) -> M:
    """Return an answer in its typed form.

    Raises:
        Unreadable: it is not one.
    """
    if text.count(b"[") + text.count(b"{") > CONTAINERS or text.count(b",") > VALUES:
        raise Unreadable("an answer of more parts than any that is meant")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise Unreadable(words_of(error)) from None


def words_of(error: ValidationError) -> str:
    """Return what is wrong with an answer, cut."""
    if error.error_count() > ERRORS_READ:  # each costs time, and whoever sent it chose how many there are
        return f"an answer with {error.error_count()} faults"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:64] for part in first["loc"][:6])
    return f"{place}: {first['msg']}"[:300].lstrip(": ")
