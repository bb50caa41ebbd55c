"""
Uvicorn's side of a request, with an end to its head, and one for peers that do not read their answer.

What never becomes a request is refused with the same body as all else.

    uvicorn --http api.request_protocol:RequestProtocol
"""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import HeadTooLarge, WireError
from peft_studio.errors import InvalidConfig, StudioError

MOST_HEAD_BYTES = 1 << 16


class RequestProtocol(HttpToolsProtocol):
    """
    Refuses requests whose address and headers go on and on, which would be held in memory to their end.

    What came along with the last of them is not counted, so the limit is about ``MOST_HEAD_BYTES``. Lets go of a peer
    that takes nothing of its answer for a minute: whatever waits to be sent would be held for it forever.
    """

    unread_seconds = 60.0
    _unread: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no longer: what follows is the body."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(HeadTooLarge(limit_bytes=MOST_HEAD_BYTES))

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(InvalidConfig("The request cannot be read.", field="request", issue=msg))

    def pause_writing(self) -> None:
        """Take note that a peer has not read what was sent."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Take note that it has read some."""
        self._reads()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection has ended."""
        self._reads()
        super().connection_lost(exc)

    def _reads(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self, error: StudioError) -> None:
        wire = WireError(error)
        body = wire.written()
        lines = [
            f"HTTP/1.1 {wire.status} {HTTPStatus(wire.status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
            "",
            "",
        ]
        self.transport.write("\r\n".join(lines).encode() + body)
        self.transport.close()
