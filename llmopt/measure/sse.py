"""Server-sent events from stamped bytes (the event-stream format of the WHATWG HTML standard, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Event", "events"]

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: ``at_ns`` is the read that brought its end, ``data`` its data lines joined."""

    at_ns: int
    data: bytes
    name: str = ""
    whole: bool = True
    """False for what was left without its closing blank line when the stream ended."""


def events(chunks: Iterable[tuple[int, bytes]]) -> Iterator[Event]:
    """The events with data, in order; comments, ids and retry times pass silently, however the bytes were cut."""
    rest, after_cr, started, at_ns = b"", False, False, 0
    for at_ns, raw in chunks:
        if started and not rest and _is_one_plain_event(raw):
            after_cr = False
            yield Event(at_ns, raw[6:-2])
            continue
        data = raw[1:] if after_cr and raw[:1] == b"\n" else raw
        if b"\r" in raw:
            after_cr = raw.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif raw:
            after_cr = False
        buffer = rest + data if rest else data
        if not started:
            if len(buffer) < len(BOM) and BOM.startswith(buffer):
                rest = buffer
                continue
            buffer, started = buffer.removeprefix(BOM), True
        *blocks, rest = buffer.split(b"\n\n")
        for block in blocks:
            event = _event(at_ns, block)
            if event is not None:
                yield event
    tail = _event(at_ns, rest)
    if tail is not None:
        yield tail._replace(whole=False)


def _is_one_plain_event(raw: bytes) -> bool:
    """What nearly every read brings: one data line and the blank line that ends it."""
    return raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.count(b"\n") == 2 and b"\r" not in raw  # noqa: PLR2004


def _event(at_ns: int, block: bytes) -> Event | None:
    """One block of lines; None where it holds no data."""
    if block.startswith(b"data: ") and b"\n" not in block:  # what nearly every event looks like
        return Event(at_ns, block[6:])
    lines: list[bytes] = []
    name = ""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return Event(at_ns, b"\n".join(lines), name) if lines else None
