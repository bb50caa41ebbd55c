"""Answers whose endpoint is killed while it gives them."""

import asyncio
import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
from openai import APIError, AsyncOpenAI

from infra.serving.endpoint_client import EndpointClient
from peft_studio.errors import ResourceUnavailable

pytestmark = pytest.mark.anyio
SAID = b'data: {"id": "1", "object": "text_completion", "choices": [{"index": 0, "text": "Hel"}]}\n\ndata: {"id"'


@asynccontextmanager
async def killed(head: bytes, body: bytes) -> AsyncGenerator[str]:
    """An endpoint that sends so much of an answer and is gone; yields its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(asked.partition(b"content-length:")[2].split()[0]))
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        writer.write(head + chunk)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def head(media_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


async def test_a_stream_that_breaks_off_ends_with_an_error_that_openais_client_raises() -> None:
    async with killed(head("text/event-stream; charset=utf-8"), SAID) as url:
        answer = await EndpointClient(url).forward("/completions", {"model": "m", "stream": True})
        sent = b"".join([piece async for piece in answer.pieces()])
    assert sent.startswith(SAID.removesuffix(b'data: {"id"'))
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(sent)
    async with killed(whole + sent, b"") as url, AsyncOpenAI(api_key="k", base_url=url) as client:
        stream = await client.completions.create(model="m", prompt="p", stream=True)
        with pytest.raises(APIError, match="broke off"):
            async for _ in stream:
                pass


async def test_an_answer_that_comes_compressed_is_handed_on_as_what_it_says_it_is() -> None:
    packed = gzip.compress(b'{"choices": []}')
    sized = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    async with killed(sized % len(packed) + packed, b"") as url:
        answer = await EndpointClient(url).forward("/completions", {"model": "m"})
        assert b"".join([piece async for piece in answer.pieces()]) == b'{"choices": []}'
    assert "content-encoding" not in answer.headers


async def test_an_answer_that_never_begins_or_is_cut_is_no_answer() -> None:
    async with killed(b"", b"") as url, EndpointClient(url) as client:
        with pytest.raises(ResourceUnavailable, match="started again"):
            await client.forward("/completions", {"model": "m"})
    async with killed(head("application/json"), b'{"choices": [') as url:
        answer = await EndpointClient(url).forward("/completions", {"model": "m"})
        with pytest.raises(httpx.TransportError):
            _ = [piece async for piece in answer.pieces()]
