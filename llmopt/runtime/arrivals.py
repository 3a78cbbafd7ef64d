"""A TCP connection whose every read says when its bytes arrived: the kernel's own stamp, not the read callback's.

A callback runs when its loop has time for it and the process has a core; the kernel notes a segment when it comes in.
On a busy machine the difference is most of what a measuring client adds to a latency. Linux has such stamps for TCP
(``SO_TIMESTAMPNS``, socket(7)); elsewhere, and where a read comes without one, the moment of the read stands in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["AVAILABLE", "ArrivalTransport", "Receiver", "connect_stamped"]

AVAILABLE = sys.platform == "linux"
SO_TIMESTAMPNS = 35
"""Of Linux on everything but SPARC and PA-RISC; Python's socket module has no name for it."""
READ_BYTES = 64 << 10
NOTES_BYTES = 64
SOL_SOCKET = socket.SOL_SOCKET
TIMESPEC_BYTES = struct.calcsize("@ll")
_UNPACK = struct.Struct("@ll").unpack
TOGETHER_NS = 5_000
TRIES = 5
OLDEST_NS = 60 * 10**9
"""An arrival longer ago than this means that the wall clock was set meanwhile."""


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


class ArrivalTransport(asyncio.Transport):
    """Owns a connected, non-blocking socket and reads it as soon as the loop allows."""

    def __init__(self, connection: socket.socket, receiver: Receiver) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._socket = connection
        self._receiver = receiver
        self._unsent = b""
        self._open = True
        receiver.connection_made(self)
        self._loop.add_reader(connection, self._readable)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only ``socket`` is known."""
        return self._socket if name == "socket" else default

    def is_closing(self) -> bool:
        """Whether nothing more is read or written."""
        return not self._open

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the socket takes now, the rest when it takes more."""
        if not self._open:
            return
        if not self._unsent:
            self._loop.add_writer(self._socket, self._writable)
        self._unsent += bytes(data)

    def abort(self) -> None:
        """Close at once; the receiver is told in the loop's next turn."""
        self._end(None)

    def close(self) -> None:
        """The same: nothing is ever left unsent that matters after closing."""
        self._end(None)

    def _readable(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(READ_BYTES, NOTES_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            wall_ns, now_ns = _both_clocks()
            self._receiver.arrived(data, now_ns - _age_ns(notes, wall_ns))
        else:
            self._end(None)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _end(self, error: Exception | None) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        if self._unsent:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._loop.call_soon(self._receiver.connection_lost, error)


async def connect_stamped(host: str, port: int, receiver: Receiver) -> None:
    """Connect to the first address of ``host`` that answers; raises OSError as ``socket`` does."""
    loop = asyncio.get_running_loop()
    last: OSError | None = None
    for family, kind, number, _, where in await _addresses(loop, host, port):
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
            await loop.sock_connect(connection, where)
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
        else:
            ArrivalTransport(connection, receiver)
            return
    raise last or OSError(f"no address of {host}")


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[Any]:
    """What ``host`` stands for; a number needs no thread to look it up."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _both_clocks() -> tuple[int, int]:
    """Wall and monotonic clock of one moment: read again where we lost the core between the two."""
    tries = 0
    while True:
        before_ns, wall_ns, now_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries += 1
        if now_ns - before_ns < TOGETHER_NS or tries == TRIES:
            return wall_ns, now_ns


def _age_ns(notes: Sequence[tuple[int, int, bytes]], wall_ns: int) -> int:
    """How long before ``wall_ns`` the last byte of a read came in; 0 where the kernel does not say.

    The kernel stamps by the wall clock; as an age it is free of where that clock stands.
    """
    for level, kind, value in notes:
        if kind == SO_TIMESTAMPNS and level == SOL_SOCKET and len(value) == TIMESPEC_BYTES:
            seconds, rest = _UNPACK(value)
            age_ns: int = wall_ns - (seconds * 1_000_000_000 + rest)
            return age_ns if 0 <= age_ns < OLDEST_NS else 0
    return 0
