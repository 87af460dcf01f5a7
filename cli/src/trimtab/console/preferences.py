"""What people prefer goes into the object storage as rows of training, with keys that the console was given for this
alone: they need no more than to write below one prefix.

Each lot of rows is an object of its own, named by the hash of what is in it: nothing is appended to, two people are
never in each other's way, and what is sent twice is there once. The key has the namespace and the rollout, so the rows
of one model are one prefix that a FineTuneJob reads; the rows are those that its formats have, and nothing else. Who
preferred is in the object's metadata, which no training reads.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..bucket import Bucket, Keys, place_of
from ..errors import Invalid, NotAllowed, Unreachable
from .feeds import TooMany

PREFIX = "TRIMTAB_CONSOLE_PREFERENCES_"
"""Of the variables: URI, and the keys by the names that every S3 tool knows."""
NEXT_STEP = "download the rows; and tell who runs the console: its keys have to write there, and reach it"
ROWS, TEXT_LENGTH = 64, 200_000
"""Of one lot, and of each text in characters."""
A_MINUTE = 60
"""Lots of one person."""
PEOPLE = 1024
"""Whose lots are counted; who came longest ago is forgotten first."""
RESERVED = re.compile("[\ufdd0-\ufdef]")
"""Unicode says that these are no characters; training marks texts by some of them, and reads none that has one."""
AUTHOR_LENGTH = 1024
"""Of a name, in the metadata: S3 has 2 KiB for all of it."""


@dataclass(frozen=True)
class Shape:
    """A format of rows, as `dataset.format` names it.

    Attributes:
        folder: where rows of it are: a data set has one format.
        answers: keys of the texts of models; `label` tells whether a row has one.
    """

    folder: str
    answers: tuple[str, ...]
    label: bool = False


SHAPES = {
    "Preference": Shape("pairs", ("chosen", "rejected")),
    "UnpairedPreference": Shape("labels", ("completion",), label=True),
}


def rows_of(written: str, format_name: str) -> list[str]:
    """Return rows of JSON lines as they are stored, each checked and written anew.

    Raises:
        Invalid: a line is no row of the format, or there are too many.
    """
    shape = SHAPES.get(format_name)
    if shape is None:
        raise Invalid(f"rows have no format {format_name!r}", f"these are {' and '.join(SHAPES)}")
    lines = [line for line in written.split("\n") if line.strip()]
    if not lines or len(lines) > ROWS:
        raise Invalid(f"there are {len(lines)} rows", f"send 1 to {ROWS}")
    return [_row(line, shape, f"row {number}") for number, line in enumerate(lines, 1)]


def _row(line: str, shape: Shape, place: str) -> str:
    wanted = {"prompt", *shape.answers, *(("label",) if shape.label else ())}
    try:
        told = json.loads(line)
        if not isinstance(told, dict) or set(told) != wanted:
            raise Invalid(f"{place} is none of {{{', '.join(sorted(wanted))}}}", "use the console's page")
        label = {"label": told["label"]} if shape.label else {}
        if label and not isinstance(label["label"], bool):
            raise Invalid(f"{place} has a label that is neither true nor false", "use the console's page")
        turns = {key: _turn(told[key], "user" if key == "prompt" else "assistant", f"{place}, {key}") for key in told
                 if key != "label"}  # fmt: skip
        if len({type(each) for each in turns.values()}) != 1:
            raise Invalid(f"{place} is half a text and half a conversation", "use the console's page")
        row = {key: turns[key] for key in ("prompt", *shape.answers)} | label
        written = json.dumps(row, ensure_ascii=False)
        written.encode()
    except (ValueError, RecursionError) as error:  # lone halves of characters are no text
        raise Invalid(f"{place} is no JSON of whole characters", "use the console's page") from error
    return written


def _turn(value: Any, role: str, place: str) -> str | list[dict[str, str]]:
    """Return a text, or the one turn of a conversation that there is."""
    is_text = isinstance(value, str)
    if not is_text and not (
        isinstance(value, list)
        and len(value) == 1
        and isinstance(value[0], dict)
        and set(value[0]) == {"role", "content"}
    ):
        raise Invalid(f"{place} is neither a text nor one turn", "use the console's page")
    said = value if is_text else value[0]["content"]
    if not isinstance(said, str) or not said.strip() or len(said) > TEXT_LENGTH:
        raise Invalid(f"{place} is no text of 1 to {TEXT_LENGTH:,} characters", "shorten it, or download the rows")
    if found := RESERVED.search(said):
        raise Invalid(f"{place} has U+{ord(found[0]):04X}, which Unicode says is no character", "leave this one out")
    if is_text:
        return str(said)
    if value[0]["role"] != role:
        raise Invalid(f"{place} is not the {role}'s turn", "use the console's page")
    return [{"role": role, "content": said}]


class Preferences:
    """A prefix of an object storage that preferences are written below.

    Args:
        uri: of the prefix.
    """

    def __init__(self, uri: str, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket, self._path = place_of(uri)
        self._keys, self._clock = keys, clock
        self._client: Any = None
        self._lots: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Preferences | None:
        """Return what an environment says, None where it says nothing.

        Raises:
            Invalid: it says half of it.
        """
        keys, uri = Keys.of(variables, PREFIX), variables.get(f"{PREFIX}URI", "").strip()
        if keys is None and not uri:
            return None
        if keys is None or not uri:
            missing = f"{PREFIX}{'URI' if keys is not None else 'AWS_ACCESS_KEY_ID'}"
            raise Invalid(f"{missing} is missing", "preferences are stored below an address, with keys for it")
        return cls(uri, keys)

    def address(self, namespace: str, rollout: str, format_name: str) -> str:
        """Return the prefix of the rows of one format that are preferred of a rollout's models."""
        return f"s3://{self._bucket}/{self._folder(namespace, rollout, format_name)}/"

    def store(self, namespace: str, rollout: str, format_name: str, rows: Sequence[str], author: str) -> str:
        """Store a lot of rows; return its address.

        Args:
            author: who gives them, in however many browsers.

        Raises:
            TooMany: there were too many of one person within a minute.
            Problem: it cannot be written.
        """
        self._count(author)
        data = "".join(f"{row}\n" for row in rows).encode()
        name = f"{self._folder(namespace, rollout, format_name)}/{hashlib.sha256(data).hexdigest()[:32]}.jsonl"
        with self._lock:  # made once; it may be used by several threads
            if self._client is None:
                self._client = self._keys.client()
        said = quote(author, safe="@:")[:AUTHOR_LENGTH]
        try:
            Bucket(self._bucket, self._client).write(name, data, "application/jsonl", {"author": said})
        except (NotAllowed, Unreachable) as problem:  # its next step is that of a person's own keys
            raise type(problem)(problem.sentence, NEXT_STEP) from problem
        return f"s3://{self._bucket}/{name}"

    def _folder(self, namespace: str, rollout: str, format_name: str) -> str:
        return "/".join(filter(None, (self._path, namespace, rollout, SHAPES[format_name].folder)))

    def _count(self, author: str) -> None:
        now = self._clock()
        with self._lock:
            lots = self._lots[author] = [each for each in self._lots.get(author, ()) if now - each < 60]
            self._lots.move_to_end(author)
            while len(self._lots) > PEOPLE:
                self._lots.popitem(last=False)
            if len(lots) >= A_MINUTE:
                raise TooMany(f"{A_MINUTE} preferences were stored within a minute", "wait a moment, and store again")
            lots.append(now)
