"""Seeded random JSON Schemas: nested objects, arrays, enums, bounds, formats, alternatives and references."""

from __future__ import annotations

import random
from typing import Any

WORDS = ("name", "age", "tags", "kind", "größe", 'quo"te', "a b", "n", "name2", "kinder")


def random_schema(seed: int) -> dict[str, Any]:
    """One schema; every third one has definitions, some of which hold themselves."""
    dice = random.Random(seed)
    definitions: dict[str, Any] = {}
    if seed % 3 == 0:
        definitions["leaf"] = _value(dice, 1, ())
        definitions["node"] = {
            "type": "object",
            "properties": {"value": {"$ref": "#/$defs/leaf"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["value"],
        }
    schema = _object(dice, 3, tuple(definitions))
    if definitions:
        schema["$defs"] = definitions
    return schema


def _value(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    simple = [_integer, _number, _string, _enum, _plain]
    deep = [_object, _array, _either]
    if names and dice.random() < 0.2:
        return {"$ref": f"#/$defs/{dice.choice(names)}"}
    make = dice.choice(simple + deep if depth > 0 else simple)
    return make(dice, depth - 1, names)


def _object(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    keys = dice.sample(WORDS, dice.randint(1, 4))
    out: dict[str, Any] = {
        "type": "object",
        "properties": {key: _value(dice, depth - 1, names) for key in keys},
        "required": [key for key in keys if dice.random() < 0.6],
    }
    choice = dice.random()
    if choice < 0.3:
        out["additionalProperties"] = False
    elif choice < 0.4:
        out["additionalProperties"] = {"type": "boolean"}
        out["maxProperties"] = len(keys) + 1
    return out


def _array(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    low = dice.randint(0, 2)
    out: dict[str, Any] = {"type": "array", "items": _value(dice, depth - 1, names)}
    out |= {"minItems": low, "maxItems": low + dice.randint(0, 2)}
    if dice.random() < 0.2:
        out["prefixItems"] = [_value(dice, 0, names)]
    return out


def _either(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    parts = [_value(dice, depth - 1, names) for _ in range(dice.randint(2, 3))]
    return {dice.choice(["anyOf", "oneOf"]): parts}


def _integer(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    low = dice.randint(-2000, 2000)
    out: dict[str, Any] = {"type": "integer", "minimum": low, "exclusiveMaximum": low + dice.choice([1, 7, 100, 5000])}
    if dice.random() < 0.3:
        del out[dice.choice(["minimum", "exclusiveMaximum"])]
    return out


def _number(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    low = round(dice.uniform(-50, 50), 2)
    return {"type": "number", "exclusiveMinimum": low, "maximum": round(low + dice.choice([0.01, 0.5, 3, 120]), 2)}


def _string(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    low = dice.randint(0, 4)
    options = [
        {"minLength": low, "maxLength": low + dice.randint(0, 6)},
        {"pattern": dice.choice([r"^[A-Z]{2}-\d+$", r'^["\\a-c]{1,4}$', "(red|green) hat"])},
        {"format": dice.choice(["date", "uuid", "ipv4", "time", "email"])},
        {"maxLength": 12},
    ]
    return {"type": "string", **dice.choice(options)}


def _enum(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": dice.sample(["red", "blue", 'a "b"', 1, 2.5, True, None, ["x"], {"k": 1}], dice.randint(1, 4))}


def _plain(dice: random.Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": dice.choice(["boolean", "null", ["boolean", "null"]])}
