"""Schemas as people and generators write them: OpenAPI, older drafts, patterns with lengths, parts that nothing satisfies."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gbnf_expression import as_expression

from llamacli.errors import UsageError
from llamacli.runtime.constrain import by_regex, by_schema
from llamacli.runtime.json_grammar import schema_grammar
from llamacli.runtime.json_schema import Root
from llamacli.runtime.json_validate import fault_of
from llamacli.runtime.regex_grammar import json_characters, plain_characters, regex_rule

INT, STR = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "string", "nullable": True}, ['"a"', "null"], ["1"]),
        ({"type": "string", "nullable": False}, ['"a"'], ["null"]),
        ({"nullable": True, "allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": STR}}, ['"a"', "null"], ["1"]),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, ["0.5"], ["0", "-1"]),
        ({"type": "number", "maximum": 0, "exclusiveMaximum": False}, ["0"], ["1"]),
        ({"items": [INT, STR], "additionalItems": False}, ['[1,"a"]', "[1]"], ['[1,"a",2]', '["a"]']),
        ({"items": [INT], "additionalItems": STR}, ['[1,"a"]'], ["[1,2]"]),
        ({"$ref": "#/definitions/Page%3CItem%3E", "definitions": {"Page<Item>": INT}}, ["1"], ['"a"']),
        ({"id": "http://example.org/x", "type": "integer"}, ["1"], ['"a"']),
        ({"type": "string", "format": "ipv6"}, ['"2001:db8:0:0:0:0:0:1"'], ['"My name is"']),
    ],
)
def test_older_words_are_understood(schema: Any, right: list[str], wrong: list[str]) -> None:
    root = Root(schema)
    schema_grammar(root)
    assert [fault_of(text, root) for text in right] == [""] * len(right)
    assert all(fault_of(text, root) for text in wrong)


def test_wrong_values_of_older_words_are_still_named() -> None:
    for schema in ({"nullable": "yes"}, {"additionalItems": 3}, {"items": 3}, {"not": {}}):
        with pytest.raises(UsageError):
            Root(schema)


@pytest.mark.parametrize(
    ("expression", "lengths", "right", "wrong"),
    [
        ("^[a-z]*$", (3, 5), ["abc", "abcde"], ["ab", "abcdef"]),
        ("^[a-z][a-z0-9_]*$", (3, 4), ["a_1", "ab12"], ["a1", "abcde"]),
        ("^[a-z]{2,9}$", (0, 3), ["ab", "abc"], ["a", "abcd"]),
        ("^[a-z]{2,9}$", (4, None), ["abcd", "abcdefghi"], ["abc", "abcdefghij"]),
        ('^"[^"]+$', (2, 3), ['"a', '"ab'], ['"', '"abc']),
    ],
)
def test_a_pattern_keeps_to_the_lengths_beside_it(
    expression: str, lengths: tuple[int, int | None], right: list[str], wrong: list[str]
) -> None:
    rule = as_expression(regex_rule(expression, plain_characters, "pattern", lengths))
    assert all(map(rule.fullmatch, right)) and not any(map(rule.fullmatch, wrong))


def test_a_pattern_that_leaves_no_text_of_that_length_is_told() -> None:
    assert regex_rule("^[a-z]{5,9}$", json_characters, "pattern", (0, 3)) == "[b-a]"
    with pytest.raises(UsageError, match="satisfies"):
        by_schema('{"type": "string", "pattern": "^[a-z]{5,9}$", "maxLength": 3}')


@pytest.mark.parametrize("expression", ["^$|^[a-z]{2}$", r"\Aab\Z", "^a|b$", "a|^b$|c", r"\$", r"a\\$"])
def test_the_marks_of_the_ends_may_stand_in_every_alternative(expression: str) -> None:
    held, plain = by_regex(expression), re.compile(expression)
    rule = as_expression(held.grammar.removeprefix("root ::= "))
    for text in ("", "a", "b", "c", "ab", "abc", "$", "a\\"):
        assert bool(rule.fullmatch(text)) == bool(plain.fullmatch(text))


def test_what_nothing_satisfies_is_not_begun() -> None:
    """A model that has written the name of such a property cannot go on."""
    never = {"type": "string", "minLength": 3, "maxLength": 2}
    for schema in (
        {"properties": {"a": False, "b": INT}, "required": ["b"]},
        {"properties": {"a": never, "b": INT}},
        {"properties": {"b": INT}, "additionalProperties": never},
        {"allOf": [{"properties": {"a": STR}}, {"properties": {"b": INT}, "additionalProperties": False}]},
    ):
        grammar = schema_grammar(Root(schema))
        begun = grammar.partition("\n")[0] + "".join(line for line in grammar.split("\n") if "[b-a]" not in line)
        assert "\\x22a\\x22" not in begun and "others" not in grammar.replace("[b-a]", "")
        assert "\\x22b\\x22" in begun


def test_a_property_that_one_part_wants_and_another_forbids_is_told_before_anything_is_written() -> None:
    base = {"properties": {"a": STR}, "required": ["a"]}
    closed = {"properties": {"b": INT}, "additionalProperties": False}
    with pytest.raises(UsageError, match="satisfies"):
        schema_grammar(Root({"allOf": [base, closed]}))
