"""What is wrong with a request, field by field, in words that say what to change."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypedDict, get_args

from litestar.params import KwargDefinition, ParameterKwarg
from litestar.typing import FieldDefinition
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig

MOST = 100  # mistakes that are listed; a body with more of them, maybe a million, is not worth the time
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_LONGEST_NAME = 64


class Issue(TypedDict):
    """One mistake; ``field`` is a path of names, relative to ``config`` where that is what was sent."""

    field: str
    issue: str


def invalid_body(error: ValidationError, model: type[BaseModel]) -> InvalidConfig:
    """Say what is wrong with a body that was to be a ``model``."""
    if (count := error.error_count()) > MOST:
        return InvalidConfig(f"The request has {count} mistakes.", field="body", issue="Must be of another shape")
    issues = [_body_issue(found, model) for found in error.errors(include_url=False, include_input=False)]
    about_training = any(field.annotation is TrainingConfig for field in model.model_fields.values())
    return InvalidConfig(None if about_training else "The request is invalid.", **issues[0], errors=issues)


def invalid_parameters(errors: Sequence[Any], fields: Mapping[str, FieldDefinition]) -> InvalidConfig:
    """Say what is wrong with query parameters and headers, of which Litestar found ``errors``."""
    issues = [_parameter_issue(error, fields.get(str(error.get("key")))) for error in errors]
    return InvalidConfig("The request is invalid.", **issues[0], errors=issues)


def bounds(constraints: Iterable[object]) -> str | None:
    """Put the limits of a number into words."""
    limits = {
        name: limit
        for constraint in constraints
        for name in ("ge", "gt", "le", "lt")
        if (limit := getattr(constraint, name, None)) is not None
    }
    if limits.keys() == {"ge", "le"}:
        return f"Must be between {_number(limits['ge'])} and {_number(limits['le'])}"
    words = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
    parts = [f"{words[name]} {_number(limit)}" for name, limit in limits.items()]
    return "Must be " + " and ".join(parts) if parts else None


def _number(value: float) -> str:
    if 0 < abs(value) < 0.1:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return str(int(value) if value == int(value) else value)


def _body_issue(error: ErrorDetails, model: type[BaseModel]) -> Issue:
    return {"field": _path(error["loc"]), "issue": _issue(error, model)}


def _path(location: Sequence[str | int]) -> str:
    names = location[1:] if len(location) > 1 and location[0] == "config" else location
    return ".".join(str(name)[:_LONGEST_NAME] for name in names) or "body"


def _issue(error: ErrorDetails, model: type[BaseModel]) -> str:
    *path, name = error["loc"] or ("",)
    parent = _model_at(model, path)
    known = parent.model_fields if parent else {}
    if error["type"] == "missing":
        return "Required"
    if error["type"] == "model_type":
        return "Must be an object"
    if error["type"] == "extra_forbidden":
        return "Unknown field" + _hint(str(name), known)
    if error["type"] in _OUT_OF_RANGE and (field := known.get(str(name))):
        return bounds(field.metadata) or _sentence(error["msg"])
    return _sentence(error["msg"])


def _hint(name: str, known: Mapping[str, FieldInfo]) -> str:
    close = get_close_matches(name, known, n=1) if len(name) <= _LONGEST_NAME else []
    return f"; did you mean {close[0]}?" if close else ""


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """Follow field names from a model to the model of what they lead to."""
    found: type[BaseModel] | None = model
    for name in path:
        field = found.model_fields.get(str(name)) if found else None
        candidates = (field.annotation, *get_args(field.annotation)) if field else ()
        found = next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found


def _sentence(message: str) -> str:
    """Have pydantic's messages speak as ours do, and our own validators' as they are."""
    return re.sub(r"^(Input|String|List|Dictionary|Value) should ", "Must ", message).removeprefix("Value error, ")


def _parameter_issue(error: Mapping[str, Any], field: FieldDefinition | None) -> Issue:
    name = str(error.get("key", "body"))
    message = str(error.get("message", "Not valid"))
    if field is None:
        return {"field": name, "issue": message}
    kwarg = field.kwarg_definition
    if isinstance(kwarg, ParameterKwarg) and kwarg.name:
        name = kwarg.name
    return {"field": name, "issue": _expectation(field, kwarg) or message}


def _expectation(field: FieldDefinition, kwarg: object) -> str | None:
    """Say what a parameter has to be, from its declaration."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Enum):
            return "Must be one of " + ", ".join(str(member.value) for member in kind)
    if not isinstance(kwarg, KwargDefinition):
        return None
    if kwarg.max_length:
        return f"Must have {kwarg.min_length or 0} to {kwarg.max_length} printable characters"
    return bounds([kwarg])
