"""JSON Schemas of older drafts and of OpenAPI 3.0, said in the words of draft 2020-12."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "$defs", "definitions")
SINGLE = ("items", "additionalProperties")


def modern(schema: Any) -> Any:
    """The same schema without `nullable`, bounds that are true or false, and lists of items. Wrong ones stay wrong."""
    if not isinstance(schema, Mapping):
        return schema
    out = dict(schema)
    _tuple(out)
    for open_bound, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        _bound(out, open_bound, bound)
    for key in LISTS:
        if isinstance(out.get(key), list):
            out[key] = [modern(part) for part in out[key]]
    for key in NAMED:
        if isinstance(out.get(key), Mapping):
            out[key] = {name: modern(part) for name, part in out[key].items()}
    for key in SINGLE:
        if key in out:
            out[key] = modern(out[key])
    return _nullable(out) if isinstance(out.get("nullable"), bool) else out


def _tuple(schema: dict[str, Any]) -> None:
    """Up to 2019, `items` could be the list of the first ones, and `additionalItems` spoke of the others."""
    more = schema.pop("additionalItems", True) if isinstance(schema.get("additionalItems"), (bool, Mapping)) else True
    if isinstance(schema.get("items"), list):
        schema["prefixItems"], schema["items"] = schema["items"], more


def _bound(schema: dict[str, Any], open_bound: str, bound: str) -> None:
    """In draft 4, `exclusiveMinimum: true` said that `minimum` itself is left out."""
    if isinstance(schema.get(open_bound), bool) and schema.pop(open_bound) and bound in schema:
        schema[open_bound] = schema.pop(bound)


def _nullable(schema: dict[str, Any]) -> Any:
    """OpenAPI 3.0: null besides what the rest allows."""
    if not schema.pop("nullable"):
        return schema
    shared = {key: schema.pop(key) for key in ("$defs", "definitions") if key in schema}
    return {"anyOf": [schema, {"type": "null"}], **shared}
