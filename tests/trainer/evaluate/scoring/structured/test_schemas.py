"""Schemas and patterns of tenants: they say what they should, and none of them takes for ever."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from trimtab_trainer.evaluate.scoring.structured.schemas import LEVELS, Schema, SchemaRefused, canonical, parsed
from trimtab_trainer.evaluate.scoring.texts.patterns import Pattern, PatternRefused

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "patternProperties": {"^x-": {"type": "string"}},
    "additionalProperties": False,
    "required": ["name"],
}


def schema(value: Any) -> Schema:
    return Schema(json.dumps(value))


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ({"name": "Ada", "age": 36}, True),
        ({"name": "Ada", "x-of": "here"}, True),
        ({"name": "ada"}, False),
        ({"name": "Ada", "x-of": 1}, False),
        ({"name": "Ada", "born": 1815}, False),
        ({"age": 36}, False),
        ({"name": "Ada", "age": True}, False),
        ([], False),
    ],
)
def test_values_are_accepted_as_the_schema_says(value: Any, accepted: bool) -> None:
    assert schema(PERSON).accepts(value) is accepted


def test_other_properties_may_have_a_schema_and_items_be_unique() -> None:
    of_numbers = schema({"additionalProperties": {"type": "number"}})
    assert of_numbers.accepts({"a": 1})
    assert not of_numbers.accepts({"a": "1"})
    assert of_numbers.accepts("no object")
    unique = schema({"uniqueItems": True})
    assert unique.accepts([1, True, "1", [1]])
    assert not unique.accepts([1, 1.0])
    assert unique.accepts("no list")
    assert schema({"patternProperties": {"a": False}}).accepts([])
    assert not schema({"multipleOf": 1e-300, "type": "string"}).accepts(1e300)


def test_references_within_the_schema_are_followed() -> None:
    tree = schema({"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}})
    assert tree.accepts([[], [[]]])
    assert not tree.accepts([[1]])
    assert "leads nowhere" in (schema({"$ref": "#/$defs/none"}).trouble(1) or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "an object"),
        ('{"type": "strin"}', "strin"),
        ('{"$schema": "https://example.com/mine"}', "no draft"),
        ('{"$schema": 1}', "no draft"),
        ('{"$ref": "https://example.com/a.json"}', "leads out of the schema"),
        ('{"$ref": "file:///etc/passwd"}', "leads out of the schema"),
        ('{"items": {"unevaluatedItems": false}}', "unevaluatedItems is not checked"),
        ('{"properties": {"a": {"$dynamicRef": "#a"}}}', r"\$dynamicRef is not checked"),
        ('{"pattern": "(a)\\\\1"}', "none of RE2"),
        ('{"allOf": [{"patternProperties": {"(?=a)": true}}]}', "none of RE2"),
        ('{"pattern": "\\ud800"}', "surrogate pair"),
        ('{"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}', r"another \$schema"),
        ('{"dependencies": {"default": {"pattern": "(?=a)"}}}', "none of RE2"),
        ('{"not": ' * 5_000 + "{}" + "}" * 5_000, "nested too deeply"),
    ],
)
def test_schemas_that_would_not_be_checked_are_refused(text: str, said: str) -> None:
    with pytest.raises(SchemaRefused, match=said):
        Schema(text)


def test_names_and_values_are_no_keywords() -> None:
    named = schema({"properties": {"pattern": {"type": "string"}, "$ref": {}, "unevaluatedItems": True}})
    assert named.accepts({"pattern": "(", "$ref": 1})
    assert schema({"enum": [{"pattern": "("}]}).accepts({"pattern": "("})


def test_a_schema_that_doubles_with_each_reference_is_given_up() -> None:
    names = [f"d{number}" for number in range(60)]
    defs: dict[str, Any] = {
        name: {"allOf": [{"$ref": f"#/$defs/{following}"}] * 2} for name, following in pairwise(names)
    }
    bomb = schema({"$ref": "#/$defs/d0", "$defs": {**defs, names[-1]: True}})
    assert "more than 200000 steps" in (bomb.trouble({}) or "")
    assert "steps" in (schema({"$ref": "#"}).trouble({}) or "")


def test_a_draft_named_within_the_schema_takes_no_bound_away() -> None:
    draft = "http://json-schema.org/draft-07/schema#"
    within = {"$schema": draft, "pattern": "(?i)^[a-z]+$"}
    assert schema({"$schema": draft, "properties": {"a": within}}).accepts({"a": "Aa"})
    tree = schema(
        {"$schema": draft, "properties": {"below": {"$ref": "#"}, "name": {"pattern": r"^\pL+$"}}},
    )
    assert tree.accepts({"below": {"below": {"name": "é"}}}), "only RE2 knows this class of characters"
    assert not tree.accepts({"below": {"below": {"name": "1"}}})
    bomb = schema({"$schema": draft, "allOf": [{"$ref": "#/definitions/a"}], "definitions": {"a": {"$ref": "#"}}})
    assert "steps" in (bomb.trouble({}) or "")


@pytest.mark.parametrize(
    "value",
    [
        {"title": "abc", "$ref": "#/title"},
        {"$defs": {"a": {"enum": [7]}}, "$ref": "#/$defs/a/enum/0"},
        {"$defs": {"a": {"enum": [7]}}, "$ref": "#/$defs/a/enum/b"},
        {"default": {"pattern": "(?=a)"}, "$ref": "#/default"},
        {"examples": [{"type": "nonsense"}], "$ref": "#/examples/0"},
        {"$defs": {"a": {"$id": "http://[::1"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_reference_to_no_schema_accepts_nothing_and_says_so(value: Any) -> None:
    made = schema({"$id": "http://example.com/a", **value})
    assert "schema" in (made.trouble("a") or "")


def test_what_a_value_cannot_be_written_with_is_told_all_the_same() -> None:
    trouble = schema({"properties": {"\ud800": {"type": "string"}}}).trouble({"\ud800": 1})
    assert trouble is not None
    assert trouble.encode()


def test_levels_are_bounded_alike_wherever_json_is_read() -> None:
    def nested(levels: int) -> str:
        return "[" * levels + "]" * levels

    assert canonical(parsed(nested(LEVELS))) == nested(LEVELS)
    tree = schema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#"}}]})
    assert tree.accepts(parsed(nested(LEVELS)))
    for levels in (LEVELS + 1, 600, 900):
        with pytest.raises(ValueError, match="nested too deeply"):
            parsed(nested(levels))


def doubling(leaf: Any) -> dict[str, Any]:
    """Return a schema that applies another one 16,384 times."""
    names = [f"d{at}" for at in range(15)]
    defs = {name: {"anyOf": [{"$ref": f"#/$defs/{then}"}] * 2} for name, then in pairwise(names)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, names[-1]: leaf}}


NAMES = [f"k{at}" for at in range(1500)]
LONG: dict[str, tuple[Any, Any]] = {
    "errors that an alternative outweighs": ({"items": {"anyOf": [{"required": NAMES}, {}]}}, [{}] * 30_000),
    "properties of many items": ({"items": {"properties": dict.fromkeys(NAMES, True)}}, [{}] * 30_000),
    "names that depend on others": ({"items": {"dependentRequired": {key: ["a"] for key in NAMES}}}, [{}] * 30_000),
    "values to choose from": ({"items": {"anyOf": [{"enum": NAMES}, {}]}}, ["x"] * 30_000),
    "patterns of names": ({"patternProperties": dict.fromkeys(NAMES, True)}, {f"x{at}": 1 for at in range(20_000)}),
    "other names than patterns'": (
        {"patternProperties": dict.fromkeys(NAMES, True), "additionalProperties": True},
        {f"x{at}": 1 for at in range(20_000)},
    ),
    "a long text, looked through again and again": (doubling({"pattern": "(a|b)*c$"}), "ab" * 60_000),
    "a long list, quoted again and again": (doubling({"type": "string"}), list(range(20_000))),
    "a long list, made unique again and again": (doubling({"uniqueItems": True, "maxItems": 1}), list(range(20_000))),
}


@pytest.mark.parametrize(("of", "value"), LONG.values(), ids=LONG)
def test_what_takes_long_within_one_keyword_is_given_up(of: Any, value: Any) -> None:
    began = time.process_time()
    assert "steps" in str(schema(of).trouble(value))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("keyword", ["if", "not", "allOf", "oneOf", "dependentSchemas"])
def test_a_schema_that_refers_to_itself_without_end_is_given_up(keyword: str) -> None:
    itself: Any = {"$ref": "#"}
    of = {"allOf": [itself], "oneOf": [itself, itself], "dependentSchemas": {"a": itself}}.get(keyword, itself)
    assert "levels" in str(schema({keyword: of}).trouble({"a": 1}))


def test_data_that_refer_to_themselves_have_an_end() -> None:
    value: Any = {}
    for _ in range(45):
        value = {"child": value}
    tree = {"$defs": {"t": {"anyOf": [{"properties": {"child": {"$ref": "#/$defs/t"}}}]}}, "$ref": "#/$defs/t"}
    assert schema(tree).accepts(value)


def test_a_schema_has_a_size() -> None:
    with pytest.raises(SchemaRefused, match="characters, more than 65536"):
        schema({"enum": ["x" * 65_536]})


def test_patterns_take_linear_time() -> None:
    began = time.process_time()
    hostile = "a" * 200_000 + "b"
    assert not Pattern("^(a+)+$").is_in(hostile)
    assert not schema({"pattern": "^(a|aa)+$"}).accepts(hostile)
    assert time.process_time() - began < 5, "a backtracking engine would not end this year"


def test_patterns_are_found_anywhere_and_anchored_by_their_own_signs() -> None:
    assert Pattern(r"\d{4}").is_in("in 1815")
    assert not Pattern(r"^\d{4}$").is_in("in 1815")
    assert Pattern("^ü+$").is_in("üü")
    assert Pattern("^.$").is_in("\ud800"), "half of a surrogate pair is a character that cannot be read"
    with pytest.raises(PatternRefused, match="none of RE2"):
        Pattern("(((a{30}){30}){30})")


def test_equal_values_are_equal_texts() -> None:
    assert canonical({"b": [1.0], "a": "é"}) == canonical({"a": "é", "b": [1]})
    assert canonical([True]) != canonical([1])
    assert canonical(1e300) == canonical(10**300) or canonical(1e300) == canonical(int(1e300))


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "[" * 100_000, "1" * 5_000, "", "{} {}"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_a_name_in_two_of_unicodes_forms_is_there_twice() -> None:
    with pytest.raises(ValueError, match="twice in one object"):
        parsed('{"\u00e9": 1, "e\u0301": 2}')


def test_a_name_twice_in_an_object_is_no_json_that_all_read_alike() -> None:
    for text in ('{"pay": false, "pay": true}', '[{"to": {"a": 1, "a": 1}}]'):
        with pytest.raises(ValueError, match="twice"):
            parsed(text)
    assert parsed('[{"a": 1}, {"a": {"a": 1}}]') == [{"a": 1}, {"a": {"a": 1}}]


@pytest.mark.parametrize(
    ("step", "value", "accepted"),
    [
        ("0.01", "19.99", True),
        ("0.1", "0.3", True),
        ("0.01", "19.995", False),
        ("3", "9", True),
        ("3", "9.0", True),
        ("3", "10", False),
        ("1e-300", "1e300", True),
        ("1e300", "1e-300", False),
        ("0.5", "true", True),
        ("0.5", '"text"', True),
    ],
)
def test_multiples_are_those_of_the_numbers_as_they_are_written(step: str, value: str, accepted: bool) -> None:
    assert Schema(f'{{"multipleOf": {step}}}').accepts(parsed(value)) is accepted
