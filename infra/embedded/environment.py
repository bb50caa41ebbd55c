"""What the studio's processes are told through their environment, and the secrets that are kept in files for it."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from infra.settings import Settings
from peft_studio.run_dir import for_owner, write_once
from peft_studio.trainer import WAITING

# A user's own settings of this kind are about another Prefect server, and would win over ours.
_FOREIGN = ("PREFECT_API_", "PREFECT_PROFILE", "PREFECT_SERVER_DATABASE_", "PREFECT_CLIENT_CUSTOM_HEADERS")
DATABASE_URL = "PEFT_STUDIO_DATABASE_URL"
EVENTS_KEPT = "P365D"


def prefect_api_url(settings: Settings) -> str:
    """Return the address of the Prefect server's API."""
    return f"http://127.0.0.1:{settings.prefect_port}/api"


def prefect_auth_file(settings: Settings) -> Path:
    """Return the file that holds what the Prefect server and its UI ask for: ``user:password``."""
    return settings.data_dir / "secrets" / "prefect"


def database_password(settings: Settings) -> tuple[Path, str]:
    """Return the embedded database's password, and the file that holds it."""
    path = settings.data_dir / "secrets" / "database"
    return path, _secret(path, lambda: secrets.token_urlsafe(32))


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that make a program a client of this studio; the database's password is not among them."""
    return {
        **_settings_variables(settings),
        "PREFECT_HOME": str(settings.data_dir / "prefect"),
        "PREFECT_API_URL": prefect_api_url(settings),
        "PREFECT_API_AUTH_STRING": _prefect_auth(settings),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(settings.results),
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        # Nothing phones home: Prefect, Hugging Face and others heed one of these.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",  # its threads do not survive the forks of the warm worker
        **_waiting(settings),
        "PYTHONUNBUFFERED": "1",
    }


def server_environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Return the variables of the Prefect server: those of its clients, its database, its keys."""
    encryption = settings.data_dir / "secrets" / "encryption"
    return {
        **child_environment(settings),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_API_AUTH_STRING": _prefect_auth(settings),
        # Without it the key of all stored credentials lies in the same database as they do.
        "PREFECT_SERVER_ENCRYPTION_KEY": _secret(encryption, _fernet_key),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": EVENTS_KEPT,
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # A job that waits for a machine is not late; to mark hundreds of them holds up the server for a second.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": prefect_api_url(settings),
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # By default the UI is unpacked into the installed package, which need not be writable.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(settings.data_dir / "prefect" / "ui"),
        "PREFECT__SERVER_FINAL": "1",
    }


def inherited_environment() -> dict[str, str]:
    """Return this process's environment without what would lead a child to another server, or to the database."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN) and name != DATABASE_URL}


def _settings_variables(settings: Settings) -> dict[str, str]:
    written = settings.model_dump(mode="json")
    return {
        f"PEFT_STUDIO_{name.upper()}": text if isinstance(text := written[name], str) else json.dumps(text)
        for name, value in settings
        if value is not None and not isinstance(value, SecretStr)
    }


def _waiting(settings: Settings) -> Mapping[str, str]:
    """Return how threads wait for each other: where jobs share the processors, they leave them to others at once."""
    return WAITING if settings.local_jobs == 1 else {**WAITING, "GOMP_SPINCOUNT": "0"}


def _prefect_auth(settings: Settings) -> str:
    return _secret(prefect_auth_file(settings), lambda: f"studio:{secrets.token_urlsafe(24)}")


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _secret(path: Path, make: Callable[[], str]) -> str:
    """Read a secret from its file; on first use make it up and write it, readable by the owner alone."""
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(path, for_owner(make()))
        return path.read_text()
