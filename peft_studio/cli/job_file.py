"""A job as users write it down: a YAML or JSON file, and changes to it on the command line."""

import re
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from peft_studio.cli.connection import unreadable
from peft_studio.errors import InvalidConfig


class _Loader(yaml.SafeLoader):
    """Takes ``1e-4`` for a number, as JSON does and YAML 1.2; to PyYAML it would be a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """Read what people write; raises ``YAMLError``."""
    return yaml.load(text, _Loader)


def read_job(file: str, changes: Sequence[str]) -> dict[str, Any]:
    """Return the configuration in a file (``-`` is standard input), with ``field=value`` changes made to it."""
    config = read_file(file)
    if list(config) == ["config"] and isinstance(config["config"], dict):
        config = config["config"]  # the body of a request
    return with_changes(config, changes)


def read_file(file: str) -> dict[str, Any]:
    """Return the fields and values in a file (``-`` is standard input)."""
    try:
        if file == "-":
            content = sys.stdin.read()
        else:
            with open(file, encoding="utf-8") as opened:
                content = opened.read()
        config: Any = read_yaml(content)  # JSON is YAML
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"The job file {file} cannot be read: {unreadable(error)}.", field="FILE") from None
    except yaml.YAMLError as error:
        raise InvalidConfig(
            f"The job file {file} is neither YAML nor JSON.", field="FILE", issue=_where(error)
        ) from None
    if not isinstance(config, dict):
        raise InvalidConfig(
            f"The job file {file} must hold fields and values.", field="FILE", issue="Must be a mapping"
        )
    return config


def with_changes(config: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Make ``field=value`` changes; values are read as YAML, and dots lead into a field."""
    config = dict(config)
    for change in changes:
        name, equals, value = change.partition("=")
        if not name or not equals:
            raise InvalidConfig(f"{change!r} is no change.", field="--set", issue="Must be field=value")
        *outer, last = name.split(".")
        inside = config
        for step in outer:
            within = inside.get(step)
            inside[step] = inside = dict(within) if isinstance(within, dict) else {}
        try:
            inside[last] = read_yaml(value)
        except yaml.YAMLError:
            inside[last] = value
    return config


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark else str(error).splitlines()[0]
