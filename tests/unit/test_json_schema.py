"""The schema keywords we check: allowed and forbidden values of each, and refusal of what we do not know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import DataError
from llmopt.measure.evaluators.schema import check_schema, conforms

TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}

CASES = [
    ({"type": "integer"}, [1, 1.0, -3], [1.5, "1", True, None]),
    ({"type": "number"}, [1, 1.5], ["1", False]),
    ({"type": ["string", "null"]}, ["", None], [1, []]),
    ({"enum": ["가", 1]}, ["가", 1, 1.0], ["나", True]),
    ({"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}, {"a": [1, 1]}]),
    ({"properties": {"a": {"type": "string"}}}, [{}, {"a": "x"}, 3], [{"a": 1}]),
    ({"required": ["a"]}, [{"a": None}, "text"], [{}]),
    ({"additionalProperties": False, "properties": {"a": True}}, [{"a": 1}, {}], [{"b": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "1"}]),
    (
        {"patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": False},
        [{"n1": 1}],
        [{"n1": "1"}, {"m": 1}],
    ),
    ({"propertyNames": {"maxLength": 2}}, [{"ab": 1}], [{"abc": 1}]),
    ({"minProperties": 1, "maxProperties": 2}, [{"a": 1}], [{}, {"a": 1, "b": 1, "c": 1}]),
    ({"items": {"type": "integer"}}, [[], [1, 2], "x"], [[1, "2"]]),
    ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, [["a", 1], ["a"]], [[1], ["a", "b"]]),
    ({"contains": {"const": 3}}, [[1, 3]], [[1, 2], []]),
    ({"minItems": 1, "maxItems": 2}, [[1]], [[], [1, 2, 3]]),
    ({"uniqueItems": True}, [[1, 2], [1, True]], [[1, 1.0], [{"a": 1}, {"a": 1}]]),
    ({"minLength": 2, "maxLength": 3}, ["가나", 5], ["가", "가나다라"]),
    ({"pattern": "^\\d+원$"}, ["35원", 5], ["35", "원"]),
    ({"minimum": 0, "maximum": 10}, [0, 10, "x"], [-1, 10.5]),
    ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1]),
    ({"multipleOf": 0.1}, [0.3, 2], [0.35]),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, [3], [2, 3.5]),
    ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ["x", 4], [2]),
    ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, [1, 3.5], [4, 1.5]),
    ({"not": {"type": "string"}}, [1], ["x"]),
    (TREE, [{}, {"next": {"next": {}}}], [{"next": 1}, {"next": {"next": []}}]),
    (True, [1, None], []),
    (False, [], [1, None]),
    ({"title": "제목", "description": "설명"}, [1, "x"], []),
]


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_each_keyword(schema, good, bad):
    check_schema(schema)
    assert [value for value in good if not conforms(value, schema)] == []
    assert [value for value in bad if conforms(value, schema)] == []


@pytest.mark.parametrize(
    "schema",
    [
        {"unevaluatedProperties": False},
        {"properties": {"a": {"if": {}}}},
        {"anyOf": [{"dependentRequired": {}}]},
        {"items": 3},
    ],
)
def test_unknown_keywords_are_refused(schema):
    with pytest.raises(DataError) as caught:
        check_schema(schema)
    assert caught.value.next_step


def test_a_reference_to_nowhere_is_refused():
    with pytest.raises(DataError):
        conforms({}, {"$ref": "#/$defs/none"})


def test_an_endless_reference_ends():
    assert conforms(1, {"$ref": "#"}) is False


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_a_value_equals_only_itself(value):
    assert conforms(value, {"const": value})
    assert conforms(value, {"anyOf": [{"type": t} for t in ("object", "array", "string", "boolean", "null", "number")]})
    assert not conforms([value], {"const": value}) or isinstance(value, list)
