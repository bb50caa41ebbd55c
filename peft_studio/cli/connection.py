"""Which studio a command talks to, and with which key."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from peft_studio.errors import AuthenticationFailed, InvalidConfig, NotFound
from peft_studio.run_dir import write_whole

LOGIN = "Run `peft-studio login`, set PEFT_STUDIO_API_KEY, or name a file with --key-file."


class Remembered(BaseModel):
    """What ``peft-studio login`` keeps."""

    url: str
    api_key: str


@dataclass(frozen=True)
class Address:
    """A studio and a key to it."""

    url: str
    api_key: str


def find(url: str | None, key_file: Path | None) -> Address:
    """
    Return the studio to talk to: what was given, else the environment, else what was remembered, else this machine's.

    A key that belongs to one address is never sent to another one.
    """
    remembered, here = read_remembered(), _studio_here()
    wanted = url or os.environ.get("PEFT_STUDIO_URL") or (remembered.url if remembered else None) or here
    if wanted is None:
        raise NotFound(
            "No studio is known.", hint="Name one with --url or PEFT_STUDIO_URL, or start one with `peft-studio up`."
        )
    wanted = checked(wanted)
    if key_file is not None:
        return Address(wanted, read_key(key_file))
    if key := os.environ.get("PEFT_STUDIO_API_KEY"):
        return Address(wanted, key.strip())
    if remembered and remembered.url == wanted:
        return Address(wanted, remembered.api_key)
    if here == wanted:
        return Address(wanted, _key_here())
    raise AuthenticationFailed(f"There is no API key for {wanted}.", hint=LOGIN)


def checked(url: str) -> str:
    """Return an address in the form in which it is used and compared; raises ``InvalidConfig``."""
    url = url.rstrip("/").removesuffix("/api/v1")
    if not url.startswith(("http://", "https://")):
        raise InvalidConfig(f"{url!r} is no address of a studio.", field="--url", issue="Must begin with http(s)://")
    return url


def read_key(path: Path) -> str:
    """Read an API key from a file."""
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"The key file {path} cannot be read: {error}.", field="--key-file") from None
    if not key or any(character.isspace() for character in key):
        raise InvalidConfig(f"The key file {path} must hold one API key and nothing else.", field="--key-file")
    return key


def remembered_file() -> Path:
    """Return the file in which ``login`` keeps what it is told."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "peft-studio"


def read_remembered() -> Remembered | None:
    """Return what was remembered, if anything was."""
    path = remembered_file()
    try:
        return Remembered.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise InvalidConfig(f"{path} cannot be read; `peft-studio login` writes it anew.") from None


def remember(address: Address) -> Path:
    """Keep an address and its key, readable by the owner alone."""
    path = remembered_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_secret(path, Remembered(url=address.url, api_key=address.api_key).model_dump_json(indent=2) + "\n")
    return path


def _data_dir() -> Path:
    return Path(os.environ.get("PEFT_STUDIO_DATA_DIR") or Path.home() / ".peft-studio").expanduser()


def _studio_here() -> str | None:
    """Return the address of the studio that runs on this machine's data directory."""
    try:
        return str(json.loads((_data_dir() / "studio.json").read_bytes())["api_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key_here() -> str:
    """Return this command line's own key to the studio of this machine; the first time, have it made."""
    path = _data_dir() / "secrets" / "command-line"
    try:
        return path.read_text().strip()
    except OSError:
        pass
    name = f"command-line-{uuid4().hex[:8]}"
    words = ["keys", "create", name, "--data-dir", str(_data_dir())]
    made = subprocess.run([sys.executable, "-m", "peft_studio.cli", *words], capture_output=True, text=True)
    if made.returncode or not (key := made.stdout.strip()):
        raise AuthenticationFailed("There is no API key for the studio of this machine.", hint=LOGIN)
    _write_secret(path, key)
    return key


def _write_secret(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: (temporary.touch(mode=0o600), temporary.write_text(text)))
