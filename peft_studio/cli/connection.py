"""Which studio a command talks to, and with which key."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from peft_studio.errors import AuthenticationFailed, InvalidConfig, NotFound
from peft_studio.run_dir import for_owner, write_whole

LOGIN = "Run `peft-studio login`, set PEFT_STUDIO_API_KEY, or name a file with --key-file."


class Remembered(BaseModel):
    """What ``peft-studio login`` keeps."""

    url: str
    api_key: str


@dataclass(frozen=True)
class Address:
    """A studio and a key to it; ``own_key`` is the file of the key, where this command line had it made for itself."""

    url: str
    api_key: str
    own_key: Path | None = None


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
        file = _data_dir() / "secrets" / "command-line"
        return Address(wanted, _key_in(file), file)
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
        raise InvalidConfig(f"The key file {path} cannot be read: {unreadable(error)}.", field="--key-file") from None
    if not key or any(character.isspace() for character in key):
        raise InvalidConfig(f"The key file {path} must hold one API key and nothing else.", field="--key-file")
    return key


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Say why a file cannot be read, without its name."""
    return error.strerror or "no reason is known" if isinstance(error, OSError) else "it is no text in UTF-8"


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
    kept = Remembered(url=address.url, api_key=address.api_key).model_dump_json(indent=2) + "\n"
    write_whole(path, for_owner(kept))
    return path


def _data_dir() -> Path:
    return Path(os.environ.get("PEFT_STUDIO_DATA_DIR") or Path.home() / ".peft-studio").expanduser()


def _studio_here() -> str | None:
    """Return the address of the studio that runs on this machine's data directory."""
    try:
        return str(json.loads((_data_dir() / "studio.json").read_bytes())["api_url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _key_in(file: Path) -> str:
    """Return this command line's own key to the studio of this machine; the first time, have it made."""
    try:
        if file.exists():
            return file.read_text().strip()
        with _alone_in(file.parent):
            if not file.exists():
                write_whole(file, for_owner(_new_key()))
            return file.read_text().strip()
    except OSError as error:
        raise AuthenticationFailed(f"The key in {file} cannot be kept: {error.strerror}.", hint=LOGIN) from None


@contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Have several commands that begin at the same time go in one by one."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _new_key() -> str:
    name = f"command-line-{uuid4().hex[:8]}"
    words = ["keys", "create", name, "--data-dir", str(_data_dir())]
    made = subprocess.run([sys.executable, "-m", "peft_studio.cli", *words], capture_output=True, text=True)
    if made.returncode or not (key := made.stdout.strip()):
        said = made.stderr.strip().removeprefix("peft-studio: ")
        raise AuthenticationFailed(f"No API key to the studio of this machine could be made: {said}", hint=LOGIN)
    return key


def forget(own_key: Path) -> AuthenticationFailed:
    """Drop a key of this command line's own that does not hold any more; the next command has another one made."""
    own_key.unlink(missing_ok=True)
    return AuthenticationFailed(
        "This command line's own key to the studio does not hold any more.",
        hint="Run the command again: it gets a new key.",
    )
