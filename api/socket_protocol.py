"""
Uvicorn's side of a WebSocket, with an end for peers that do not read.

    uvicorn --ws api.socket_protocol:SocketProtocol
"""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class SocketProtocol(WebSocketsSansIOProtocol):
    """
    Lets go of a peer that has been told goodbye, whether or not it reads.

    Closing a connection means to send what waits to be sent first. To a peer that is there but never reads, that takes
    forever, and what is held for it is never given back.
    """

    parting_seconds = 10.0  # for a peer to read up to its goodbye; uvicorn waits as long for its answer
    _ending: asyncio.TimerHandle | None = None

    async def send(self, message: Any) -> None:
        """Send a message; a goodbye is put behind what waits for room, without waiting for it."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._end_soon()
        await super().send(message)

    def keepalive_timeout(self) -> None:
        """Give up on a peer that does not answer pings."""
        super().keepalive_timeout()
        self._end_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection has ended."""
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)

    def _end_soon(self) -> None:
        if self._ending is None:
            self._ending = self.loop.call_later(self.parting_seconds, self.transport.abort)
