import itertools

from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.sse import Event, events


def cut(data, places):
    """``data`` in stamped pieces: the stamp of a piece is where it ends."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [(end, data[start:end]) for start, end in itertools.pairwise(edges)]


text = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=20)
blocks = st.lists(
    st.one_of(
        text.map(lambda t: (f"data: {t}", t)),
        text.map(lambda t: (f": {t}", None)),
        st.lists(text, min_size=2, max_size=3).map(lambda ts: ("\n".join(f"data: {t}" for t in ts), "\n".join(ts))),
        text.map(lambda t: (f"id: 1\nretry: 5\ndata: {t}", t)),
    ),
    max_size=6,
)


@given(blocks, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_however_the_bytes_are_cut_the_events_are_the_same(blocks, newline, places, bom):
    wire = "".join(block.replace("\n", newline) + newline * 2 for block, _ in blocks).encode()
    if bom:
        wire = b"\xef\xbb\xbf" + wire
    read = list(events(cut(wire, places)))
    assert [event.data.decode() for event in read] == [said for _, said in blocks if said is not None]
    assert all(event.whole for event in read)


@given(blocks.filter(bool), st.lists(st.integers(0, 10_000), max_size=12))
def test_an_event_has_the_stamp_of_the_read_that_ended_it(blocks, places):
    wire, ends = b"", []
    for block, said in blocks:
        wire += block.encode() + b"\n\n"
        if said is not None:
            ends.append(len(wire))
    pieces = cut(wire, places)
    arrivals = [next(at for at, _ in pieces if at >= end) for end in ends]
    assert [event.at_ns for event in events(pieces)] == arrivals


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=8))
def test_no_bytes_break_it(data, places):
    for event in events(cut(data, places)):
        assert isinstance(event, Event)


def test_a_name_is_kept_and_a_tail_is_marked():
    assert list(events([(1, b"event: error\ndata:x\n\ndata: half")])) == [
        Event(1, b"x", "error"),
        Event(1, b"half", "", whole=False),
    ]


def test_a_space_after_the_colon_is_dropped_once():
    assert [event.data for event in events([(1, b"data:  two\n\ndata:none\n\n")])] == [b" two", b"none"]
