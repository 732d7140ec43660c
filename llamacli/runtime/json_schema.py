"""JSON Schema as far as it is known here: what is read, how parts that apply together become one.

Known are the keywords of KNOWN (draft 2020-12, with `definitions` of older ones). A keyword that restricts the output
and is not known is refused, never passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from llamacli.errors import UsageError
from llamacli.runtime.older_schemas import LISTS, NAMED, SINGLE, modern

Schema = Mapping[str, Any] | bool

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

KNOWN = frozenset(
    {
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "name"),
        *("$schema", "$id", "$anchor", "$comment", "contentMediaType", "contentEncoding", "strict"),
        *("id", "discriminator", "externalDocs", "xml"),
    }
)
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
MAX_DEPTH = 100
_DEEPER = 32
"""References that may follow one another before something is said."""


class Root:
    """A whole schema, checked. Raises UsageError for what is no schema or not known."""

    def __init__(self, schema: Any) -> None:
        self.schema: Schema = modern(schema)
        _check(self.schema, "#", 0)

    def at(self, reference: str) -> Schema:
        """What a reference such as `#/$defs/node` names. Raises UsageError."""
        if not reference.startswith("#"):
            raise UsageError(
                f"the schema refers to {reference}", "only references within the schema are followed: #/..."
            )
        place: Any = self.schema
        for part in reference[1:].lstrip("/").split("/") if reference not in ("#", "#/") else ():
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
                place = place[int(name)]
            elif isinstance(place, Mapping) and name in place:
                place = place[name]
            else:
                raise UsageError(f"the schema refers to {reference}, which is not in it")
        if not isinstance(place, (Mapping, bool)):
            raise UsageError(f"the schema refers to {reference}, which is no schema")
        return place

    def resolved(self, schema: Schema, depth: int = 0) -> Schema:
        """The same schema without `$ref` and `allOf` at its top."""
        if isinstance(schema, bool) or not ({"$ref", "allOf"} & schema.keys()):
            return schema
        if depth > _DEEPER:
            raise UsageError("the schema's references lead around in a circle")
        out: Schema = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        parts = [self.at(schema["$ref"])] if "$ref" in schema else []
        for part in (*parts, *schema.get("allOf", ())):
            out = merged(out, self.resolved(part, depth + 1))
        return self.resolved(out, depth + 1)


def merged(a: Schema, b: Schema) -> Schema:
    """One schema for what satisfies both. Raises UsageError where that cannot be said in one."""
    if isinstance(a, bool) or isinstance(b, bool):
        return (b if a else False) if isinstance(a, bool) else (a if b else False)
    a, b = _closed(a, b), _closed(b, a)
    out: dict[str, Any] = dict(a)
    for key, value in b.items():
        if key not in out or out[key] == value:
            out[key] = value
        elif key in _JOINED:
            out[key] = _JOINED[key](out[key], value)
        elif key in ("anyOf", "oneOf"):
            out.setdefault("allOf", [])
            out["allOf"] = [*out["allOf"], {"anyOf": [merged(x, y) for x in out.pop(key) for y in value]}]
        elif key in KNOWN:
            raise UsageError(f"the schema asks for two things at once in {key}: {_short(out[key])}, {_short(value)}")
    return out


def _closed(a: Mapping[str, Any], b: Mapping[str, Any]) -> Mapping[str, Any]:
    """`a`, whose own properties are further ones to `b`, which may have something to say of those."""
    extra = b.get("additionalProperties", True)
    foreign = a.get("properties", {}).keys() - b.get("properties", {}).keys()
    if extra is True or not foreign:
        return a
    own = a["properties"]
    return {**a, "properties": {n: {"allOf": [own[n], extra]} if n in foreign else own[n] for n in own}}


def _types(a: Any, b: Any) -> list[str]:
    first, second = types_of(a), types_of(b)
    both = [name for name in first if name in second]
    if "integer" not in both and ("integer" in first + second) and "number" in first + second:
        both.append("integer")
    return both


def types_of(value: Any) -> list[str]:
    """The names in `type`."""
    return [value] if isinstance(value, str) else list(value)


def _properties(a: Mapping[str, Schema], b: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: {"allOf": [a[name], b[name]]} if name in a and name in b else {**a, **b}[name] for name in {**a, **b}}


_JOINED: dict[str, Any] = {
    "type": _types,
    "properties": _properties,
    "$defs": lambda a, b: {**a, **b},
    "definitions": lambda a, b: {**a, **b},
    "required": lambda a, b: [*a, *(name for name in b if name not in a)],
    "enum": lambda a, b: [x for x in a if any(equal(x, y) for y in b)],
    "items": lambda a, b: {"allOf": [a, b]},
    "additionalProperties": lambda a, b: {"allOf": [a, b]},
    "uniqueItems": lambda a, b: a or b,
    **dict.fromkeys(("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"), max),
    **dict.fromkeys(("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"), min),
}


def equal(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0, but true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def inferred_types(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema allows; where it names none, those that its other keywords speak of, or all."""
    if "type" in schema:
        return types_of(schema["type"])
    for kind, keys in (
        ("object", ("properties", "required", "additionalProperties", "minProperties", "maxProperties")),
        ("array", ("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
        ("string", ("minLength", "maxLength", "pattern", "format")),
        ("number", _BOUNDS),
    ):
        if any(key in schema for key in keys):
            return [kind]
    return [name for name in TYPES if name != "integer"]


def read_schema(text: str) -> Root:
    """A schema from text: JSON, or the concise form `name, age int, tags[]`. Raises UsageError."""
    text = text.strip()
    if text[:1] in ("{", "[") or text in ("true", "false"):
        try:
            return Root(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the schema is not JSON: {error}") from None
    return Root(concise(text))


_WORDS = {
    "str": "string", "string": "string", "text": "string", "int": "integer", "integer": "integer",
    "float": "number", "number": "number", "bool": "boolean", "boolean": "boolean",
}  # fmt: skip
_FIELD = re.compile(r"([^\s\[\]:]+)(\[\])?(?:\s+([a-z]+)(\[\])?)?(\[\])?(?:\s*:\s*(.*))?", re.DOTALL)


def concise(text: str) -> dict[str, Any]:
    """`name, age int, tags[]` as an object in which all is required: NAME [TYPE][[]] [: DESCRIPTION].

    Fields are separated by commas, or by lines if there are several. Raises UsageError.
    """
    parts = [part.strip() for part in (text.split("\n") if "\n" in text else text.split(","))]
    properties: dict[str, Any] = {}
    for part in (part.rstrip(",") for part in parts if part):
        found = _FIELD.fullmatch(part)
        if found is None or (found[3] and found[3] not in _WORDS):
            raise UsageError(
                f"--schema: {part!r} is no field",
                "a JSON Schema file, or fields such as: name, age int, tags[]   (types: str, int, float, bool)",
            )
        kind: dict[str, Any] = {"type": _WORDS[found[3] or "str"]}
        if found[2] or found[4] or found[5]:
            kind = {"type": "array", "items": kind}
        if found[6]:
            kind["description"] = found[6]
        properties[found[1]] = kind
    if not properties:
        raise UsageError("--schema: it is empty", "a JSON Schema file, or fields such as: name, age int, tags[]")
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


# -- is it a schema? -----------------------------------------------------------------------------------------------


def _check(schema: Any, place: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise UsageError(f"the schema is wrong at {place}: an object expected, not {_short(schema)}")
    if depth > MAX_DEPTH:
        raise UsageError(f"the schema nests deeper than {MAX_DEPTH}")
    for key in schema:
        if key not in KNOWN and key not in ANNOTATIONS and not key.startswith("x-"):
            raise UsageError(f"the schema uses {key} at {place}, which is not supported")
    _check_values(schema, place)
    for key in LISTS:
        for index, part in enumerate(_of(list, schema, key, place, [])):
            _check(part, f"{place}/{key}/{index}", depth + 1)
    for key in NAMED:
        for name, part in _of(dict, schema, key, place, {}).items():
            _check(part, f"{place}/{key}/{name}", depth + 1)
    for key in SINGLE:
        if key in schema:
            _check(schema[key], f"{place}/{key}", depth + 1)


def _of(kind: type, schema: dict[str, Any], key: str, place: str, default: Any) -> Any:
    value = schema.get(key, default)
    if not isinstance(value, kind):
        raise UsageError(f"the schema is wrong at {place}/{key}: {_short(value)}")
    return value


def _check_values(schema: dict[str, Any], place: str) -> None:
    def wrong(key: str) -> UsageError:
        return UsageError(f"the schema is wrong at {place}/{key}: {_short(schema[key])}")

    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not names or any(name not in TYPES for name in names):
            raise wrong("type")
    for key in ("anyOf", "oneOf", "enum"):
        if key in schema and (not isinstance(schema[key], list) or not schema[key]):
            raise wrong(key)
    for key in _COUNTS:
        if key in schema and (type(schema[key]) is not int or schema[key] < 0):
            raise wrong(key)
    for key in _BOUNDS:
        if key in schema and (isinstance(schema[key], bool) or not isinstance(schema[key], (int, float))):
            raise wrong(key)
    if schema.get("multipleOf", 1) <= 0:
        raise wrong("multipleOf")
    for key in ("$ref", "pattern", "format"):
        if key in schema and not isinstance(schema[key], str):
            raise wrong(key)
    names = schema.get("required", [])
    if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
        raise wrong("required")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
