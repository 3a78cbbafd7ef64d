"""A space survives being written into a result and read back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from llmopt.records import InferenceParams, Parameter
from llmopt.search.recorded_space import space_from_plain, space_to_plain
from llmopt.search.space import Space

VALUES = st.lists(st.one_of(st.integers(1, 99), st.text("abc", min_size=1)), min_size=1, max_size=4, unique=True)


@given(VALUES, VALUES, st.booleans())
def test_what_is_read_back_is_the_same_space(first, second, conditional):
    space = Space(
        [
            Parameter(name="a", level="launch", values=tuple(first)),
            Parameter(
                name="b", level="launch", values=tuple(second), only_if={"a": (first[0],)} if conditional else {}
            ),
            Parameter(name="temperature", level="request", low=0.0, high=1.0),
        ],
        engine="fake",
        defaults={"a": first[0], "b": second[0], "c": 3},
        request_defaults=InferenceParams(temperature=0.0),
    )
    again = space_from_plain(json.loads(json.dumps(space_to_plain(space))))
    assert again.fingerprint == space.fingerprint
    assert [c.key for c in again.configurations()] == [c.key for c in space.configurations()]
