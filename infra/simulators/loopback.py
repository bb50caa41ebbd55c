"""An application served on a loopback port by a thread of this process."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread
from time import monotonic, sleep
from typing import Any

import uvicorn

from infra.simulators.grpc import HttpOrGrpc

_START_SECONDS = 10.0


@contextmanager
def served(app: Any, port: int = 0) -> Generator[str]:
    """Serve an ASGI application, to gRPC's calls, too, and yield its address; a port of its own by default."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(app, http=HttpOrGrpc, log_level="warning", access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = monotonic() + _START_SECONDS
        while not server.started and thread.is_alive() and monotonic() < deadline:
            sleep(0.005)
        if not server.started:
            raise RuntimeError("The simulator did not start.")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
