"""Shapes of JSON: which fields there must be, of which type, in which format. Fields beyond those are free."""

import re
from typing import Any

NUMBER = (int, float)
TEXT = (str,)
TRUE = (bool,)
INTEGER = (int,)
TEXT_OR_NULL = (str, type(None))
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
HASH = re.compile(r"sha256:\S+")
URL = re.compile(r"https?://\S+")
Shape = Any

# Fields whose example is one word of a vocabulary: there the very same word is expected.
WORDS = {"status", "type", "level", "code", "success", "currency", "model_source", "algorithm"}
# Fields whose example happens to be whole, and that measure something that need not be.
QUANTITIES = {
    *("alpha", "vram_gb", "ram_gb", "storage_gb", "min_vram_gb", "recommended_vram_gb"),
    *("duration_seconds", "estimated_duration_minutes", "estimated_wait_minutes"),
    *("requests_per_minute", "avg_latency_ms", "latency_ms"),
}
_ID = re.compile(r"(job|adapter|deploy|exp)_[a-z0-9]+")


def shape_of(example: Any, config: Shape, name: str = "") -> Shape:
    """Return the shape that a value must have to be as in an example; ``config`` is that of what is left out there."""
    match example:
        case _ if name in WORDS:
            return example
        case dict():
            return {inner: shape_of(value, config, inner) for inner, value in example.items()}
        case list():
            return [shape_of(example[0], config, name)]
        case bool():
            return TRUE
        case int():
            return NUMBER if name in QUANTITIES else INTEGER
        case float():
            return NUMBER
        case str():
            return _shape_of_text(example)
        case None:
            return TEXT_OR_NULL
        case _:
            return config


def _shape_of_text(example: str) -> Shape:
    if found := _ID.fullmatch(example):
        return re.compile(found[1] + "_[0-9a-f]{32}")
    return next((kind for kind in (TIME, HASH, URL) if kind.fullmatch(example)), TEXT)


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
