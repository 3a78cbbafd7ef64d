"""The fast mode's connections: requests stamped by the kernel as they arrive, answers handed to it at once.

What the mock says it did must not depend on how busy it was: a request that waits in its socket while others are served
has arrived all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmopt.workers.fake_http import Connection
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from fake_http import Connection

SO_TIMESTAMPNS = 35
READ_BYTES, NOTES_BYTES = 64 << 10, 64
TOGETHER_NS, TRIES = 5_000, 5
TIMESPEC = struct.Struct("@ll")


class DirectTransport(asyncio.Transport):
    """A socket that is written in the very call that writes, and read with the kernel's stamps."""

    def __init__(self, accepted: socket.socket, connection: Connection) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._socket = accepted
        self._connection = connection
        self._unsent = b""
        self._open = True
        connection.connection_made(self)
        self._loop.add_reader(accepted, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send now; what does not fit follows when it does."""
        if not self._open:
            return
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._socket, self._writable)
        self._unsent += bytes(data)

    def close(self) -> None:
        """Close at once."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        if self._unsent:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._connection.connection_lost(None)

    def _readable(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(READ_BYTES, NOTES_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, notes = b"", []
        if data:
            wall_ns, now_ns = both_clocks()
            self._connection.arrived(data, now_ns - age_ns(notes, wall_ns))
        else:
            self.close()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._socket)


def both_clocks() -> tuple[int, int]:
    """Wall and monotonic clock of one moment, read as ``llmopt.runtime.arrivals`` does: workers import none of it."""
    tries = 0
    while True:
        before_ns, wall_ns, now_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries += 1
        if now_ns - before_ns < TOGETHER_NS or tries == TRIES:
            return wall_ns, now_ns


def age_ns(notes: list[tuple[int, int, bytes]], wall_ns: int) -> int:
    """How long before ``wall_ns`` the kernel says that bytes arrived; 0 where it does not say."""
    for level, kind, value in notes:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) == TIMESPEC.size:
            seconds, rest = TIMESPEC.unpack(value)
            return max(wall_ns - (int(seconds) * 10**9 + int(rest)), 0)
    return 0


def serve_directly(listener: socket.socket, make: Callable[[], Connection]) -> None:
    """Accept on the running loop; one connection a turn, so that processes that share the listener share the load."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)  # noqa: FBT003 - the socket module has it so
    with contextlib.suppress(OSError):  # a Unix socket, or not Linux: the read is the stamp
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def accept() -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        accepted.setblocking(False)  # noqa: FBT003 - the socket module has it so
        if accepted.family != getattr(socket, "AF_UNIX", None):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        DirectTransport(accepted, make())

    loop.add_reader(listener, accept)
