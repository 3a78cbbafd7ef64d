import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from llmopt.engines.openai import endpoint_of
from llmopt.records import Endpoint
from llmopt.runtime import http
from llmopt.runtime.http import HttpError, address, base_url, connect, request, request_head

CHUNKED = ("Transfer-Encoding: chunked", "")


@pytest.fixture(params=["unix", "tcp"])
def over(request):
    """Over TCP reads are stamped by the kernel, over Unix sockets in the read callback: two ways into one client."""
    return request.param


def answer(wire, body, *, status=200, reason="OK", extra=()):
    return [
        wire.head(status, reason, content_type="application/json", extra=(f"Content-Length: {len(body)}", *extra, "")),
        body,
    ]


async def test_a_request_reaches_the_server_with_key_and_body_and_comes_back(server, wire):
    server.scripts = [answer(wire, b'{"a": 1}')]
    response = await request(server.endpoint, "POST", "/v1/x", body={"q": "값"}, timeout_s=10)
    assert (response.status, response.json()) == (200, {"a": 1})
    raw, body = server.requests[0]
    host = "localhost" if server.socket_path else f"127.0.0.1:{server.port}"
    assert raw.startswith(f"POST /v1/x HTTP/1.1\r\nHost: {host}\r\n")
    assert "Authorization: Bearer secret\r\n" in raw
    assert body == b'{"q": "\\uac12"}'


async def test_a_status_is_an_answer_but_a_refused_key_is_an_error(server, wire):
    server.scripts = [answer(wire, b"loading", status=503, reason="Busy")]
    assert (await request(server.endpoint, "GET", "/health", timeout_s=10)).status == 503
    server.scripts = [answer(wire, b"no", status=401, reason="Unauthorized")]
    with pytest.raises(HttpError) as error:
        await request(server.endpoint, "GET", "/v1/models", timeout_s=10)
    assert error.value.kind == "wrong_key"
    assert "secret" not in str(error.value)


async def test_redirects_are_not_followed(server, wire):
    server.scripts = [answer(wire, b"", status=302, reason="Found", extra=("Location: http://elsewhere/",))]
    assert (await request(server.endpoint, "GET", "/", timeout_s=10)).status == 302
    assert len(server.requests) == 1


async def test_nobody_listening_is_refused(tmp_path):
    with pytest.raises(HttpError) as error:
        await request(Endpoint(model="m", socket_path=str(tmp_path / "none.sock")), "GET", "/", timeout_s=10)
    assert error.value.kind == "refused"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connecting is refused
        with pytest.raises(HttpError) as error:
            await request(Endpoint(model="m", port=taken.getsockname()[1]), "GET", "/", timeout_s=10)
    assert error.value.kind == "refused"
    assert "127.0.0.1" in str(error.value)


async def test_a_server_that_says_nothing_times_out(server, wire):
    server.scripts = [[wire.HANG]]
    started = time.monotonic()
    with pytest.raises(HttpError) as error:
        await request(server.endpoint, "GET", "/", timeout_s=0.05)
    assert error.value.kind == "timed_out"
    assert time.monotonic() - started < 5


async def test_a_key_in_the_clear_text_of_an_error_is_impossible(server):
    assert "secret" not in repr(server.endpoint)
    assert "secret" not in address(server.endpoint)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "close"], "closed_early"),
        (["close"], "closed_early"),
        ([b"SSH-2.0-OpenSSH\r\n", "close"], "not_http"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096], "too_large"),
        ([b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n"], "too_large"),
    ],
)
async def test_what_a_server_can_do_wrong_has_a_name(server, wire, script, kind):
    server.scripts = [[wire.CLOSE if step == "close" else step for step in script]]
    with pytest.raises(HttpError) as error:
        await request(server.endpoint, "GET", "/", timeout_s=10, body_limit=1024)
    assert error.value.kind == kind
    assert str(error.value)


async def test_a_body_that_is_not_json_says_so(server, wire):
    server.scripts = [answer(wire, b"<html>nginx</html>")]
    response = await request(server.endpoint, "GET", "/", timeout_s=10)
    with pytest.raises(HttpError, match="nginx"):
        response.json()


async def test_a_body_delimited_by_closing_is_whole(server, wire):
    server.scripts = [[b"HTTP/1.0 200 OK\r\n\r\nall of", wire.GAP, b" it", wire.CLOSE]]
    assert (await request(server.endpoint, "GET", "/", timeout_s=10)).body == b"all of it"


async def test_interim_answers_are_skipped(server, wire):
    server.scripts = [[b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", wire.GAP, *answer(wire, b"{}")]]
    response = await request(server.endpoint, "GET", "/", timeout_s=10)
    assert (response.status, response.body) == (200, b"{}")
    assert "link" not in response.headers


async def test_chunks_are_stamped_in_the_order_they_came_and_between_send_and_end(server, wire):
    server.scripts = [[wire.head(extra=CHUNKED), *wire.chunked(b"one", b"two", b"three")]]
    connection = await connect(server.endpoint)
    before = time.monotonic_ns()
    exchange = await connection.exchange(request_head(server.endpoint, "GET", "/", length=0), timeout_s=10)
    assert [data for _, data in exchange.chunks] == [b"one", b"two", b"three"]
    stamps = [before, exchange.sent_ns, *(at for at, _ in exchange.chunks), exchange.ended_ns, time.monotonic_ns()]
    assert stamps == sorted(stamps)
    connection.close()


async def test_a_connection_is_reused_until_the_server_closes_it(server, wire):
    server.scripts = [answer(wire, b"1"), answer(wire, b"2", extra=("Connection: close",))]
    connection = await connect(server.endpoint)
    payload = request_head(server.endpoint, "GET", "/", length=0)
    await connection.exchange(payload, timeout_s=10)
    assert connection.usable
    await connection.exchange(payload, timeout_s=10)
    assert not connection.usable
    assert server.connections == 1


async def test_a_cancelled_exchange_closes_the_connection(server, wire):
    server.scripts = [[wire.HANG]]
    connection = await connect(server.endpoint)
    waiting = asyncio.ensure_future(
        connection.exchange(request_head(server.endpoint, "GET", "/", length=0), timeout_s=60)
    )
    while not server.requests:  # noqa: ASYNC110 - the scripted server has no event to wait on
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not connection.usable


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "https://example.org:443/api", "unix:///run/x.sock"]
)
def test_a_base_address_is_written_as_it_may_be_given(url):
    assert base_url(endpoint_of(url, model="m")) == url


def test_an_address_reads_as_a_person_would_write_it():
    assert address(Endpoint(model="m", port=80)) == "http://127.0.0.1:80"
    assert address(Endpoint(model="m", host="::1", port=1)) == "http://[::1]:1"
    assert address(Endpoint(model="m", host="h", tls=True)) == "https://h:443"
    assert b"Host: h:443\r\n" in request_head(Endpoint(model="m", host="h", tls=True), "GET", "/", length=0)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for ``localhost`` that nobody trusts, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    argv = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    argv += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "cert", folder / "key"


@pytest.fixture
async def tls_endpoint(certificate):
    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield Endpoint(model="m", host="localhost", port=server.sockets[0].getsockname()[1], tls=True)
    finally:
        server.close()


async def test_an_untrusted_certificate_is_refused_and_a_private_authority_can_be_named(
    tls_endpoint, certificate, monkeypatch
):
    with pytest.raises(HttpError) as error:
        await request(tls_endpoint, "GET", "/", timeout_s=20)
    assert error.value.kind == "tls"
    assert "SSL_CERT_FILE" in str(error.value)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    http._tls_context.cache_clear()
    try:
        assert (await request(tls_endpoint, "GET", "/", timeout_s=20)).body == b"ok"
    finally:
        http._tls_context.cache_clear()


async def test_https_to_a_plain_server_says_what_is_wrong():
    async def serve(_, writer):
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint(model="m", port=plain.sockets[0].getsockname()[1], tls=True)
    with pytest.raises(HttpError) as error:
        await request(endpoint, "GET", "/", timeout_s=20)
    assert error.value.kind in {"tls", "unreachable"}
    plain.close()


async def test_an_unknown_host_is_named():
    with pytest.raises(HttpError) as error:
        await request(Endpoint(model="m", host="no-such-host.invalid", port=1), "GET", "/", timeout_s=20)
    assert error.value.kind == "unknown_host"
    assert "no-such-host" in str(error.value)
