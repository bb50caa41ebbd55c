"""``peft-studio login``: an address and a key, remembered."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from peft_studio.cli.connection import Address, checked, read_key, remember
from peft_studio.client import Client
from peft_studio.errors import AuthenticationFailed


def app(
    url: Annotated[str, typer.Option(help="The studio's address.")] = "http://127.0.0.1:8000",
    key_file: Annotated[Path | None, typer.Option(help="A file that holds the API key.")] = None,
) -> None:
    """Remember a studio's address and an API key, for all further commands."""
    address = Address(checked(url), read_key(key_file) if key_file else _typed())
    with Client(address.url, address.api_key) as client:
        client.list_jobs(limit=1)  # a key that opens nothing is not worth remembering
    print(f"Remembered in {remember(address)}.", file=sys.stderr)


def _typed() -> str:
    """Return a key that was typed without being shown, or piped in."""
    typed = typer.prompt("API key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not (key := str(typed).strip()):
        raise AuthenticationFailed("No API key was given.", hint="Make one with `peft-studio keys create NAME`.")
    return key
