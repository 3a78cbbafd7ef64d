"""Reads that carry the kernel's stamp: when bytes came, not when we had time for them."""

import asyncio
import itertools
import socket
import struct
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.runtime import arrivals
from llmopt.runtime.arrivals import CLOSE_IN_A_ROW, Arrivals

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


@pytest.fixture
async def reader():
    made = Arrivals()
    yield made
    made.close()
    made.close()


async def connected(reader, listener):
    kept = Kept()
    await reader.connect(*listener.getsockname(), kept)
    accepted, _ = listener.accept()
    return kept, accepted


async def test_a_stamp_is_when_bytes_came_however_late_they_are_read(reader, listener):
    kept, accepted = await connected(reader, listener)
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


async def test_what_the_socket_does_not_take_at_once_follows(reader, listener):
    kept, accepted = await connected(reader, listener)
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


async def test_an_end_and_a_reset_are_told_once(reader, listener):
    kept, accepted = await connected(reader, listener)
    accepted.close()
    assert await kept.lost is None
    assert kept.transport.is_closing()
    kept, accepted = await connected(reader, listener)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    assert isinstance(await kept.lost, ConnectionResetError)


async def test_nobody_there_and_nothing_to_try_are_os_errors(reader, listener, monkeypatch):
    address = listener.getsockname()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await reader.connect(*address, Kept())

    async def nowhere(*_, **__):
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
    with pytest.raises(OSError, match="no address"):
        await reader.connect("nowhere", 1, Kept())


async def test_reads_wait_for_company_unless_a_stream_is_fast_or_nothing_stamps_it(reader, listener, monkeypatch):
    kept, accepted = await connected(reader, listener)

    async def read_at(at_ns):
        monkeypatch.setattr(arrivals, "_arrival_ns", lambda *_: at_ns)
        kept.read.clear()
        accepted.sendall(b"token")
        await kept.read.wait()
        return reader._tick is not None

    with accepted:
        assert await read_at(1)
        assert not await read_at(None)
        reader.answered(0.1)
        assert not await read_at(2), "short answers would be noticed late"
        for _ in range(50):
            reader.answered(2.0)
        slow = [await read_at(k * 5_000_000) for k in range(1, 9)]
        assert all(slow)
        fast = [await read_at(10**9 + k * 1_000_000) for k in range(CLOSE_IN_A_ROW + 1)]
        assert fast == [True] * CLOSE_IN_A_ROW + [False]
        assert not await read_at(2 * 10**9)  # for a while


async def test_what_comes_in_company_is_read_in_one_turn_with_stamps_of_its_own(reader, listener):
    pairs = [await connected(reader, listener) for _ in range(3)]
    for _ in range(100):  # until the kernel stamps, see above
        for kept, accepted in pairs:
            kept.read.clear()
            accepted.sendall(b"token")
            threading.Event().wait(0.01)  # the loop is held
        for kept, _ in pairs:
            await kept.read.wait()
        stamps = [kept.reads[-1][0] for kept, _ in pairs]
        if all(after - before >= 10**7 for before, after in itertools.pairwise(stamps)):
            break
    assert stamps == sorted(stamps)
    assert stamps[2] - stamps[0] >= 2 * 10**7
    for kept, accepted in pairs:
        accepted.close()
        assert await kept.lost is None


async def test_a_receiver_that_breaks_does_not_silence_the_others(reader, listener):
    (broken, first), (kept, second) = [await connected(reader, listener) for _ in range(2)]
    heard = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.set_result(context["exception"]))

    def breaks(*_):
        raise KeyError("ours")

    broken.transport.arrived = breaks
    first.sendall(b"token")
    assert isinstance(await heard, KeyError)
    second.sendall(b"token")
    await kept.read.wait()
    first.close()
    second.close()
    assert await broken.lost is None


async def test_closing_tells_every_receiver(reader, listener):
    pairs = [await connected(reader, listener) for _ in range(2)]
    reader.close()
    for kept, accepted in pairs:
        assert await kept.lost is None
        accepted.close()


@given(ago_ns=st.integers(-(2**61), 2**61) | st.integers(0, 10**11), kind=st.integers(0, 60), size=st.integers(0, 32))
def test_only_a_recent_stamp_of_the_right_kind_makes_a_read_older(ago_ns, kind, size):
    now_ns, ahead_ns = 2**40, 2**62 - 2**40
    note = struct.pack("@ll", *divmod(abs(now_ns + ahead_ns - ago_ns), 10**9))
    at_ns = arrivals._arrival_ns([(socket.SOL_SOCKET, kind, (note * 2)[:size])], ahead_ns, now_ns)
    assert at_ns is None or arrivals.YOUNGEST_NS < now_ns - at_ns < arrivals.OLDEST_NS
    if kind != arrivals.SO_TIMESTAMPNS or size != len(note):
        assert at_ns is None
    elif 0 <= ago_ns < arrivals.OLDEST_NS:
        assert at_ns == now_ns - ago_ns
    assert arrivals._arrival_ns([], ahead_ns, now_ns) is None


def test_it_is_for_linux():
    assert (sys.platform == "linux") == arrivals.AVAILABLE
