"""A JSON Schema as a GBNF grammar: what it allows satisfies the schema, or at least what a grammar can say of it.

Properties come in the order of the schema; a schema that does not speak of further properties gets none. Uniqueness,
`oneOf` and the like are left to the check of the finished answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from llamacli.errors import SchemaError, UsageError
from llamacli.runtime import number_grammar
from llamacli.runtime.gbnf import either, inverse, literal, repeated
from llamacli.runtime.grammar import MAX_REPETITIONS, check_grammar
from llamacli.runtime.json_schema import KNOWN, Root, Schema, inferred_types, merged
from llamacli.runtime.json_validate import faults
from llamacli.runtime.regex_grammar import json_characters, regex_rule
from llamacli.runtime.string_formats import FORMATS

_SHARED = {
    "ws": '(" " | "\\n" [ ]{0,20})?',
    "char": '[^"\\\\\\x00-\\x1f\\x7f\\ud800-\\udfff\\U00110000-\\U001fffff] | "\\\\" (["\\\\/bfnrt] | '
    '"u" ([0-9a-cA-CeEfF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))',
    "string": '"\\"" char* "\\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9] [0-9]?)?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "member": 'string ws ":" ws value',
    "object": '"{" ws (member ("," ws member)*)? ws "}"',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
    "value": "object | array | string | number | boolean | null",
}
_USES = {
    "string": ("char",), "object": ("value", "ws"), "array": ("value", "ws"),
    "value": ("object", "array", "string", "number", "boolean", "null", "ws", "member"), "member": ("string", "value"),
}  # fmt: skip
_SAYING = KNOWN - {"$defs", "definitions"}
_MANY = 400
"""Values that are written out one by one."""


def schema_grammar(root: Root) -> str:
    """The grammar for a schema. Raises UsageError for what it cannot say, or where nothing satisfies it."""
    writer = _Writer(root)
    try:
        body = writer.rule_for(root.schema, "answer")
    except RecursionError:
        raise UsageError("the schema holds itself in a way that no grammar can say") from None
    text = "\n".join([f"root ::= {body}", *(f"{name} ::= {rule}" for name, rule in writer.rules.items())])
    try:
        check_grammar(text)
    except SchemaError as error:
        raise UsageError(f"nothing finite satisfies the schema, or it is too large: {error.message}") from None
    return text


class _Writer:
    def __init__(self, root: Root) -> None:
        self._root = root
        self.rules: dict[str, str] = {}
        self._references: dict[str, str] = {}
        self._count = 0

    # -- rules -------------------------------------------------------------------------------------------------

    def rule_for(self, schema: Schema, name: str) -> str:
        """The name of a rule for `schema`."""
        if isinstance(schema, Mapping) and "$ref" in schema and not (schema.keys() - {"$ref", "description", "title"}):
            return self._reference(schema["$ref"])
        return self._add(self._body(self._root.resolved(schema), name), name)

    def _reference(self, reference: str) -> str:
        """Each part of a schema that is referred to has one rule, so that it may hold itself."""
        if reference not in self._references:
            name = self._fresh(reference.rsplit("/", 1)[-1])
            self._references[reference] = name
            target = self._root.at(reference)
            self.rules[name] = self.rule_for(target, name)
        return self._references[reference]

    def _add(self, body: str, name: str) -> str:
        if body in self.rules:
            return body
        fresh = self._fresh(name)
        self.rules[fresh] = body
        return fresh

    def _fresh(self, name: str) -> str:
        self._count += 1
        clean = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)[:24]
        return f"{clean}-{self._count}"

    def _shared(self, name: str) -> str:
        if name not in self.rules:
            self.rules[name] = _SHARED[name]
            for other in _USES.get(name, ()):
                self._shared(other)
        return name

    # -- values ------------------------------------------------------------------------------------------------

    def _body(self, schema: Schema, name: str) -> str:
        if schema is True:
            return self._shared("value")
        if schema is False:
            return "[b-a]"
        assert isinstance(schema, Mapping)
        if "const" in schema or "enum" in schema:
            return self._values(schema)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                rest = {other: schema[other] for other in schema.keys() & _SAYING - {key}}
                options = [self.rule_for(merged(rest, part), name) if rest else self.rule_for(part, name)
                           for part in map(self._plain, schema[key])]  # fmt: skip
                return " | ".join(dict.fromkeys(options))
        kinds = [self._of_type(kind, schema, name) for kind in inferred_types(schema)]
        return " | ".join(dict.fromkeys(kinds)) or "[b-a]"

    def _plain(self, part: Schema) -> Schema:
        """A branch that is only a reference stays one, so that it may be recursive."""
        if isinstance(part, Mapping) and "$ref" in part:
            return part if not (part.keys() - {"$ref", "description", "title"}) else self._root.resolved(part)
        return part

    def _values(self, schema: Mapping[str, Any]) -> str:
        options = [schema["const"]] if "const" in schema else schema["enum"]
        # Each is one of `enum` where it was taken from it: asked again, thousands of them would take minutes.
        others = schema if "const" in schema else {key: value for key, value in schema.items() if key != "enum"}
        fitting = [option for option in options if next(faults(option, others, self._root), None) is None]
        if not fitting:
            return "[b-a]"
        return " | ".join(literal(json.dumps(option, ensure_ascii=False)) for option in fitting)

    def _of_type(self, kind: str, schema: Mapping[str, Any], name: str) -> str:
        if kind == "object":
            return self._object(schema, name)
        if kind == "array":
            return self._array(schema, name)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(kind, schema)
        return self._shared(kind)

    # -- strings and numbers -----------------------------------------------------------------------------------

    def _string(self, schema: Mapping[str, Any]) -> str:
        expression = schema.get("pattern") or FORMATS.get(schema.get("format", ""))
        if expression:
            lengths = schema.get("minLength", 0), schema.get("maxLength")
            inner = regex_rule(expression, json_characters, "the schema's pattern", lengths)
            return f'"\\"" ({inner}) "\\""'
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        if high is not None and high < low:
            return "[b-a]"
        if low > MAX_REPETITIONS:
            raise UsageError(f"the schema asks for {low:,} characters; at most {MAX_REPETITIONS:,} can be asked for")
        if low == 0 and high is None:
            return self._shared("string")
        self._shared("char")
        return f'"\\"" {repeated("char", low, high)} "\\""'

    def _number(self, kind: str, schema: Mapping[str, Any]) -> str:
        bounds = number_grammar.Bounds.of(schema)
        step = schema.get("multipleOf")
        if step is not None:
            listed = bounds.multiples(Fraction(str(step)), _MANY, whole=kind == "integer")
            if listed is not None:
                return " | ".join(map(literal, listed)) or "[b-a]"
            if float(step).is_integer():
                kind = "integer"
        if bounds.free:
            return self._shared(kind)
        return number_grammar.integers(bounds) if kind == "integer" else number_grammar.numbers(bounds)

    # -- arrays and objects ------------------------------------------------------------------------------------

    def _array(self, schema: Mapping[str, Any], name: str) -> str:
        self._shared("ws")
        first = [self.rule_for(part, f"{name}-{index}") for index, part in enumerate(schema.get("prefixItems", ()))]
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        rest = schema.get("items", not first)
        if low > MAX_REPETITIONS:
            raise UsageError(f"the schema asks for {low:,} items; at most {MAX_REPETITIONS:,} can be asked for")
        if (high is not None and high < low) or (rest is False and len(first) < low):
            return "[b-a]"
        if high == 0 or (rest is False and not first):
            return '"[" ws "]"'
        parts = first if high is None else first[:high]
        if rest is False or (high is not None and high <= len(parts)):
            body = self._some(parts, low, "")
        else:
            item = self.rule_for(rest, f"{name}-item")
            more = self._add(f'"," ws {item}', f"{name}-more")
            left = None if high is None else high - max(len(parts), 1)
            tail = repeated(more, max(low - max(len(parts), 1), 0), left) if left != 0 else ""
            body = self._some(parts or [item], low, tail)
        return f'"[" ws {body} ws "]"'

    def _some(self, parts: Sequence[str], low: int, tail: str) -> str:
        """The first items; those after the `low`th may be left out, and all after them."""
        body = tail
        for index in range(len(parts) - 1, -1, -1):
            item = f'"," ws {parts[index]}' if index else parts[index]
            body = f"{item} {body}".strip()
            if index >= low:
                body = f"({body})?"
        return body

    def _object(self, schema: Mapping[str, Any], name: str) -> str:
        own: dict[str, Schema] = dict(schema.get("properties", {}))
        required = list(schema.get("required", ()))
        extra = schema.get("additionalProperties", not own and not required)
        for key in required:
            own.setdefault(key, schema.get("additionalProperties", True))
        self._shared("ws")
        members = []
        for key, part in own.items():
            value = self.rule_for(part, key)
            if key in required or not self._is_never(value):
                members.append((self._member(key, value, name), key in required))
        least = schema.get("minProperties", 0) - sum(needed for _, needed in members)
        most = schema.get("maxProperties")
        others = self._others(extra, list(own), name) if extra is not False else ""
        if own:
            least = 0 if not others else max(least - sum(not needed for _, needed in members), 0)
        left = None if most is None else max(most - len(own), 0)
        inner = self._members(members, others, least, left, name)
        return f'"{{" ws {inner} ws "}}"' if inner else '"{" ws "}"'

    def _is_never(self, rule: str) -> bool:
        """Whether nothing satisfies a rule: what may be left out then is, or an answer that has begun it is lost."""
        return self.rules.get(rule) == "[b-a]"

    def _member(self, key: str, value: str, name: str) -> str:
        return self._add(f'{literal(json.dumps(key, ensure_ascii=False))} ws ":" ws {value}', f"{name}-{key}")

    def _others(self, extra: Schema, taken: Sequence[str], name: str) -> str:
        """A member whose name is not one of `taken`; nothing where none is possible."""
        value = self.rule_for(extra, f"{name}-other")
        if self._is_never(value):
            return ""
        return self._add(f'"\\"" ({self._other_name(list(taken))}) "\\"" ws ":" ws {value}', f"{name}-others")

    def _other_name(self, taken: list[str]) -> str:
        """One or more characters that spell none of `taken`; names are written without escapes."""
        plain = json_characters(inverse([(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]))
        heads = sorted({text[0] for text in taken if text})
        if not heads:
            return f"{plain}+"
        options = [json_characters(_except([(ord(head), ord(head)) for head in heads])) + f" {plain}*"]
        for head in heads:
            tails = [text[1:] for text in taken if text[:1] == head]
            end = [] if "" in tails else ['""']
            further = self._other_name([tail for tail in tails if tail])
            options.append(f"{literal(head)} {either([*end, f'({further})'])}")
        return " | ".join(options)

    def _members(
        self, members: Sequence[tuple[str, bool]], others: str, least: int, most: int | None, name: str
    ) -> str:
        """The members in order, commas between those that are there."""
        more = ""
        if others and most != 0:
            more = repeated(self._add(f'"," ws {others}', f"{name}-more"), least, most)
        tails = [more]
        for member, needed in reversed(members):
            item = f'"," ws {member}'
            tails.append(self._add(f"{item if needed else f'({item})?'} {tails[-1]}".strip(), f"{name}-rest"))
        tails.reverse()
        head = ""
        if more:
            left = None if most is None else most - 1
            further = repeated(self._add(f'"," ws {others}', f"{name}-more"), max(least - 1, 0), left)
            head = f"{others} {further}" if left != 0 else others
            head = head if least else f"({head})?"
        for (member, needed), tail in zip(reversed(members), reversed(tails[1:]), strict=True):
            start = f"{member} {tail}".strip()
            head = start if needed else f"({start} | {head})" if head else f"({start})?"
        return head


def _except(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return inverse([*ranges, (0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)])
