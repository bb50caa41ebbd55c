"""What every command that talks to a studio has: the options that say to which, ``--json``, and a client."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Concatenate, ParamSpec, Self

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from peft_studio.cli.connection import Address, find, forget
from peft_studio.cli.exits import INTERRUPTED
from peft_studio.cli.tables import width_of
from peft_studio.client import Client
from peft_studio.errors import AuthenticationFailed, CredentialRefused

P = ParamSpec("P")

Url = Annotated[str | None, typer.Option(help="The studio's address; else PEFT_STUDIO_URL, else as `login` was told.")]
KeyFile = Annotated[Path | None, typer.Option(help="A file that holds the API key; else PEFT_STUDIO_API_KEY.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
_SHARED = {"url": (Url, None), "key_file": (KeyFile, None), "as_json": (AsJson, False)}


class Session:
    """One command's dealings with a studio, and how it shows what comes of them."""

    def __init__(self, url: str | None, key_file: Path | None, as_json: bool):
        self._url, self._key_file = url, key_file
        self.as_json = as_json
        self.console = Console(highlight=False)
        self.aside = Console(stderr=True, highlight=False)  # for people, beside what is the result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if "client" not in vars(self):
            return
        self.client.close()
        refused = isinstance(error, AuthenticationFailed) and not isinstance(error, CredentialRefused)
        if refused and (file := self._address.own_key):
            raise forget(file) from None

    @cached_property
    def client(self) -> Client:
        """The connection to the studio."""
        return Client(self._address.url, self._address.api_key)

    @cached_property
    def _address(self) -> Address:
        return find(self._url, self._key_file)

    def show(self, answer: BaseModel | Sequence[BaseModel], as_text: Callable[[], object]) -> None:
        """Print an answer: as JSON where that is wanted, else as ``as_text`` makes it (a table, or a line)."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain(answer), indent=2, ensure_ascii=False) + "\n")
        else:
            shown = as_text()
            if isinstance(shown, Table):
                self.console.width = width_of(shown, self.console)
            self.console.print(shown, soft_wrap=True)

    def line(self, answer: BaseModel) -> None:
        """Print one of many answers, as one line of JSON."""
        sys.stdout.write(json.dumps(_plain(answer), ensure_ascii=False) + "\n")
        sys.stdout.flush()


def command(app: typer.Typer, name: str) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[..., None]]:
    """Register a command whose first parameter is the session; the options behind that are added to its own."""

    def register(function: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, (kind, default) in _SHARED.items()
        ]

        def run(url: str | None, key_file: Path | None, as_json: bool, **named: Any) -> None:
            with Session(url, key_file, as_json) as session:
                try:
                    function(session, **named)  # pyright: ignore[reportCallIssue]
                except KeyboardInterrupt:
                    raise typer.Exit(INTERRUPTED) from None

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature([*own, *shared])  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        app.command(name)(run)
        return run

    return register


def _plain(answer: BaseModel | Sequence[BaseModel]) -> Any:
    if isinstance(answer, BaseModel):
        return answer.model_dump(mode="json")
    return [one.model_dump(mode="json") for one in answer]
