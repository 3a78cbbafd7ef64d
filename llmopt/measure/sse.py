"""Server-sent events from stamped bytes (the event-stream format of the WHATWG HTML standard, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["Event", "Splitter", "events"]

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: ``at_ns`` is the read that brought its end, ``data`` its data lines joined."""

    at_ns: int
    data: bytes
    name: str = ""
    whole: bool = True
    """False for what was left without its closing blank line when the stream ended."""


class Splitter:
    """Cuts reads into events, however the bytes were cut on their way; comments, ids and retry times pass silently."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._started = False
        self._at_ns = 0

    @property
    def between_events(self) -> bool:
        """Whether the next read begins a new event."""
        return self._started and not self._rest and not self._after_cr

    def feed(self, at_ns: int, raw: bytes) -> list[Event]:
        """The events that this read ended."""
        self._at_ns = at_ns
        data = raw[1:] if self._after_cr and raw[:1] == b"\n" else raw
        if b"\r" in raw:
            self._after_cr = raw.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif raw:
            self._after_cr = False
        buffer = self._rest + data if self._rest else data
        if not self._started:
            if len(buffer) < len(BOM) and BOM.startswith(buffer):
                self._rest = buffer
                return []
            buffer, self._started = buffer.removeprefix(BOM), True
        *blocks, self._rest = buffer.split(b"\n\n")
        found = (_event(at_ns, block) for block in blocks)
        return [event for event in found if event is not None]

    def end(self) -> Event | None:
        """What was left when the stream ended."""
        event = _event(self._at_ns, self._rest)
        return None if event is None else event._replace(whole=False)


def events(chunks: Iterable[tuple[int, bytes]]) -> Iterator[Event]:
    """All events with data, in order."""
    splitter = Splitter()
    for at_ns, raw in chunks:
        yield from splitter.feed(at_ns, raw)
    tail = splitter.end()
    if tail is not None:
        yield tail


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
