"""Tool calls that a model wrote: read from its text, checked against the tools of the row, compared with the expected.

How calls are written is up to the model's chat template. These forms are read, special tokens left out of the text:

- JSON objects between <tool_call> and </tool_call> (Hermes, Qwen 2.5 and 3), with words before them or none;
- <function=NAME> with <parameter=NAME> elements, between the same marks (Qwen 3.5, Nemotron); a value is text where the
  tool's schema says that it is, else JSON if it is any;
- a text that is nothing but such objects, or a list of them, one behind another, separated by blanks, commas or
  semicolons (Llama, Mistral).

An object is {name, arguments} ({name, parameters} of Llama), or one under `function`. Arguments may be JSON text, as
OpenAI has them. All other text is an answer in words, without calls. No torch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..texts.parsing import behind_thoughts, composed, says_nothing
from .schemas import NamedTwice, canonical, comparable, parsed, schema_of

OPENING, CLOSING = "<tool_call>", "</tool_call>"
FUNCTION = re.compile(r"<function=([^<>\s]+)>(.*?)(</function>|\Z)", re.DOTALL)
PARAMETER, PARAMETER_END = re.compile(r"<parameter=([^<>\s]+)>"), "</parameter>"
PARAMETER_BEGIN = "<parameter="
BETWEEN = " \t\r\n,;"


@dataclass(frozen=True)
class Call:
    """A call of a tool; two calls with equal arguments are equal.

    Attributes:
        name: of the tool.
        arguments: canonical JSON of an object.
    """

    name: str
    arguments: str


class Unreadable(ValueError):
    """A text that begins a call and is none."""


@dataclass(frozen=True)
class CallFigures:
    """What one answer is worth: each 0 to 1, `exact`, `valid` and `named` 0 or 1."""

    exact: float
    valid: float
    named: float
    arguments: float


def read_calls(text: str, schemas: Mapping[str, str]) -> tuple[Call, ...]:
    """Return the calls of an answer, in their order; none of one in words.

    Args:
        text: as the model wrote it, without special tokens.
        schemas: of the arguments by the names of the tools, as JSON text.

    Raises:
        Unreadable: a call is begun that cannot be read, or has no name.
    """
    said = behind_thoughts(text)
    if OPENING in said or CLOSING in said:
        return tuple(call for part, ended in _marked(said) for call in _in_marks(part, schemas, ended=ended))
    if FUNCTION.match(said):
        return _elements(said, schemas, ended=False)
    if not said.startswith(("{", "[")):
        return ()
    found = []
    for value in _values(said):
        if value is None:
            return ()
        found += value if isinstance(value, list) else [value]
    return tuple(map(_call, found))


def _marked(text: str) -> list[tuple[str, bool]]:
    """Return what stands between marks, and whether the closing one is there.

    A tokenizer may leave out the opening one as a special token.
    """
    *closed, rest = text.split(CLOSING)
    parts = [(piece.partition(OPENING)[2] if OPENING in piece else piece, True) for piece in closed]
    return [*parts, (rest.partition(OPENING)[2], False)] if OPENING in rest else parts


def _in_marks(text: str, schemas: Mapping[str, str], *, ended: bool) -> tuple[Call, ...]:
    text = text.strip()
    return _elements(text, schemas, ended=ended) if text.startswith("<function=") else (_call(_json(text)),)


def _elements(text: str, schemas: Mapping[str, str], *, ended: bool) -> tuple[Call, ...]:
    """Return the calls of functions; `ended` says that a mark ends the last one, if nothing of its own does."""
    calls = []
    for name, inside, end in FUNCTION.findall(text):
        properties = _properties(schemas.get(name))
        arguments = dict[str, Any]()
        for key, value in _parameters(inside):
            if key in arguments:
                raise Unreadable(f"the parameter {key!r} is there twice")
            arguments[key] = _value(value, properties.get(key))
        if not (end or ended):
            # It was cut off, and more parameters may have been to come.
            raise Unreadable(f"the function {name[:80]!r} does not end")
        calls.append(Call(name, canonical(arguments)))
    if not calls:
        raise Unreadable("a function without a name")
    return tuple(calls)


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts of parameters, in linear time: a broken model opens thousands and closes none.

    Raises:
        Unreadable: one is begun that does not end, as of an answer that was cut off.
    """
    at = 0
    while (opened := PARAMETER.search(text, at)) and (end := text.find(PARAMETER_END, opened.end())) >= 0:
        yield opened[1], text[opened.end() : end]
        at = end + len(PARAMETER_END)
    if opened:
        raise Unreadable(f"the parameter {opened[1][:80]!r} does not end")
    rest = text[at:].rstrip()
    if PARAMETER_BEGIN in rest or ("<" in rest and PARAMETER_BEGIN.startswith(rest[rest.rindex("<") :])):
        raise Unreadable("a parameter is begun that has no name")


def _properties(schema: str | None) -> dict[str, Any]:
    found = json.loads(schema) if schema is not None else None
    properties = found.get("properties") if isinstance(found, dict) else None
    return properties if isinstance(properties, dict) else {}


def _value(text: str, schema: Any) -> Any:
    text = text.removeprefix("\n").removesuffix("\n")
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        return parsed(text)
    except NamedTwice as error:
        raise Unreadable(str(error)) from error
    except ValueError:
        return text


def _values(text: str) -> list[Any]:
    """Return the JSON values that a text is made of; [None] where it goes on with words: then it is no call.

    Raises:
        Unreadable: the first value is none.
    """
    decoder, found, at = json.JSONDecoder(), list[Any](), 0
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            if found:
                return [None]
            raise Unreadable(str(error)) from error
        found.append(_json(text[at:end]))
        at = end
        while at < len(text) and text[at] in BETWEEN:
            at += 1
    return found


def _json(text: str) -> Any:
    try:
        return parsed(text)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _call(value: Any) -> Call:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise Unreadable("a call is an object with a name")
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _json(arguments) if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise Unreadable("the arguments of a call are an object")
    return Call(value["name"], canonical(arguments))


def expected_calls(text: str) -> tuple[Call, ...]:
    """Return the calls that a row has, as `calls_text` wrote them."""
    return tuple(Call(name, canonical(arguments)) for name, arguments in json.loads(text))


def calls_text(calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Return calls as a row keeps them, in their order."""
    return canonical([[name, arguments] for name, arguments in calls])


def figures_of(text: str, schemas: Mapping[str, str], expected: tuple[Call, ...]) -> CallFigures:
    """Return what an answer is worth.

    Parallel calls have no order. Valid is an answer whose calls could all be run, and that calls something where a call
    is expected; `arguments` is the share of the calls made and expected that are the same in name and arguments. An
    answer that says nothing is worth nothing, also where words are right.

    Args:
        text: as the model wrote it.
        schemas: of the arguments by the names of the row's tools, as JSON text.
        expected: the calls of the row.
    """
    try:
        made = read_calls(text, schemas)
    except Unreadable:
        return CallFigures(0.0, 0.0, 0.0, 0.0)
    if not made and says_nothing(text):
        return CallFigures(0.0, 0.0, 0.0, 0.0)
    runnable = all(call.name in schemas and _accepted(schemas[call.name], call.arguments) for call in made)
    made, expected = tuple(map(_composed, made)), tuple(map(_composed, expected))
    same = Counter(made) & Counter(expected)
    calls = max(len(made), len(expected))
    return CallFigures(
        exact=float(Counter(made) == Counter(expected)),
        valid=float(runnable and bool(made) >= bool(expected)),
        named=float(Counter(call.name for call in made) == Counter(call.name for call in expected)),
        arguments=same.total() / calls if calls else 1.0,
    )


def _composed(call: Call) -> Call:
    """Return a call whose letters are composed as those of all other answers are when they are compared."""
    return Call(composed(call.name), comparable(json.loads(call.arguments)))


def _accepted(schema: str, arguments: str) -> bool:
    return schema_of(schema).accepts(json.loads(arguments))
