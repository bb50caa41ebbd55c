"""
gRPC for simulators: calls that come over HTTP/2 reach an application as any other request, on the port of all others.

A call of ``modal.client.ModalClient/AppList`` is a POST to ``/modal/AppList`` whose body is gRPC's own: each message
behind its length. What an application says in headers that begin with ``grpc-`` goes out as gRPC's trailers.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from infra.simulators.exchange import Reply

OK, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 2, 3, 5, 8
UNIMPLEMENTED, INTERNAL, DATA_LOSS, UNAUTHENTICATED = 12, 13, 15, 16
_STATUS = {INVALID_ARGUMENT: 400, NOT_FOUND: 404, RESOURCE_EXHAUSTED: 429, UNIMPLEMENTED: 404, UNAUTHENTICATED: 401}
_TYPE = "application/grpc"
_log = logging.getLogger(__name__)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def answered(*messages: bytes) -> Reply:
    """Answer a call with its message, or a call that is answered by a stream with all of them."""
    body = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
    return Reply(body, headers={"Content-Type": _TYPE, "grpc-status": str(OK)})


def failed(code: int, message: str) -> Reply:
    """Refuse a call; the status is HTTP's for those who count, and does not travel."""
    headers = {"Content-Type": _TYPE, "grpc-status": str(code), "grpc-message": quote(message, safe=" ")}
    return Reply(b"", _STATUS.get(code, 500), headers)


def message_of(body: bytes) -> bytes:
    """Return the one message of a call; compressed ones do not come."""
    return body[5 : 5 + int.from_bytes(body[1:5], "big")]


class HttpOrGrpc(asyncio.Protocol):
    """A connection whose first bytes say which of the two it speaks; made by uvicorn, which does not know gRPC."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None):
        self._made = (config, server_state, app_state, _loop)
        self._open: set[Any] = server_state.connections
        self._app = config.loaded_app
        self._transport: Any = None
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = transport
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand the connection over as soon as it shows what it is."""
        self._begun += data
        if len(self._begun) < len(_PREFACE) and _PREFACE.startswith(self._begun):
            return
        self._open.discard(self)
        speaks_grpc = self._begun.startswith(_PREFACE)
        protocol: Any = _Grpc(self._app, self._open) if speaks_grpc else cast(Any, AutoHTTPProtocol)(*self._made)
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.data_received(self._begun)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that never said anything."""
        self._open.discard(self)

    def shutdown(self) -> None:
        """Close it; uvicorn asks for that at its end."""
        self._transport.close()


class _Grpc(asyncio.Protocol):
    """One connection with calls on it; answers are small enough for what any client takes unasked."""

    def __init__(self, app: Any, open_ones: set[Any]):
        self._app = app
        self._open = open_ones
        self._http2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._calls: dict[int, tuple[dict[str, str], bytearray]] = {}
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._open.add(self)
        self._http2.initiate_connection()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._http2.receive_data(data):
                self._take(event)
        except ProtocolError:
            self._transport.close()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        for answer in self._answers.values():
            answer.cancel()

    def shutdown(self) -> None:
        self._transport.close()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream)):
                self._calls[stream] = (dict(cast(Sequence[tuple[str, str]], event.headers)), bytearray())
            case DataReceived(stream_id=int(stream)):
                self._calls[stream][1].extend(event.data or b"")
                self._http2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            case StreamEnded(stream_id=int(stream)):
                answer = asyncio.get_running_loop().create_task(self._answer(stream, *self._calls.pop(stream)))
                self._answers[stream] = answer
                answer.add_done_callback(lambda _: self._answers.pop(stream, None))
            case StreamReset(stream_id=int(stream)):
                self._calls.pop(stream, None)
                if answer := self._answers.get(stream):
                    answer.cancel()
            case _:
                pass

    async def _answer(self, stream: int, headers: dict[str, str], body: bytearray) -> None:
        try:
            status, told, content = await _asked_of(self._app, headers, bytes(body))
        except Exception:
            _log.exception("A simulated platform failed at %s", headers.get(":path"))
            status, told, content = 500, {}, b""
        plain = [(name, value) for name, value in told.items() if not name.startswith("grpc-")]
        trailers = [(name, value) for name, value in told.items() if name.startswith("grpc-")]
        trailers = trailers or [("grpc-status", str(_code_of(status)))]
        begin = [(":status", "200"), ("content-type", _TYPE)]
        begin += [(name, value) for name, value in plain if name not in ("content-type", "content-length")]
        self._http2.send_headers(stream, begin)
        if status < 300:
            step = self._http2.max_outbound_frame_size
            for start in range(0, len(content), step):
                self._http2.send_data(stream, content[start : start + step])
        self._http2.send_headers(stream, trailers, end_stream=True)
        self._send()

    def _send(self) -> None:
        if (data := self._http2.data_to_send()) and not self._transport.is_closing():
            self._transport.write(data)


def _code_of(status: int) -> int:
    """Return gRPC's code for who answered in HTTP's; 500 is one that clients do not ask for again by themselves."""
    if status < 300:
        return OK
    return RESOURCE_EXHAUSTED if status == 429 else DATA_LOSS if status >= 500 else UNKNOWN


async def _asked_of(app: Any, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Have an ASGI application answer a call."""
    _, service, method = headers[":path"].split("/")
    named = [("host", headers[":authority"]), *((name, value) for name, value in headers.items() if name[0] != ":")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": headers[":method"],
        "scheme": "http",
        "path": f"/{service.partition('.')[0]}/{method}",
        "raw_path": headers[":path"].encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named],
        "client": None,
        "server": None,
    }
    start, content = dict[str, Any](), bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        start.update(message if message["type"] == "http.response.start" else {})
        content.extend(message.get("body", b""))

    await app(scope, receive, send)
    told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], told, bytes(content)
