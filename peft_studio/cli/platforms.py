"""``peft-studio platforms``: other services that the studio may use."""

import os
import sys
from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import table
from peft_studio.errors import InvalidConfig

app = typer.Typer(help=SECTIONS["platforms"], no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The platform's name, as `list` has it.", metavar="PLATFORM")]
Fields = Annotated[list[str] | None, typer.Option("--field", help="What it asks for, where that is not one api_key.")]


@command(app, "list")
def list_platforms(session: Session) -> None:
    """List platforms, and which are connected."""
    found = session.client.list_platforms()
    rows = [(one.name, one.display_name, one.status, one.features, one.last_verified) for one in found.platforms]
    session.show(found, lambda: table(("name", "platform", "status", "features", "verified"), rows))


@command(app, "connect")
def connect(session: Session, name: Name, fields: Fields = None) -> None:
    """
    Connect a platform: its credentials are checked with it, and kept encrypted.

    They are asked for without being shown. Without a terminal they are read from standard input, one a line;
    PEFT_STUDIO_CREDENTIAL_API_KEY (or the name of another field) in the environment goes before both.
    """
    credentials = {field: _credential(name, field) for field in fields or ["api_key"]}
    connected = session.client.connect_platform(name, credentials)
    session.show(connected, lambda: f"{connected.platform} is {connected.status}.")


@command(app, "disconnect")
def disconnect(session: Session, name: Name) -> None:
    """Disconnect a platform: its credentials are forgotten."""
    gone = session.client.disconnect_platform(name)
    session.show(gone, lambda: gone.message)


def _credential(platform: str, field: str) -> str:
    variable = f"PEFT_STUDIO_CREDENTIAL_{field.upper()}"
    value = os.environ.get(variable)
    if value is None and sys.stdin.isatty():
        value = typer.prompt(f"{platform} {field}", hide_input=True, err=True)
    elif value is None:
        value = sys.stdin.readline()
    if not (value := str(value).strip()):
        raise InvalidConfig(
            f"No {field} was given: type it, pipe it in, or set {variable}.", field=field, issue="Required"
        )
    return value
