"""A loopback proxy that loses connections on purpose: a cable for clients that must stand it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Cable:
    """
    Where the proxy is, and what befalls the next connections, one entry each; then all is well.

    An entry is the number of bytes after which the connection is cut: (sent to the studio, sent back by it).
    """

    url: str = ""
    cuts: list[tuple[float, float]] = field(default_factory=list)
    connections: int = 0


NEVER = float("inf")


@contextmanager
def lossy(target: str) -> Iterator[Cable]:
    """Run a proxy in front of an address for as long as the block lasts."""
    host, port = target.removeprefix("http://").split(":")
    cable, ready, stop = Cable(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: float) -> None:
        while limit >= 0 and (piece := await reader.read(1 << 16)):
            writer.write(piece if len(piece) <= limit else piece[: int(limit)])
            limit -= len(piece)
            await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cable.connections += 1
        there, back = cable.cuts.pop(0) if cable.cuts else (NEVER, NEVER)
        ends, ways = [writer], list[asyncio.Task[None]]()
        try:
            onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
            ends.append(onward_writer)
            ways = [
                asyncio.create_task(carry(reader, onward_writer, there)),
                asyncio.create_task(carry(onward_reader, writer, back)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, *(end.wait_closed() for end in ends), return_exceptions=True)

    async def main() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        cable.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        loops.append(asyncio.get_running_loop())
        ready.set()
        async with server:
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield cable
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
