"""Shapes of JSON: which fields there must be, of which type, in which format. Fields beyond those are free."""

import re
from typing import Any

NUMBER = (int, float)
TEXT = (str,)
TRUE = (bool,)
INTEGER = (int,)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
HASH = re.compile(r"sha256:\S+")
Shape = Any


def differences(shape: Shape, value: Any, at: str = "$") -> list[str]:
    """Name every place where ``value`` lacks a field of ``shape``, or has something else there."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{at}: {value!r} is no object"]
        missing = [f"{at}.{name}: missing" for name in shape if name not in value]
        return missing + [
            found
            for name, inner in shape.items()
            if name in value
            for found in differences(inner, value[name], f"{at}.{name}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{at}: {value!r} is no list with something in it"]
        return [found for n, item in enumerate(value) for found in differences(shape[0], item, f"{at}[{n}]")]
    if isinstance(shape, re.Pattern):
        return [] if isinstance(value, str) and shape.fullmatch(value) else [f"{at}: {value!r} is not {shape.pattern}"]
    if isinstance(shape, tuple):
        right = isinstance(value, shape) and (bool in shape or not isinstance(value, bool))
        return [] if right else [f"{at}: {value!r} is none of {shape}"]
    return [] if value == shape and type(value) is type(shape) else [f"{at}: {value!r} is not {shape!r}"]
