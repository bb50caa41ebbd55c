"""The programs that a studio on one machine consists of."""

import http.client
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.database_url import for_prefect
from infra.embedded.database import EmbeddedPostgres
from infra.embedded.environment import DATABASE_URL, child_environment, inherited_environment, server_environment
from infra.embedded.supervisor import Program
from infra.settings import Settings
from infra.warm import SOCKET_VARIABLE

_PROBE_SECONDS = 2.0


def programs(settings: Settings, scratch: Path) -> list[Program]:
    """Return what a studio consists of, in the order of starting; ``scratch`` is a folder for what need not last."""
    # Prefect's workers share a folder under TMPDIR, which must not be another user's.
    environment = {**inherited_environment(), "TMPDIR": str(scratch)}
    if settings.database_url is None:
        postgres = EmbeddedPostgres(settings, scratch)
        first, url = [postgres.program()], postgres.url
    else:
        url = for_prefect(settings.database_url.get_secret_value())
        first = []
    # The worker's warm server is there for the API, too.
    warm_server = {SOCKET_VARIABLE: str(scratch / "warm.sock")}
    common = {**environment, **child_environment(settings), **warm_server}
    database = [program.name for program in first]
    return [
        *first,
        _prefect(settings, {**environment, **server_environment(settings, url)}, database),
        # Beside the Prefect server: both import while it does, then wait for it.
        _worker(settings, common, database),
        # The only other program that sees the database: it reads jobs there.
        _api(settings, {**common, DATABASE_URL: url}, database),
    ]


def _prefect(settings: Settings, environment: dict[str, str], after: Sequence[str]) -> Program:
    return Program(
        name="prefect",
        command=[
            *(sys.executable, "-P", "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", str(settings.prefect_port)),
            *("--log-level", "warning", "--timeout-graceful-shutdown", "1"),
        ],
        environment=environment,
        is_ready=answers("127.0.0.1", settings.prefect_port, "/api/ready"),
        after=after,
    )


def _worker(settings: Settings, environment: dict[str, str], after: Sequence[str]) -> Program:
    ready = settings.data_dir / "worker.ready"
    return Program(
        name="worker",
        command=[sys.executable, "-P", "-m", "infra.worker"],
        environment=environment,
        is_ready=ready.exists,
        after=after,
        prepare=lambda: ready.unlink(missing_ok=True),
        stop_seconds=3.5,
    )


def _api(settings: Settings, environment: dict[str, str], after: Sequence[str]) -> Program:
    return Program(
        name="api",
        command=[
            *(sys.executable, "-P", "-m", "uvicorn", "--factory", "api.app:create_app"),
            *("--host", settings.host, "--port", str(settings.port)),
            # Addresses may carry keys and tickets: they are not logged. WebSockets' would be, as information.
            *("--no-access-log", "--log-level", "warning"),
            *("--ws", "api.socket_protocol:SocketProtocol", "--http", "api.request_protocol:RequestProtocol"),
            *("--ws-ping-interval", str(settings.socket_ping_seconds)),
            *("--ws-ping-timeout", str(settings.socket_ping_seconds)),
            *("--no-server-header", "--timeout-graceful-shutdown", "1"),
        ],
        environment=environment,
        is_ready=answers(reachable_host(settings.host), settings.port, "/readyz"),
        after=after,
    )


def answers(host: str, port: int, path: str) -> Callable[[], bool]:
    """Return a probe: does a GET of this address answer 200?"""

    def probe() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def reachable_host(host: str) -> str:
    """Return an address at which a server that listens on ``host`` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
