"""JSON and the schemas it is checked against: both are tenants' bytes, so both are bounded. No torch.

The validator is that of jsonschema for draft 2020-12, or the draft that `$schema` names, with three bounds:

- patterns are RE2's, in linear time;
- references stay within the schema, and lead to a schema that was looked at: nothing is loaded from elsewhere, and no
  example or default becomes one;
- a check that takes more than `STEPS` is given up, whatever the machine: references can be nested so that their number
  doubles with each. A step is a keyword that is applied or an error that is found; where these take long (many names or
  items to go through, long texts to search or to quote), they count as more. What is given up does not count as valid.

All of a schema is of one draft: at a `$schema` within it jsonschema would go on with its own validator of that draft,
without these bounds. JSON of more than `LEVELS` levels is none, wherever it is read: what Python bears depends on who
calls.

Keywords that would be passed over or cannot be bounded are refused by name: no schema promises less than it says.
`format` is an annotation, as the specification has it, and checks nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import ValidationError
from jsonschema.exceptions import UnknownType
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from ....contract.parsing import check_levels
from ..texts.parsing import composed
from ..texts.patterns import PatternRefused, pattern_of

STEPS = 200_000
ITEMS, CHARACTERS = 8, 128
"""Items that are gone through, and characters that are looked at, in about the time of one step."""
LARGEST = 65_536
"""Characters of a schema, which is itself checked in time linear in them."""
LEVELS = 64
"""Most lists and objects within each other, of an answer, a reference or a schema."""
DEPTH = 3 * LEVELS
"""Most keywords that are applied within each other: an alternative, items and a reference for each level. At four
frames each, of which every other is a reference, it is below what Python's stack bears, beyond which some of what the
validator is made of (rpds) does not raise but panics."""
COMPARED = ("enum", "const", "dependentRequired")
"""Keywords whose values are gone through with all that is within them; of others only what lies at their top."""
NO_SCHEMAS = ("enum", "const", "default", "examples")
"""Keywords whose values hold no schemas."""
OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
"""Keywords whose values hold schemas by names that are no keywords."""
REFUSED = ("$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems")
DRAFT = "https://json-schema.org/draft/2020-12/schema"
WHOLE = re.compile(r"-?[0-9]{1,300}", re.ASCII)

Check = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


class SchemaRefused(ValueError):
    """A schema that cannot be checked against; the message says why."""


class NamedTwice(ValueError):
    """JSON of which one object has a name twice; the message says which."""


class TooManySteps(Exception):
    """A check that was given up."""


class NoSchema(Exception):
    """A reference to what is none, or is none that was looked at."""


def parsed(text: str) -> Any:
    """Return the JSON value that a whole text is.

    Raises:
        NamedTwice: one object has a name twice, also in two of Unicode's forms: who reads it takes the first, the last,
            or neither (RFC 8259, section 4).
        ValueError: it is none; also of a number that JSON does not have, and of too many levels.
    """
    twice = list[str]()

    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = Counter(composed(name) for name, _ in pairs)
        if len(names) < len(pairs):
            twice.append(names.most_common(1)[0][0])
        return dict(pairs)

    try:
        value = json.loads(
            text, parse_constant=_no_number, parse_int=_whole, parse_float=_fraction, object_pairs_hook=named
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if twice:
        raise NamedTwice(f"it has the name {twice[0]!r} twice in one object")
    check_levels(value, LEVELS)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _whole(digits: str) -> int:
    if not WHOLE.fullmatch(digits):
        raise ValueError("a number of more than 300 digits")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def canonical(value: Any) -> str:
    """Return a JSON value as text that equal values share: 1 is 1.0 and not true, and keys have no order."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def comparable(value: Any) -> str:
    """Return canonical text with the letters of texts and keys composed in one way, as answers in words have them."""
    return canonical(_composed(value))


def _composed(value: Any) -> Any:
    if isinstance(value, dict):
        return {composed(name): _composed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_composed(each) for each in value]
    return composed(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


class Schema:
    """A schema that values are checked against."""

    def __init__(self, text: str) -> None:
        """Read a schema, as JSON text.

        Raises:
            SchemaRefused
        """
        if len(text) > LARGEST:
            raise SchemaRefused(f"it has {len(text)} characters, more than {LARGEST}")
        try:
            schema = parsed(text)
        except ValueError as error:
            raise SchemaRefused(f"it is no JSON: {error}") from error
        if not isinstance(schema, dict | bool):
            raise SchemaRefused("a schema is an object, or true or false")
        named = schema.pop("$schema", DRAFT) if isinstance(schema, dict) else DRAFT
        known = _draft(named)
        if known is None:
            raise SchemaRefused(f"its $schema {str(named)[:80]!r} is no draft of JSON Schema")
        self._looked_at = set[int]()
        try:
            _look(schema, self._looked_at, named)
            wrong = next(known(known.META_SCHEMA).iter_errors(schema), None)
        except (PatternRefused, RecursionError) as error:
            raise SchemaRefused(str(error)) from error
        if wrong is not None:
            raise SchemaRefused(_told(wrong))
        self._steps = self._depth = 0
        self._sizes = dict[int, int]()
        checks = {name: self._counted(check, name in COMPARED) for name, check in known.VALIDATORS.items()}
        checks["$ref"] = self._counted(self._reference)
        checks |= {"pattern": self._counted(_pattern), "patternProperties": self._counted(self._pattern_properties)}
        for name, check in (
            ("additionalProperties", self._additional_properties),
            ("multipleOf", _multiple_of),
            ("uniqueItems", self._unique_items),
        ):
            if name in checks:
                checks[name] = self._counted(check)
        bounded: Any = extend(known, checks)  # type: ignore[no-untyped-call]
        self._validator = bounded(schema, registry=Registry())

    def _counted(self, check: Check, compared: bool = False) -> Check:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            size = self._size(value) if compared else _length(value)
            self._spend(1 + (size + _length(instance)) // ITEMS)
            if self._depth == DEPTH:
                raise TooManySteps
            self._depth += 1
            try:
                for error in check(validator, value, instance, schema) or ():
                    self._spend(1 + len(error.message) // CHARACTERS)
                    yield error
            finally:
                self._depth -= 1

        return counted

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > STEPS:
            raise TooManySteps

    def _size(self, value: Any) -> int:
        """Return how many names and values a value of the schema is of, with those within it."""
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in self._sizes:  # the schema is kept, so no other object gets its identity
            within = value.values() if isinstance(value, dict) else value
            self._sizes[id(value)] = 1 + sum(map(self._size, within))
        return self._sizes[id(value)]

    def _reference(self, validator: Any, reference: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        found = validator._resolver.lookup(reference)
        if not isinstance(found.contents, bool) and id(found.contents) not in self._looked_at:
            raise NoSchema(reference)
        yield from validator.descend(instance, found.contents, resolver=found.resolver)

    def _pattern_properties(
        self, validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        if not isinstance(instance, dict):
            return
        self._spend(len(patterns) * len(instance) // ITEMS)
        for pattern, wanted in patterns.items():
            for name, value in instance.items():
                if pattern_of(pattern).is_in(name):
                    yield from validator.descend(value, wanted, path=name, schema_path=pattern)

    def _additional_properties(
        self, validator: Any, wanted: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        if not isinstance(instance, dict):
            return
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        self._spend(len(patterns) * len(instance) // ITEMS)
        for name, value in instance.items():
            if name in named or any(pattern_of(each).is_in(name) for each in patterns):
                continue
            if wanted is False:
                yield ValidationError(f"{name[:80]!r} is no property that is allowed")
            elif isinstance(wanted, dict):
                yield from validator.descend(value, wanted, path=name)

    def _unique_items(self, validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if not wanted or not isinstance(instance, list):
            return
        texts = list(map(canonical, instance))
        self._spend(sum(map(len, texts)) // CHARACTERS)
        if len(set(texts)) < len(texts):
            yield ValidationError("two of its items are the same")

    def trouble(self, value: Any) -> str | None:
        """Return why a value is not accepted, or None if it is."""
        self._steps = self._depth = 0
        try:
            error = next(self._validator.iter_errors(value), None)
        except (TooManySteps, RecursionError):
            return f"it takes more than {STEPS} steps to check, or too many levels"
        except Unresolvable as error:
            return _plain_text(f"a reference of the schema leads nowhere: {str(error)[:120]}")
        except NoSchema as error:
            return _plain_text(f"a reference of the schema leads to no schema: {str(error)[:120]}")
        except ArithmeticError:
            return "a number of it is too large to check"
        except (ValueError, TypeError, LookupError, AttributeError, UnknownType) as error:
            # What a draft's own schema lets through and its validator does not: an $id that is no URI, an old keyword.
            return f"the schema cannot be checked against ({type(error).__name__})"
        return None if error is None else _told(error)

    def accepts(self, value: Any) -> bool:
        """Tell whether a value satisfies it; one that takes too long to check does not."""
        return self.trouble(value) is None


def _length(instance: Any) -> int:
    """Return what of a value one keyword goes through, in items."""
    if isinstance(instance, str):
        return len(instance) * ITEMS // CHARACTERS
    return len(instance) if isinstance(instance, dict | list) else 0


def _told(error: ValidationError) -> str:
    return _plain_text(f"{error.message[:200]}, at {error.json_path[:80]}")


def _plain_text(text: str) -> str:
    """Return text that can be written: of keys with halves of surrogate pairs, which UTF-8 has not."""
    return text.encode(errors="backslashreplace").decode()


@lru_cache(maxsize=256)
def schema_of(text: str) -> Schema:
    """Return a schema that was read.

    Raises:
        SchemaRefused
    """
    return Schema(text)


def _draft(named: Any) -> Any:
    """Return the validator of a draft by its `$schema`, or None where that names none."""
    if not isinstance(named, str):
        return None
    unknown: Any = None
    return validator_for({"$schema": named}, default=unknown)


def _look(schema: Any, seen: set[int], named: Any, names: bool = False) -> None:
    """Refuse what is not checked here, note the schemas that were seen, and take out what they say of their draft.

    Args:
        schema: a schema or a part of one.
        seen: takes the identities of objects that are schemas, or could be.
        named: the draft, as `$schema` names it.
        names: the keys are names of properties, not keywords.

    Raises:
        SchemaRefused, PatternRefused
    """
    if isinstance(schema, list):
        for each in schema:
            _look(each, seen, named)
    if not isinstance(schema, dict):
        return
    if names:
        for value in schema.values():
            _look(value, seen, named)
        return
    seen.add(id(schema))
    if schema.pop("$schema", named) != named:
        raise SchemaRefused("a part of it has another $schema than the whole; write all of it for one draft")
    for key, value in schema.items():
        if key in REFUSED:
            raise SchemaRefused(f"{key} is not checked here; write it without")
        if key == "$ref" and isinstance(value, str) and not value.startswith("#"):
            raise SchemaRefused(
                f"$ref {value[:80]!r} leads out of the schema, and nothing is loaded; put it under $defs"
            )
        if key == "pattern" and isinstance(value, str):
            pattern_of(value)
        if key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                pattern_of(pattern)
        if key not in NO_SCHEMAS:
            _look(value, seen, named, key in OF_NAMES)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not pattern_of(pattern).is_in(instance):
        yield ValidationError(f"{instance[:80]!r} does not match {pattern[:80]!r}")


def _multiple_of(validator: Any, step: float, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Divide numbers as they are written: 19.99 is a multiple of 0.01, which of binary fractions it is not."""
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if (Fraction(repr(instance)) / Fraction(repr(step))).denominator != 1:
        yield ValidationError(f"{instance!r} is not a multiple of {step!r}")
