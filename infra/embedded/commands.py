"""The commands of ``peft-studio`` that need the server's code: ``up``, ``keys`` and ``env``."""

import asyncio
import importlib
import json
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from infra.embedded import rehearsal
from infra.embedded.environment import child_environment, prefect_auth_file
from infra.embedded.programs import programs
from infra.embedded.studio import announce, api_url, check, occupied, scratch_folder, settings_of_running
from infra.embedded.supervisor import Supervisor
from infra.settings import Settings
from peft_studio.errors import InvalidConfig

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept; by default ~/.peft-studio.")]
Port = Annotated[int | None, typer.Option(help="Port of the API; by default 8000.", min=1, max=65535)]
PrefectPort = Annotated[
    int | None, typer.Option(help="Port of the Prefect server and UI; by default 4200.", min=1, max=65535)
]
Host = Annotated[str | None, typer.Option(help="Address the API listens on; by default 127.0.0.1.")]
DatabaseUrl = Annotated[str | None, typer.Option(help="An external PostgreSQL instead of the embedded one.")]
Simulate = Annotated[
    str | None, typer.Option(help="Rehearse with simulated vendors: runpod,vast,lambda,kubernetes,ssh or some of them.")
]

keys = typer.Typer(help="Create, list and revoke the API keys of the running studio.", no_args_is_help=True)


def up(
    data_dir: DataDir = None,
    port: Port = None,
    prefect_port: PrefectPort = None,
    host: Host = None,
    database_url: DatabaseUrl = None,
    simulate: Simulate = None,
) -> None:
    """Start the studio: PostgreSQL, Prefect, a worker and the API. Ctrl-C stops all of it."""
    started = time.monotonic()
    vendors = rehearsal.vendors_of(simulate) if simulate is not None else []
    data_dir = data_dir or (rehearsal.DATA_DIR if vendors else None)
    settings = _settings(data_dir=data_dir, port=port, prefect_port=prefect_port, host=host, database_url=database_url)
    rehearsal.keep_apart(settings.data_dir, vendors)
    settings = rehearsal.with_simulated(settings, vendors)
    os.umask(0o077)  # jobs, adapters and logs are nobody else's business
    with occupied(settings.data_dir), scratch_folder(settings.data_dir) as scratch:
        check(settings)
        _log_to(settings.logs)

        def on_ready() -> None:
            if vendors:
                rehearsal.connect(settings, vendors)
            announce(settings)
            logging.info("Ready after %.1f s", time.monotonic() - started)
            print(f"PEFT Studio is ready at {api_url(settings)}")
            print(f"Prefect's UI is at http://127.0.0.1:{settings.prefect_port}")
            print(f"  (it asks once for the line in {prefect_auth_file(settings)})")
            print("Make an API key with: peft-studio keys create NAME. Ctrl-C stops the studio.", flush=True)

        print(f"Starting PEFT Studio in {settings.data_dir} …", file=sys.stderr, flush=True)
        parts = [*rehearsal.simulators(settings, vendors, scratch), *programs(settings, scratch)]
        Supervisor(parts, settings.logs).run(on_ready)
        print("PEFT Studio has stopped.", file=sys.stderr)


def env(data_dir: DataDir = None) -> None:
    """Print the settings for Prefect's own commands: eval "$(peft-studio env)"."""
    settings = settings_of_running(_settings(data_dir=data_dir))
    for name, value in child_environment(settings).items():
        if name.startswith(("PREFECT_", "PEFT_STUDIO_")):
            print(f"export {name}={shlex.quote(value)}")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose or what for the key is.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "admin",
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    api_keys = _api_keys(data_dir)
    key, secret = asyncio.run(api_keys.create(name, role))
    print(f"Key {key.name!r} with role {key.role}. Send it as: Authorization: Bearer KEY", file=sys.stderr)
    print(secret)


@keys.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, data_dir: DataDir = None
) -> None:
    """List all keys, revoked ones too."""
    found = asyncio.run(_api_keys(data_dir).list_keys())
    if as_json:
        print(json.dumps([key.model_dump(mode="json") for key in found], indent=2))
        return
    table = Table("name", "role", "id", "created", "last used", "revoked", box=None)
    for key in found:
        times = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (key.created_at, key.last_used_at, key.revoked_at))
        table.add_row(key.name, key.role, key.id, *times)
    Console().print(table)


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="The key's name or id.")], data_dir: DataDir = None) -> None:
    """Revoke a key: within seconds it opens nothing."""
    key = asyncio.run(_api_keys(data_dir).revoke(name))
    print(f"Revoked key {key.name!r} ({key.id}).", file=sys.stderr)


def _settings(**given: Any) -> Settings:
    """Return the settings: what was given, then what the environment says, then the defaults."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        message = f"PEFT_STUDIO_{name.upper()} is not valid: {first['msg']}."
        raise InvalidConfig(message, field=name, issue=first["msg"]) from None


def _api_keys(data_dir: Path | None) -> ModuleType:
    """Return ``infra.api_keys``, talking to the studio that runs on the data directory."""
    settings = settings_of_running(_settings(data_dir=data_dir))
    os.environ.update(child_environment(settings))
    # Prefect takes a second and a half to import, and reads its settings from the environment while it is.
    return importlib.import_module("infra.api_keys")


def _log_to(folder: Path) -> None:
    """Log what the supervisor does to ``studio.log``, and what matters to the terminal too."""
    folder.mkdir(parents=True, exist_ok=True)
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    file = logging.FileHandler(folder / "studio.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[terminal, file])
