"""
Run the benchmarks and print their figures beside their limits.

    python -m benchmarks [startup] [first_step] [api_latency] [history] [upload] [watchers] [renting]
                         [endpoint] [export] [model_search] [registries]
                         [training] [products] [onednn] [waiting] [imports] [gpu_training]

The last line runs only where it is named: minutes to a quarter of an hour each, and some install the peers; the last
one, which is ``make bench-gpu``, on an NVIDIA GPU alone.
"""

import sys
from collections.abc import Callable
from importlib import import_module

from benchmarks.report import Figure, show
from peft_studio.errors import ResourceUnavailable

USUAL = (
    "startup",
    "first_step",
    "api_latency",
    "history",
    "upload",
    "watchers",
    "renting",
    "endpoint",
    "export",
    "model_search",
    "registries",
)
WHEN_NAMED = ("training", "products", "onednn", "waiting", "imports", "gpu_training")


def main(names: list[str]) -> None:
    """Run the named benchmarks, or the usual ones; exit with 1 where a limit is missed."""
    if unknown := set(names) - {*USUAL, *WHEN_NAMED}:
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join((*USUAL, *WHEN_NAMED))}.")
    try:
        results = [show(name, _measure(name)()) for name in names or USUAL]
    except ResourceUnavailable as error:
        sys.exit(error.message)
    sys.exit(0 if all(results) else 1)


def _measure(name: str) -> Callable[[], list[Figure]]:
    """Return what measures; only what is asked for is imported, for some import torch."""
    return import_module(f"benchmarks.{name}").measure


if __name__ == "__main__":
    main(sys.argv[1:])
