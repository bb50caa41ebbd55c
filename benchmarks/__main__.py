"""
Run the benchmarks and print their figures beside their limits.

    python -m benchmarks [startup] [first_step] [api_latency] [history] [upload] [watchers] [renting]
                         [endpoint] [export] [model_search] [registries] [training]

The last runs only where it is named: it installs the peers, and takes a quarter of an hour.
"""

import sys
from collections.abc import Callable

from benchmarks import (
    api_latency,
    endpoint,
    export,
    first_step,
    history,
    model_search,
    registries,
    renting,
    startup,
    training,
    upload,
    watchers,
)
from benchmarks.report import Figure, show

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "startup": startup.measure,
    "first_step": first_step.measure,
    "api_latency": api_latency.measure,
    "history": history.measure,
    "upload": upload.measure,
    "watchers": watchers.measure,
    "renting": renting.measure,
    "endpoint": endpoint.measure,
    "export": export.measure,
    "model_search": model_search.measure,
    "registries": registries.measure,
    "training": training.measure,
}
WHEN_NAMED = ("training",)


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all; exit with 1 where a limit is missed."""
    results = [
        show(name, BENCHMARKS[name]()) for name in names or [name for name in BENCHMARKS if name not in WHEN_NAMED]
    ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
