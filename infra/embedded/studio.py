"""The files that say that a studio runs on a data directory, and what would keep one from starting."""

import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ValidationError

from infra.database_url import for_prefect
from infra.embedded.database import check_reachable
from infra.embedded.environment import prefect_api_url, prefect_auth_file
from infra.embedded.programs import answers, reachable_host
from infra.settings import Settings
from peft_studio.errors import Conflict, ResourceUnavailable
from peft_studio.run_dir import for_owner, write_whole


class RunningStudio(BaseModel):
    """``studio.json``: how to reach the studio that runs on a data directory."""

    pid: int
    api_url: str
    prefect_api_url: str
    prefect_auth_file: Path
    host: str
    port: int
    prefect_port: int


def api_url(settings: Settings) -> str:
    """Return the address of the API."""
    host = reachable_host(settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def check(settings: Settings) -> None:
    """Raise the error of whatever would keep a studio from starting."""
    if settings.port == settings.prefect_port:
        raise Conflict(f"API and Prefect server cannot share port {settings.port}: choose another with --port.")
    _check_port(settings.host, settings.port, "--port")
    _check_port("127.0.0.1", settings.prefect_port, "--prefect-port")
    if settings.database_url is not None:
        check_reachable(for_prefect(settings.database_url.get_secret_value()))


def _check_port(host: str, port: int, option: str) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Port {port} is in use: choose another with {option}, or stop what listens there."
            ) from None
        reason = error.strerror or str(error)
        raise ResourceUnavailable(
            f"Cannot listen on {host}:{port} ({reason}): choose another --host or port."
        ) from None


@contextmanager
def occupied(data_dir: Path) -> Generator[None]:
    """Make the data directory and hold it for this process; raises ``Conflict`` where another studio has it."""
    with _lock(data_dir) as lock:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            _studio_json(data_dir).unlink(missing_ok=True)


def _lock(data_dir: Path) -> TextIO:
    """Lock a directory until this process ends, however that happens: children do not inherit what is returned."""
    path = data_dir / "studio.lock"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = path.open("a")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(
            f"A studio runs on {data_dir} already (process {path.read_text()}): stop it, or choose another --data-dir."
        ) from None
    except OSError as error:
        raise ResourceUnavailable(
            f"Cannot write to {data_dir} ({error.strerror}): choose another directory with --data-dir."
        ) from None
    return lock


@contextmanager
def scratch_folder(data_dir: Path) -> Generator[Path]:
    """Make a folder with a short path for sockets and the like; it goes when the studio, or the next one, does."""
    link = data_dir / "tmp"
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()
    with tempfile.TemporaryDirectory(prefix="peft-studio-", ignore_cleanup_errors=True) as folder:
        link.symlink_to(folder)
        try:
            yield Path(folder)
        finally:
            link.unlink(missing_ok=True)


def announce(settings: Settings) -> None:
    """Write down how this studio is reached, for clients on this machine."""
    running = RunningStudio(
        pid=os.getpid(),
        api_url=api_url(settings),
        prefect_api_url=prefect_api_url(settings),
        prefect_auth_file=prefect_auth_file(settings),
        host=settings.host,
        port=settings.port,
        prefect_port=settings.prefect_port,
    )
    write_whole(_studio_json(settings.data_dir), for_owner(running.model_dump_json(indent=2)))


def settings_of_running(settings: Settings) -> Settings:
    """Return the settings of the studio that runs on a data directory; raises ``ResourceUnavailable`` without one."""
    try:
        running = RunningStudio.model_validate_json(_studio_json(settings.data_dir).read_bytes())
    except (OSError, ValidationError):
        running = None
    # The file outlives a studio that was killed.
    if running is None or not answers("127.0.0.1", running.prefect_port, "/api/health")():
        raise ResourceUnavailable(
            f"No studio runs on {settings.data_dir}: start it with `peft-studio up`, or name another --data-dir."
        ) from None
    return settings.model_copy(update=running.model_dump(include={"host", "port", "prefect_port"}))


def _studio_json(data_dir: Path) -> Path:
    return data_dir / "studio.json"
