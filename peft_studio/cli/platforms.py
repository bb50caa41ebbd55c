"""``peft-studio platforms``: other services that the studio may use."""

import os
import sys
from typing import Annotated

import typer

from peft_studio.cli import SECTIONS
from peft_studio.cli.session import Session, command
from peft_studio.cli.tables import table
from peft_studio.errors import InvalidConfig
from peft_studio.platforms import CredentialField

app = typer.Typer(help=SECTIONS["platforms"], no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The platform's name, as `list` has it.", metavar="PLATFORM")]


@command(app, "list")
def list_platforms(session: Session) -> None:
    """List platforms, and which are connected."""
    found = session.client.list_platforms()
    rows = [(one.name, one.display_name, one.status, one.features, one.last_verified) for one in found.platforms]
    session.show(found, lambda: table(("name", "platform", "status", "features", "verified"), rows))


@command(app, "connect")
def connect(session: Session, name: Name) -> None:
    """
    Connect a platform: its credentials are checked with it, and kept encrypted.

    They are asked for without being shown. Without a terminal they are read from standard input, one a line;
    PEFT_STUDIO_CREDENTIAL_API_KEY (or the name of another field) in the environment goes before both.
    """
    wanted = session.client.get_platform(name).credentials
    given = {field.name: value for field in wanted if (value := _credential(name, field))}
    connected = session.client.connect_platform(name, given)
    session.show(connected, lambda: f"{connected.platform} is {connected.status}.")


@command(app, "verify")
def verify(session: Session, name: Name) -> None:
    """Try a platform's stored credentials again."""
    found = session.client.verify_platform(name)
    session.show(found, lambda: f"{found.name} is {found.status}." + (f" {found.error}" if found.error else ""))


@command(app, "disconnect")
def disconnect(session: Session, name: Name) -> None:
    """Disconnect a platform: its credentials are forgotten."""
    gone = session.client.disconnect_platform(name)
    session.show(gone, lambda: gone.message)


def _credential(platform: str, field: CredentialField) -> str | None:
    variable = f"PEFT_STUDIO_CREDENTIAL_{field.name.upper()}"
    value = os.environ.get(variable)
    if value is None and sys.stdin.isatty():
        asked = f"{platform} {field.name} ({field.description})"
        value = typer.prompt(asked, default=None if field.required else "", hide_input=field.secret, err=True)
    elif value is None:
        value = sys.stdin.readline()
    if not (value := str(value).strip()) and field.required:
        message = f"No {field.name} was given: type it, pipe it in, or set {variable}."
        raise InvalidConfig(message, field=field.name, issue="Required")
    return value or None
