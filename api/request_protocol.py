"""
Uvicorn's side of a request, with an end to its head, and one for peers that do not read their answer.

    uvicorn --http api.request_protocol:RequestProtocol
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 16
_TOO_LARGE = b"The request's address and headers are too large."


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
                lines = [
                    b"HTTP/1.1 431 Request Header Fields Too Large",
                    b"content-type: text/plain; charset=utf-8",
                    b"content-length: %d" % len(_TOO_LARGE),
                    b"connection: close",
                    b"",
                    _TOO_LARGE,
                ]
                self.transport.write(b"\r\n".join(lines))
                self.transport.close()

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
