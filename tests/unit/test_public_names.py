"""What ``peft_studio`` offers by name."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import peft_studio
from peft_studio import answers, errors, events
from peft_studio.client.operations import Operations
from peft_studio.errors import StudioError


def named_by(annotation: Any) -> set[str]:
    """The classes of this project that a type is made of."""
    own = inspect.isclass(annotation) and annotation.__module__.startswith("peft_studio")
    inner = {name for part in get_args(annotation) for name in named_by(part)}
    return inner | ({annotation.__name__} if own else set())


def test_the_names_are_sorted_and_all_lead_somewhere() -> None:
    assert peft_studio.__all__ == sorted(peft_studio.__all__)
    assert [name for name in peft_studio.__all__ if getattr(peft_studio, name).__class__ is None] == []
    assert dir(peft_studio) == peft_studio.__all__


def test_what_type_checkers_see_is_what_is_there() -> None:
    tree = ast.parse(Path(peft_studio.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    assert sorted(alias.name for node in imports for alias in node.names) == peft_studio.__all__


def test_every_error_every_event_and_every_type_of_an_operation_has_a_public_name() -> None:
    wanted = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, StudioError)}
    wanted |= named_by(events.Event) | {"Client", "AsyncClient"}
    inner = {"Call", "Pause"}  # of what an operation is made
    for section in Operations.__mro__[1:-1]:
        for name in vars(section):
            if not name.startswith("_"):
                hints = get_type_hints(getattr(section, name))
                wanted |= {found for hint in hints.values() for found in named_by(hint)} - inner
    assert wanted - set(peft_studio.__all__) == set()


def test_every_answer_is_public_or_part_of_one_that_is() -> None:
    kinds = {kind for kind in vars(answers).values() if inspect.isclass(kind) and issubclass(kind, answers.Answer)}
    parts = {name for kind in kinds for field in kind.model_fields.values() for name in named_by(field.annotation)}
    assert {kind.__name__ for kind in kinds} - parts - set(peft_studio.__all__) == {"Answer"}


def test_the_package_is_imported_without_what_is_not_used() -> None:
    code = "import sys, peft_studio, peft_studio.errors; print(sorted({'httpx', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
