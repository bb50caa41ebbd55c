"""
The command line, ``peft-studio``.

Commands that need more than the installed package come from the entry points of the group "peft_studio.commands".
"""

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from peft_studio.errors import InternalError, ResourceUnavailable, StudioError

GROUP = "peft_studio.commands"

app = typer.Typer(
    help="Fine-tune language models on your own machines: a self-hosted service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback must not show the values of variables: some are secrets
)


def add_commands(app: typer.Typer) -> None:
    """Add every command of the group; one whose code is not installed says so when it is called."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            app.command(entry.name, hidden=True, context_settings=_ANYTHING)(_not_installed(entry, error.name))
            continue
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _not_installed(entry: EntryPoint, module: str | None) -> Callable[[], None]:
    def command() -> None:
        raise ResourceUnavailable(
            f"`peft-studio {entry.name}` needs the server, which is not installed here (no module {module});"
            " run it from a checkout of the project after `make setup`."
        )

    return command


@app.callback()
def _studio() -> None:  # pyright: ignore[reportUnusedFunction] -- with it a lone command keeps its name
    pass


def main() -> None:
    """Run a command; what went wrong is told in one line."""
    add_commands(app)
    try:
        app()
    except StudioError as error:
        print(f"peft-studio: {error.message}", file=sys.stderr)
        sys.exit(1 if isinstance(error, InternalError) else 2)


if __name__ == "__main__":
    main()
