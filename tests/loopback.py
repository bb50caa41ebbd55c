"""An application on a loopback port, served by a thread of this process, for as long as a block lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from peft_studio.ports import free_port


@contextmanager
def on_loopback(app: Any, **options: Any) -> Iterator[str]:
    """Serve an application, its start-up and shutdown included, with options of uvicorn's; yields its address."""
    port = free_port()
    started = threading.Event()

    class Lifespan(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    usual = {"host": "127.0.0.1", "port": port, "log_level": "error", "timeout_graceful_shutdown": 1}
    server = Lifespan(uvicorn.Config(app, **usual | options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert started.wait(20), "the application did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
