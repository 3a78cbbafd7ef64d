"""Which JSON values a JSON schema allows: the keywords of draft 2020-12 that describe model output.

A schema with a keyword we do not know is refused, since ignoring it would call wrong answers right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any

from llmopt.errors import DataError

__all__ = ["check_schema", "conforms"]

Schema = Mapping[str, Any] | bool


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_NOTES = frozenset(
    ("$schema", "$id", "$defs", "definitions", "$comment", "title", "description", "default", "examples", "format")
)
_MOST_DEPTH = 64


def check_schema(schema: Schema) -> None:
    """Raise DataError ``quality.schema`` where the schema, or one inside it, uses what we cannot check."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise DataError("quality.schema", keyword=type(schema).__name__)
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS and keyword not in _NOTES:
            raise DataError("quality.schema", keyword=keyword)
        if keyword in {"properties", "patternProperties", "$defs", "definitions"}:
            inner = list(value.values())
        elif keyword in {"anyOf", "oneOf", "allOf", "prefixItems"}:
            inner = list(value)
        elif keyword in {"items", "additionalProperties", "not", "contains", "propertyNames"}:
            inner = [value]
        else:
            inner = []
        for one in inner:
            check_schema(one)


def conforms(value: Any, schema: Schema, *, root: Schema | None = None, depth: int = 0) -> bool:
    """Whether the value is allowed; recursion through ``$ref`` ends after 64 levels with *no*."""
    if isinstance(schema, bool):
        return schema
    if depth > _MOST_DEPTH:
        return False
    context = _Context(schema, root if root is not None else schema, depth)
    return all(_KEYWORDS[keyword](value, wanted, context) for keyword, wanted in schema.items() if keyword in _KEYWORDS)


class _Context:
    """The schema a keyword stands in, and how to check a value against another."""

    def __init__(self, schema: Mapping[str, Any], root: Schema, depth: int) -> None:
        self.schema = schema
        self._root = root
        self._depth = depth

    def allows(self, value: Any, schema: Schema) -> bool:
        return conforms(value, schema, root=self._root, depth=self._depth + 1)

    def resolve(self, reference: str) -> Schema:
        """The schema a local reference (``#/$defs/name``) points to."""
        found: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                key = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, Mapping) or key not in found:
                    raise DataError("quality.schema", keyword=reference)
                found = found[key]
        schema: Schema = found
        return schema


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 and 1.0 are one number, 1 and true are not the same."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)


def _type(value: Any, wanted: Any, context: _Context) -> bool:
    del context
    names = [wanted] if isinstance(wanted, str) else wanted
    return any(_TYPES[name](value) for name in names)


def _properties(value: Any, wanted: Mapping[str, Schema], context: _Context) -> bool:
    if not isinstance(value, dict):
        return True
    return all(context.allows(value[name], schema) for name, schema in wanted.items() if name in value)


def _pattern_properties(value: Any, wanted: Mapping[str, Schema], context: _Context) -> bool:
    if not isinstance(value, dict):
        return True
    pairs = (
        (inner, schema)
        for pattern, schema in wanted.items()
        for name, inner in value.items()
        if re.search(pattern, name)
    )
    return all(context.allows(inner, schema) for inner, schema in pairs)


def _additional(value: Any, wanted: Schema, context: _Context) -> bool:
    if not isinstance(value, dict):
        return True
    named = context.schema.get("properties", {})
    patterns = context.schema.get("patternProperties", {})
    others = (name for name in value if name not in named and not any(re.search(p, name) for p in patterns))
    return all(context.allows(value[name], wanted) for name in others)


def _items(value: Any, wanted: Schema, context: _Context) -> bool:
    if not isinstance(value, list):
        return True
    return all(context.allows(one, wanted) for one in value[len(context.schema.get("prefixItems", ())) :])


def _length(kind: type[Sized], *, least: bool) -> Callable[[Any, Any, _Context], bool]:
    def check(value: Any, wanted: Any, context: _Context) -> bool:
        del context
        return not isinstance(value, kind) or (len(value) >= wanted if least else len(value) <= wanted)

    return check


def _bound(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any, _Context], bool]:
    return lambda value, wanted, _: not _is_number(value) or holds(value, wanted)


_KEYWORDS: Mapping[str, Callable[[Any, Any, _Context], bool]] = {
    "$ref": lambda value, wanted, context: context.allows(value, context.resolve(wanted)),
    "type": _type,
    "enum": lambda value, wanted, _: any(_same(value, one) for one in wanted),
    "const": lambda value, wanted, _: _same(value, wanted),
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "propertyNames": lambda value, wanted, context: (
        not isinstance(value, dict) or all(context.allows(name, wanted) for name in value)
    ),
    "required": lambda value, wanted, _: not isinstance(value, dict) or all(name in value for name in wanted),
    "minProperties": _length(dict, least=True),
    "maxProperties": _length(dict, least=False),
    "items": _items,
    "prefixItems": lambda value, wanted, context: (
        not isinstance(value, list) or all(map(context.allows, value, wanted))
    ),
    "contains": lambda value, wanted, context: (
        not isinstance(value, list) or any(context.allows(one, wanted) for one in value)
    ),
    "minItems": _length(list, least=True),
    "maxItems": _length(list, least=False),
    "uniqueItems": lambda value, wanted, _: (
        not wanted
        or not isinstance(value, list)
        or not any(_same(one, two) for n, one in enumerate(value) for two in value[:n])
    ),
    "minLength": _length(str, least=True),
    "maxLength": _length(str, least=False),
    "pattern": lambda value, wanted, _: not isinstance(value, str) or bool(re.search(wanted, value)),
    "minimum": _bound(lambda value, wanted: value >= wanted),
    "maximum": _bound(lambda value, wanted: value <= wanted),
    "exclusiveMinimum": _bound(lambda value, wanted: value > wanted),
    "exclusiveMaximum": _bound(lambda value, wanted: value < wanted),
    "multipleOf": _bound(lambda value, wanted: math.isclose(value / wanted, round(value / wanted), abs_tol=1e-9)),
    "allOf": lambda value, wanted, context: all(context.allows(value, one) for one in wanted),
    "anyOf": lambda value, wanted, context: any(context.allows(value, one) for one in wanted),
    "oneOf": lambda value, wanted, context: sum(context.allows(value, one) for one in wanted) == 1,
    "not": lambda value, wanted, context: not context.allows(value, wanted),
}
