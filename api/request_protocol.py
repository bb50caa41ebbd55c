"""
Uvicorn's side of a request, with an end to its head.

    uvicorn --http api.request_protocol:RequestProtocol
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 16
_TOO_LARGE = b"The request's address and headers are too large."


class RequestProtocol(HttpToolsProtocol):
    """
    Refuses requests whose address and headers go on and on, which would be held in memory to their end.

    What came along with the last of them is not counted, so the limit is about ``MOST_HEAD_BYTES``.
    """

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
