"""Schemas as grammars: numbers, expressions, and 200 random schemas with a real model."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from gbnf_expression import as_expression
from hypothesis import given, settings
from hypothesis import strategies as st
from random_schemas import random_schema

from llamacli.errors import SchemaError, UsageError
from llamacli.runtime.constrain import by_regex, by_schema
from llamacli.runtime.engine import EngineSettings
from llamacli.runtime.json_grammar import schema_grammar
from llamacli.runtime.json_schema import Root, concise
from llamacli.runtime.json_validate import fault_of
from llamacli.runtime.llama import open_engine
from llamacli.runtime.messages import Sampling, Span
from llamacli.runtime.number_grammar import Bounds, integers, numbers
from llamacli.runtime.regex_grammar import json_characters, regex_grammar, regex_rule
from llamacli.runtime.string_formats import FORMATS

SCHEMAS = 200


def test_every_output_for_200_random_schemas_is_right_or_refused(converted: Callable[..., Path]) -> None:
    ends: Counter[str] = Counter()
    with open_engine(converted("stories260K-hf"), EngineSettings(threads=1)) as engine:
        prompt = engine.tokens((Span("Once upon a time", False),))
        for seed in range(SCHEMAS):
            schema = random_schema(seed)
            held = by_schema(json.dumps(schema))
            chosen = Sampling(temp=0.8, seed=seed, grammar=held.grammar, predict=160)
            pieces = list(engine.generate(prompt, chosen))
            text, finish = "".join(piece.text for piece in pieces), pieces[-1].finish
            assert finish in ("stop", "length")
            try:
                held.judge(text, finish)
            except SchemaError as error:
                assert error.exit_code == 8
                # What a grammar cannot say is only that exactly one of several parts fits.
                assert finish == "length" or "of oneOf" in error.message, (seed, text, error.message)
                ends["refused"] += 1
            else:
                assert isinstance(json.loads(text), dict)
                ends["right"] += 1
    assert ends["right"] >= 0.85 * SCHEMAS


@given(st.integers(-1200, 1200), st.integers(0, 1500), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_whole_numbers_are_exactly_those_within_the_bounds(low: int, width: int, left: bool, right: bool) -> None:
    bounds = Bounds(Fraction(low) if left else None, Fraction(low + width) if right else None)
    expression = as_expression(integers(bounds))
    for value in {low - 1, low, low + 1, 0, 5, -5, 10, 99, 100, low + width - 1, low + width, low + width + 1, 2 * low}:
        inside = (not left or value >= low) and (not right or value <= low + width)
        assert bool(expression.fullmatch(str(value))) == inside, (value, expression.pattern)


@given(st.decimals(-90, 90, places=2), st.decimals(0, 40, places=2), st.booleans(), st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_numbers_never_leave_their_bounds(low: Any, width: Any, open_low: bool, open_high: bool, data: Any) -> None:
    bounds = Bounds(Fraction(low), Fraction(low + width), open_low, open_high)
    rule = numbers(bounds)
    if rule == "[b-a]":
        assert width == 0 and (open_low or open_high)
        return
    value = Fraction(data.draw(st.from_regex(as_expression(rule), fullmatch=True)))
    assert low < value if open_low else low <= value
    assert value < low + width if open_high else value <= low + width


EXPRESSIONS = (
    r"[A-Z]{2}-\d+", r"a|b|cd", r"(ab)*c?", r"[^a-c]x", r"\w+@\w+\.(com|org)", r"x{2,}y{,3}", r"[\]\-^]+", r"\.\*\\",
    r"(?:one|two){2}", r"(?P<n>z)", r"é[à-ü]", r"\x41\u0042", r"a.b", r"\S\s\S", r"^$",
)  # fmt: skip


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *FORMATS.values()])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_an_expressions_grammar_says_the_same(expression: str, data: Any) -> None:
    rule = regex_grammar(expression).removeprefix("root ::= ")
    ours = as_expression(rule)
    theirs = re.compile(expression, re.ASCII)
    plain = st.from_regex(theirs, fullmatch=True, alphabet=st.characters(codec="utf-8", exclude_characters="\0"))
    assert ours.fullmatch(text := data.draw(plain)), text
    assert theirs.fullmatch(data.draw(st.from_regex(ours, fullmatch=True)))


@given(st.from_regex(r'[ -~"\\\n\t]{0,6}', fullmatch=True))
def test_a_pattern_within_json_is_written_with_its_escapes(text: str) -> None:
    rule = regex_rule(r'[ -~"\\\n\t]{0,6}', json_characters, "pattern")
    assert as_expression(rule).fullmatch(json.dumps(text)[1:-1].replace("\\u007f", "\x7f"))


@pytest.mark.parametrize("expression", [r"(?=a)b", r"(a)\1", r"\bword", r"(?i)a", r"a^b", "(", r"a++"])
def test_what_an_expression_cannot_say_is_named(expression: str) -> None:
    with pytest.raises(UsageError):
        by_regex(expression)


def test_the_concise_form() -> None:
    kinds = concise("name, age int, tags[], scores float[], ok bool: is it?")["properties"]
    assert kinds["name"] == {"type": "string"} and kinds["age"] == {"type": "integer"}
    assert kinds["tags"] == {"type": "array", "items": {"type": "string"}}
    assert kinds["scores"] == {"type": "array", "items": {"type": "number"}}
    assert kinds["ok"] == {"type": "boolean", "description": "is it?"}
    assert list(concise("vendor, total number, date")["required"]) == ["vendor", "total", "date"]
    assert concise("a: first, with a comma\nb int")["properties"]["b"] == {"type": "integer"}
    for wrong in ("", "age integr", "a b c d"):
        with pytest.raises(UsageError):
            concise(wrong)


NODE = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "#"}, "satisfies"),
        (NODE, "satisfies"),
        (False, "satisfies"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "satisfies"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "satisfies"),
        ({"enum": [1, 2], "type": "string"}, "satisfies"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "satisfies"),
        ({"not": {}}, "not supported"),
        ({"patternProperties": {}}, "not supported"),
        ({"$ref": "http://example.org/x"}, "refers to"),
        ({"$ref": "#/$defs/none"}, "refers to"),
        ({"type": "strin"}, "wrong at"),
        ({"minLength": -1}, "wrong at"),
        ({"properties": []}, "wrong at"),
        ({"pattern": "("}, "no regular expression"),
        ({"allOf": [{"$ref": "#"}]}, "circle"),
        ([], "object expected"),
    ],
)
def test_a_schema_that_nothing_satisfies_or_that_is_not_known_is_a_usage_error(schema: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        schema_grammar(Root(schema))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer"}, ["1", "-0", "1.0"], ["1.5", "true", '"1"', "01", "NaN", ""]),
        ({"const": 1}, ["1", "1.0"], ["true", "2"]),
        ({"enum": ["a", None, [1]]}, ['"a"', "null", "[1]"], ["[true]", "0"]),
        ({"multipleOf": 0.1}, ["0.3", "-7"], ["0.35"]),
        ({"type": "string", "minLength": 2, "format": "date"}, ['"2026-01-31"'], ['"2026-02-30"', '"x"']),
        ({"pattern": "b+"}, ['"abc"', "5"], ['"ac"']),
        ({"required": ["a"], "additionalProperties": {"type": "null"}}, ['{"a":null}'], ["{}", '{"a":1}']),
        ({"type": "object"}, ["{}"], ['{"a":1,"a":2}', "[]"]),
        ({"prefixItems": [{"type": "null"}], "items": False}, ["[]", "[null]"], ["[null,1]", "[1]"]),
        ({"uniqueItems": True}, ["[1,true,[1]]"], ["[1,1.0]"]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, ["2", "3.5"], ["3", "2.5"]),
        ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, ["2"], ["0", "4"]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, ["null"], ["1"]),
    ],
)
def test_a_finished_answer_is_judged_as_json_schema_says(schema: Any, right: list[str], wrong: list[str]) -> None:
    for text in right:
        assert fault_of(text, Root(schema)) == ""
    for text in wrong:
        assert fault_of(text, Root(schema)) != "", text
