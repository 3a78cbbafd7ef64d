"""Lines for people: nothing is lost, nothing that can be broken is too wide."""

from hypothesis import given
from hypothesis import strategies as st

from llmopt.cli.lines import cells, fitted

TEXT = st.text(st.sampled_from("ab가나,. \n"), max_size=300)


@given(TEXT, st.integers(0, 8), st.integers(20, 90))
def test_what_can_be_broken_fits_and_no_word_is_lost(text, indent, width):
    shown = fitted(text, indent, width=width)
    assert shown.split() == text.split()
    for line in shown.splitlines():
        assert cells(line) <= width or len(line.split()) == 1
        assert not line.strip() or line.startswith(" " * indent)


def test_a_korean_letter_takes_two_cells():
    assert cells("가a") == 3
