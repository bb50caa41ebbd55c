"""
The command line, ``peft-studio``.

Each section (``jobs``, ``datasets``, …) is a module of its own, imported only when it is called: ``--help`` and
completions answer at once. Commands that need more than the installed package come from the entry points of the
group "peft_studio.commands".
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

import typer

from peft_studio.cli.exits import exit_code, explain
from peft_studio.errors import NotFound, StudioError

GROUP = "peft_studio.commands"

# What ``--help`` says of what it has not imported.
SECTIONS = {
    "adapters": "List, download, upload and delete adapters.",
    "machines": "Look at machines that were rented for jobs, and what each has cost.",
    "budgets": "Look at monthly budgets for rented machines, and set them.",
    "datasets": "Upload, look at and delete data sets.",
    "deployments": "Serve adapters, try them out, and stop serving them.",
    "evaluations": "Measure adapters beside their base models, on any rows.",
    "exports": "Make adapters into what others load: merged weights, GGUF files, Ollama models.",
    "experiments": "Look at experiments, and compare them.",
    "jobs": "Submit, watch and control training jobs.",
    "login": "Remember a studio's address and an API key, for all further commands.",
    "models": "Search base models.",
    "platforms": "Connect platforms, and disconnect them.",
    "schedules": "Have jobs start again and again, at their times.",
    "sweeps": "Try out hyperparameters: a job for each point, the worst stopped early.",
    "resources": "Look at the machines that jobs can train on.",
}
OF_THE_SERVER = {
    "env": 'Print the settings for Prefect\'s own commands: eval "$(peft-studio env)".',
    "keys": "Create, list and revoke the API keys of the running studio.",
    "up": "Start the studio: PostgreSQL, Prefect, a worker and the API. Ctrl-C stops all of it.",
}
_EPILOG = """
Exit codes: 0 done · 1 the studio failed · 2 refused, or wrongly called · 3 the job failed · 4 the job was cancelled ·
5 no valid API key, or one that may not do this · 6 the studio is away or busy: try again later · 130 interrupted
"""


def main() -> None:
    """Run a command; what went wrong is told in one line, with what to do about it."""
    try:
        application(called(sys.argv[1:], os.environ))()
    except StudioError as error:
        print(explain(error), file=sys.stderr)
        sys.exit(exit_code(error))


def application(name: str | None) -> typer.Typer:
    """Put the command line together; only the command of this name is imported."""
    app = typer.Typer(
        help="Fine-tune language models on your own machines: a self-hosted service.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a traceback must not show the values of variables: some are secrets
    )
    app.callback()(_studio)
    commands: dict[str, Callable[[], object]] = {section: _section(section) for section in SECTIONS}
    others = entry_points(group=GROUP)  # asked once: it reads a file of every installed package
    commands |= {entry.name: entry.load for entry in others}
    hidden = {entry.name for entry in others if find_spec(entry.module.partition(".")[0]) is None}
    for command, load in sorted(commands.items()):
        if command == name:
            _add(app, command, load)
        else:  # it is listed, and not imported
            app.command(command, help=(SECTIONS | OF_THE_SERVER).get(command), hidden=command in hidden)(_not_called)
    return app


def called(words: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return the command that was called, or that a shell wants to complete."""
    typed = environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS")
    words = typed.split()[1:] if typed else words
    return next((word for word in words if not word.startswith("-")), None)


def _section(name: str) -> Callable[[], object]:
    return lambda: importlib.import_module(f"peft_studio.cli.{name}").app


def _add(app: typer.Typer, name: str, load: Callable[[], object]) -> None:
    try:
        command = load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("peft_studio"):
            raise
        app.command(name, hidden=True, context_settings=_ANYTHING)(_not_installed(name, error.name))
        return
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    elif callable(command):
        app.command(name)(command)


_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _not_installed(name: str, module: str) -> Callable[[], None]:
    def command() -> None:
        raise NotFound(
            f"`peft-studio {name}` needs the server, which is not installed here (no module {module});"
            " run it from a checkout of the project after `make setup`."
        )

    return command


def _not_called() -> None:
    raise AssertionError("a command was called that was only announced")


def _studio() -> None:
    pass  # with a callback a lone command keeps its name
