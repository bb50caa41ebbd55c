"""One server for all simulators that tests use in turn: to start and end one takes longer than most tests."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

from infra.simulators.exchange import App
from infra.simulators.loopback import served


class Stage:
    """Applications by the first part of their path; the server lasts as long as the process."""

    def __init__(self) -> None:
        self._apps: dict[str, App] = {}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._apps[scope["path"].split("/")[1]](scope, receive, send)

        self._serving = served(app)
        self._address = self._serving.__enter__()

    @contextmanager
    def shows(self, name: str, app: App) -> Generator[str]:
        """Serve an application below ``/name`` and yield that address."""
        assert name not in self._apps, f"{name} is on the stage already"
        self._apps[name] = app
        try:
            yield f"{self._address}/{name}"
        finally:
            del self._apps[name]


@cache
def stage() -> Stage:
    """Return the stage, which is set up when it is first needed."""
    return Stage()
