"""Endpoints of others are known by their own words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llmopt.engines.recognise import recognise
from llmopt.records import Endpoint
from llmopt.runtime.http import HttpError


def models(owner: str | None, *names: str) -> str:
    return json.dumps({"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]})


@asynccontextmanager
async def served(pages: dict[str, str], *, server: str = "uvicorn") -> AsyncIterator[Endpoint]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        page = pages.get(head.split()[1].decode())
        body = (page or '{"error": "not found"}').encode()
        status = "200 OK" if page is not None else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\nServer: {server}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        yield Endpoint(model="", host="127.0.0.1", port=listener.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("pages", "server", "kind", "version"),
    [
        ({"/v1/models": models("llamacpp", "m")}, "llama.cpp", "llamacpp", None),
        ({"/v1/models": models("someone", "m")}, "llama.cpp", "llamacpp", None),
        ({"/v1/models": models("vllm", "m"), "/version": '{"version": "0.32.0"}'}, "uvicorn", "vllm", "0.32.0"),
        ({"/v1/models": models("sglang", "m")}, "uvicorn", "sglang", None),
        ({"/v1/models": models("llama-swap", "a", "b")}, "", "llama-swap", None),
        (
            {"/v1/models": models("library", "qwen2.5:0.5b"), "/api/version": '{"version": "0.13.1"}'},
            "",
            "ollama",
            "0.13.1",
        ),
        ({"/v1/models": models("organization-owner", "gpt")}, "", "unknown", None),
        ({"/v1/models": "[]"}, "", "unknown", None),
        ({"/v1/models": '{"data": [1, null]}', "/api/version": "[]"}, "", "unknown", None),
        ({"/v1/models": "no json at all"}, "", "unknown", None),
    ],
)
async def test_servers_are_known_by_their_words(pages, server, kind, version):
    async with served(pages, server=server) as endpoint:
        found = await recognise(endpoint)
    assert (found.kind, found.version) == (kind, version)
    assert bool(found.metric_names) == (kind in ("llamacpp", "vllm", "sglang"))


async def test_models_are_listed():
    async with served({"/v1/models": models("llama-swap", "a", "b")}) as endpoint:
        assert (await recognise(endpoint)).models == ("a", "b")


async def test_an_address_where_nobody_answers_is_told():
    async with served({}) as endpoint:
        pass
    with pytest.raises(HttpError):
        await recognise(endpoint)
