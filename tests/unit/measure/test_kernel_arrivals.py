"""Reads that carry the kernel's stamp: when bytes came, not when we had time for them."""

import asyncio
import socket
import struct
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.runtime import arrivals
from llmopt.runtime.arrivals import connect_stamped

pytestmark = pytest.mark.skipif(not arrivals.AVAILABLE, reason="only Linux stamps TCP segments")


class Kept:
    """A receiver that keeps what it is told."""

    def __init__(self):
        self.transport = None
        self.reads = []
        self.lost = asyncio.get_running_loop().create_future()
        self.read = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def arrived(self, data, at_ns):
        self.reads.append((at_ns, data))
        self.read.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


async def connected(listener):
    kept = Kept()
    await connect_stamped(*listener.getsockname(), kept)
    accepted, _ = listener.accept()
    return kept, accepted


async def test_a_stamp_is_when_bytes_came_however_late_they_are_read(listener):
    kept, accepted = await connected(listener)
    with accepted:
        for _ in range(100):  # the kernel begins to stamp a moment after the first socket has asked for it
            asked_ns = time.monotonic_ns()
            kept.read.clear()
            accepted.sendall(b"token")  # we hold the loop: nothing is read before the next await
            threading.Event().wait(0.05)
            resumed_ns = time.monotonic_ns()
            await kept.read.wait()
            at_ns, data = kept.reads[-1]
            assert data == b"token"
            if at_ns < resumed_ns:
                break
        assert asked_ns < at_ns < resumed_ns
        kept.transport.abort()
        assert await kept.lost is None


async def test_what_the_socket_does_not_take_at_once_follows(listener):
    kept, accepted = await connected(listener)
    payload = bytes(range(256)) * 40_000
    got = bytearray()

    def drain():
        while len(got) < len(payload):
            got.extend(accepted.recv(1 << 20))

    with accepted:
        kept.transport.write(payload[:100])
        kept.transport.write(payload[100:])
        await asyncio.to_thread(drain)
        assert bytes(got) == payload
        kept.transport.close()
        kept.transport.close()
        kept.transport.write(b"nothing")
        assert await kept.lost is None


async def test_an_end_and_a_reset_are_told_once(listener):
    kept, accepted = await connected(listener)
    accepted.close()
    assert await kept.lost is None
    assert kept.transport.is_closing()
    kept, accepted = await connected(listener)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    assert isinstance(await kept.lost, ConnectionResetError)


async def test_nobody_there_and_nothing_to_try_are_os_errors(listener, monkeypatch):
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await connect_stamped(*address, Kept())

    async def nowhere(*_, **__):
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
    with pytest.raises(OSError, match="no address"):
        await connect_stamped("nowhere", 1, Kept())


async def test_a_number_is_connected_to_without_looking_it_up(listener, monkeypatch):
    async def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    kept, accepted = await connected(listener)
    with accepted:
        kept.transport.abort()
        assert await kept.lost is None


@given(ago_ns=st.integers(-(2**61), 2**61) | st.integers(0, 10**11), kind=st.integers(0, 60), size=st.integers(0, 32))
def test_only_a_recent_stamp_of_the_right_kind_makes_a_read_older(ago_ns, kind, size):
    wall_ns = 2**62
    note = struct.pack("@ll", *divmod(abs(wall_ns - ago_ns), 10**9))
    age_ns = arrivals._age_ns([(socket.SOL_SOCKET, kind, (note * 2)[:size])], wall_ns)
    assert 0 <= age_ns < arrivals.OLDEST_NS
    if kind != arrivals.SO_TIMESTAMPNS or size != len(note):
        assert age_ns == 0
    elif 0 <= ago_ns < arrivals.OLDEST_NS:
        assert age_ns == ago_ns
    assert arrivals._age_ns([], wall_ns) == 0


def test_it_is_for_linux():
    assert (sys.platform == "linux") == arrivals.AVAILABLE
