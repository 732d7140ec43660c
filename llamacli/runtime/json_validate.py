"""Does a text satisfy a schema? The same keywords as in `json_schema`, asked after the answer is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from llamacli.runtime.json_schema import Root, Schema, equal, types_of
from llamacli.runtime.string_formats import matches_format


def fault_of(text: str, root: Root) -> str:
    """What is wrong with `text` as an answer to the schema; empty if nothing is."""
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return f"it is not complete JSON: {error}"
    return next(faults(value, root.schema, root), "")


def faults(value: Any, schema: Schema, root: Root, place: str = "$", depth: int = 0) -> Iterator[str]:
    """Everything that is wrong with a JSON value."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{place}: nothing is allowed here"
        return
    if depth > 500:
        yield f"{place}: nested too deeply"
        return
    if "type" in schema and not any(_is(value, name) for name in types_of(schema["type"])):
        yield f"{place}: not of type {schema['type']}"
    if "const" in schema and not equal(value, schema["const"]):
        yield f"{place}: not {json.dumps(schema['const'], ensure_ascii=False)}"
    if "enum" in schema and not any(equal(value, option) for option in schema["enum"]):
        yield f"{place}: not one of the allowed values"
    yield from _combined(value, schema, root, place, depth)
    for kind, check in _CHECKS:
        if _is(value, kind):
            yield from check(value, schema, root, place, depth)


def _combined(value: Any, schema: Mapping[str, Any], root: Root, place: str, depth: int) -> Iterator[str]:
    def fits(part: Schema) -> bool:
        return next(faults(value, part, root, place, depth + 1), None) is None

    if "$ref" in schema:
        yield from faults(value, root.at(schema["$ref"]), root, place, depth + 1)
    for part in schema.get("allOf", ()):
        yield from faults(value, part, root, place, depth + 1)
    if "anyOf" in schema and not any(map(fits, schema["anyOf"])):
        yield f"{place}: fits none of anyOf"
    if "oneOf" in schema and (count := sum(map(fits, schema["oneOf"]))) != 1:
        yield f"{place}: fits {count} of oneOf"


def _number(value: Any, schema: Mapping[str, Any], root: Root, place: str, depth: int) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{place}: {value} is below {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{place}: {value} is above {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"{place}: {value} is not above {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"{place}: {value} is not below {schema['exclusiveMaximum']}"
    if "multipleOf" in schema and Fraction(str(value)) % Fraction(str(schema["multipleOf"])):
        yield f"{place}: {value} is no multiple of {schema['multipleOf']}"


def _string(value: str, schema: Mapping[str, Any], root: Root, place: str, depth: int) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{place}: {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place}: does not match {schema['pattern']}"
    if "format" in schema and not matches_format(schema["format"], value):
        yield f"{place}: no {schema['format']}"


def _array(value: list[Any], schema: Mapping[str, Any], root: Root, place: str, depth: int) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{place}: {len(value)} items"
    if schema.get("uniqueItems") and any(equal(a, b) for i, a in enumerate(value) for b in value[:i]):
        yield f"{place}: an item comes twice"
    first = schema.get("prefixItems", [])
    for index, item in enumerate(value):
        part = first[index] if index < len(first) else schema.get("items", True)
        yield from faults(item, part, root, f"{place}[{index}]", depth + 1)


def _members(value: dict[str, Any], schema: Mapping[str, Any], root: Root, place: str, depth: int) -> Iterator[str]:
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        yield f"{place}: {len(value)} properties"
    yield from (f"{place}: {name} is missing" for name in schema.get("required", ()) if name not in value)
    own = schema.get("properties", {})
    for name, item in value.items():
        part = own[name] if name in own else schema.get("additionalProperties", True)
        yield from faults(item, part, root, f"{place}.{name}", depth + 1)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _PYTHON[kind])


_PYTHON: dict[str, Any] = {
    "null": type(None), "boolean": bool, "number": (int, float), "string": str, "array": list, "object": dict,
}  # fmt: skip
_Check = Callable[[Any, Mapping[str, Any], Root, str, int], Iterator[str]]
_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("number", _number),
    ("string", _string),
    ("array", _array),
    ("object", _members),
)


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a property comes twice")
    return out
