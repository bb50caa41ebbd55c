"""
Run the benchmarks and print their figures beside their limits.

    python -m benchmarks [startup] [first_step] [api_latency] [history] [upload] [watchers] [renting]
                         [endpoint] [export] [model_search] [registries] [training] [gpu_training]

The last two run only where they are named: they install the peers, and take a quarter of an hour and longer; the last
one, which is ``make bench-gpu``, on an NVIDIA GPU alone.
"""

import sys
from collections.abc import Callable

from benchmarks import (
    api_latency,
    endpoint,
    export,
    first_step,
    gpu_training,
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
from peft_studio.errors import ResourceUnavailable

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
    "gpu_training": gpu_training.measure,
}
WHEN_NAMED = ("training", "gpu_training")


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all; exit with 1 where a limit is missed."""
    wanted = names or [name for name in BENCHMARKS if name not in WHEN_NAMED]
    try:
        results = [show(name, BENCHMARKS[name]()) for name in wanted]
    except ResourceUnavailable as error:
        sys.exit(error.message)
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
