"""A loopback proxy that passes on so many bytes and then no more, until it is let go: a moment to wait for."""

import socket
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Wire:
    """Where the proxy is; ``stalled`` is set once it holds back what clients send."""

    def __init__(self, limit: int):
        self.url = ""
        self.stalled = threading.Event()
        self.open = threading.Event()
        self._left = limit
        self._lock = threading.Lock()

    def pass_on(self, source: socket.socket, target: socket.socket, *, counted: bool) -> None:
        """Pass on what comes, to the end, and the end itself."""
        with suppress(OSError):
            while some := source.recv(1 << 16):
                if counted and self._is_full(len(some)):
                    self.stalled.set()
                    self.open.wait(60)
                target.sendall(some)
            target.shutdown(socket.SHUT_WR)

    def _is_full(self, more: int) -> bool:
        with self._lock:
            self._left -= more
            return self._left < 0 and not self.open.is_set()


@contextmanager
def stalling(target: str, limit: int) -> Generator[Wire]:
    """Run a proxy in front of an address, which stalls behind ``limit`` bytes of all that clients send."""
    wire, onward = Wire(limit), urlsplit(target)

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((str(onward.hostname), int(onward.port or 80))) as there:
                ways = {"source": there, "target": self.request}
                back = threading.Thread(target=wire.pass_on, kwargs={**ways, "counted": False}, daemon=True)
                back.start()
                wire.pass_on(self.request, there, counted=True)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Forward) as server:
        wire.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield wire
        finally:
            wire.open.set()
            server.shutdown()
            serving.join()
