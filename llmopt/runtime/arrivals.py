"""TCP connections that are read together, and whose every read says when its bytes arrived.

A callback runs when its loop has time for it and the process has a core; the kernel notes a segment when it comes in.
On a busy machine the difference is most of what a measuring client adds to a latency. Linux has such stamps for TCP
(``SO_TIMESTAMPNS``, socket(7)); where a read comes without one, the moment of the read stands in.

With stamps the moment of reading does not matter, so reads may wait for company: all sockets are in one epoll object,
which is read at once when something comes after a silence and then every ``COMPANY_S`` until there is silence again.
One turn of the event loop then serves many connections, which is most of what a stream's events cost. What comes for
one connection within that time is one read with the stamp of its last byte. Where connections are faster than that, or
reads come without stamps, nothing waits. The end of an answer is seen late too, and with it the next request of a
closed loop is: the wait is at most a five-hundredth of what an answer takes, which is a thousandth on average.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["AVAILABLE", "ArrivalTransport", "Arrivals", "Receiver"]

AVAILABLE = sys.platform == "linux"
SO_TIMESTAMPNS = 35
"""Of Linux on everything but SPARC and PA-RISC; Python's socket module has no name for it."""
READ_BYTES = 16 << 10
NOTES_BYTES = 64
AT_ONCE = 256
"""Connections read in one turn; the rest in the next."""
SOL_SOCKET = socket.SOL_SOCKET
TIMESPEC_BYTES = struct.calcsize("@ll")
_UNPACK = struct.Struct("@ll").unpack
TOGETHER_NS = 5_000
TRIES = 5
OLDEST_NS = 60 * 10**9
"""An arrival longer ago than this means that the wall clock was set meanwhile."""
YOUNGEST_NS = -(10**8)
"""What comes while a turn is under way is younger than the turn."""
COMPANY_S = 0.002
COMPANY_SHARE = 0.002
LEAST_COMPANY_S = 0.0005
RECENT = 0.1
"""The weight of the newest answer in how long they take."""
CLOSE_NS = 4_000_000
"""Reads of one connection that follow each other faster than this would soon meet in one."""
CLOSE_IN_A_ROW = 4
"""A first event and a token right after it, or a few tokens guessed at once, are no fast stream."""
HURRY_NS = 10**9
"""How long nothing waits for company after a stream was seen to be fast."""


class Receiver(Protocol):
    """What an ``ArrivalTransport`` reports to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        ...

    def arrived(self, data: bytes, at_ns: int) -> None:
        """Bytes came at ``at_ns`` of the monotonic clock."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; None where the other side ended it, or we did."""
        ...


class Arrivals:
    """Reads the connections it made, on the running loop; whoever made it closes it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._open: dict[int, ArrivalTransport] = {}
        self._addresses: dict[tuple[str, int], list[Any]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._hurried_until_ns = 0
        self._company_s = COMPANY_S
        self._answer_s = 0.0
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    async def connect(self, host: str, port: int, receiver: Receiver) -> None:
        """Connect to the first address of ``host`` that answers; raises OSError as ``socket`` does."""
        last: OSError | None = None
        found = self._addresses.get((host, port))  # asked for once: a thread of its own does it, which takes a while
        for address in found or await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            family, kind, number, _, where = address
            try:
                connection = socket.socket(family, kind, number)
            except OSError as error:  # a family this machine does not have
                last = error
                continue
            try:
                connection.setblocking(False)  # noqa: FBT003 - the socket module has it so
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):  # without stamps it still reads
                    connection.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                await self._loop.sock_connect(connection, where)
            except OSError as error:
                connection.close()
                last = error
            except BaseException:
                connection.close()
                raise
            else:
                self._addresses[host, port] = [address]
                self.add(ArrivalTransport(self, connection, receiver))
                return
        raise last or OSError(f"no address of {host}")

    def answered(self, took_s: float) -> None:
        """Learn how long answers take: what may be waited for follows from it."""
        self._answer_s += (took_s - self._answer_s) * (RECENT if self._answer_s else 1.0)
        self._company_s = min(COMPANY_S, COMPANY_SHARE * self._answer_s)

    def close(self) -> None:
        """Close every connection; the receivers are told in the loop's next turn. Safe to repeat."""
        for transport in list(self._open.values()):
            transport.abort()
        if self._epoll.closed:
            return
        if self._tick is None:
            self._loop.remove_reader(self._epoll.fileno())
        else:
            self._tick.cancel()
        self._epoll.close()

    def add(self, transport: ArrivalTransport) -> None:
        """Read a connection from now on."""
        self._open[transport.descriptor] = transport
        self._epoll.register(transport.descriptor, select.EPOLLIN)

    def discard(self, transport: ArrivalTransport) -> None:
        """Stop reading a connection, which is still open."""
        if self._open.pop(transport.descriptor, None) is not None:
            self._epoll.unregister(transport.descriptor)

    def until_writable(self, transport: ArrivalTransport, *, wait: bool) -> None:
        """Also say when a connection takes more bytes, or no longer."""
        self._epoll.modify(transport.descriptor, select.EPOLLIN | (select.EPOLLOUT if wait else 0))

    def _turn(self) -> None:
        """Read all that is there."""
        company = False
        try:
            company = self._read_all()
        finally:  # whatever goes wrong with one connection, the others go on being read
            self._wait(company=company)

    def _read_all(self) -> bool:
        """Read what is there; whether the next bytes may wait for company."""
        ready = self._epoll.poll(0, AT_ONCE)
        wall_ns, now_ns = _both_clocks()
        wall_ahead_ns = wall_ns - now_ns
        all_stamped = True
        for descriptor, events in ready:
            transport = self._open.get(descriptor)
            if transport is None:  # closed in this very turn
                continue
            if events & select.EPOLLOUT:
                transport.send_rest()
            if events != select.EPOLLOUT and not self._read(transport, wall_ahead_ns, now_ns):
                all_stamped = False
        return bool(ready) and all_stamped and now_ns >= self._hurried_until_ns

    def _read(self, transport: ArrivalTransport, wall_ahead_ns: int, now_ns: int) -> bool:
        """Read one connection and note whether it is fast; False where what came had no stamp."""
        try:
            data, notes, _, _ = transport.recvmsg(READ_BYTES, NOTES_BYTES)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            transport.end(error)
            return True
        if not data:
            transport.end(None)
            return True
        stamp_ns = _arrival_ns(notes, wall_ahead_ns, now_ns)
        at_ns = stamp_ns or time.monotonic_ns()
        if at_ns - transport.last_ns > CLOSE_NS:
            transport.close_in_a_row = 0
        else:
            transport.close_in_a_row += 1
            if transport.close_in_a_row >= CLOSE_IN_A_ROW:
                self._hurried_until_ns = now_ns + HURRY_NS
        transport.last_ns = at_ns
        transport.arrived(data, at_ns)
        return stamp_ns is not None

    def _wait(self, *, company: bool) -> None:
        """Wait for the next bytes, or a moment so that there may be more of them."""
        if self._epoll.closed:
            return
        if company and self._company_s >= LEAST_COMPANY_S:
            if self._tick is None:
                self._loop.remove_reader(self._epoll.fileno())
            self._tick = self._loop.call_later(self._company_s, self._turn)
        elif self._tick is not None:
            self._tick = None
            self._loop.add_reader(self._epoll.fileno(), self._turn)


class ArrivalTransport(asyncio.Transport):
    """A connected, non-blocking socket that an ``Arrivals`` reads."""

    def __init__(self, arrivals: Arrivals, connection: socket.socket, receiver: Receiver) -> None:
        super().__init__()
        self.descriptor = connection.fileno()
        self.recvmsg = connection.recvmsg
        self.arrived = receiver.arrived
        self.last_ns = 0
        self.close_in_a_row = 0
        self._loop = asyncio.get_running_loop()
        self._arrivals = arrivals
        self._socket = connection
        self._receiver = receiver
        self._unsent = b""
        self._closing = False
        receiver.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only ``socket`` is known."""
        return self._socket if name == "socket" else default

    def is_closing(self) -> bool:
        """Whether nothing more is read or written."""
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the socket takes when the loop comes to it, the rest when it takes more."""
        if self._closing:
            return
        if not self._unsent:
            self._arrivals.until_writable(self, wait=True)
        self._unsent += bytes(data)

    def send_rest(self) -> None:
        """The socket takes more."""
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.end(error)
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._arrivals.until_writable(self, wait=False)

    def abort(self) -> None:
        """Close at once; the receiver is told in the loop's next turn."""
        self.end(None)

    def close(self) -> None:
        """The same: nothing is ever left unsent that matters after closing."""
        self.end(None)

    def end(self, error: Exception | None) -> None:
        """Close because of ``error``, or because one side wanted to."""
        if self._closing:
            return
        self._closing = True
        self._arrivals.discard(self)
        self._socket.close()
        self._loop.call_soon(self._receiver.connection_lost, error)


def _both_clocks() -> tuple[int, int]:
    """Wall and monotonic clock of one moment: read again where we lost the core between the two."""
    tries = 0
    while True:
        before_ns, wall_ns, now_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries += 1
        if now_ns - before_ns < TOGETHER_NS or tries == TRIES:
            return wall_ns, now_ns


def _arrival_ns(notes: Sequence[tuple[int, int, bytes]], wall_ahead_ns: int, now_ns: int) -> int | None:
    """When the last byte of a read came in, on the monotonic clock; None where the kernel does not say.

    The kernel stamps by the wall clock, which was ``wall_ahead_ns`` ahead at ``now_ns``, when reading began.
    """
    for level, kind, value in notes:
        if kind == SO_TIMESTAMPNS and level == SOL_SOCKET and len(value) == TIMESPEC_BYTES:
            seconds, rest = _UNPACK(value)
            at_ns: int = seconds * 1_000_000_000 + rest - wall_ahead_ns
            return at_ns if YOUNGEST_NS < now_ns - at_ns < OLDEST_NS else None
    return None
