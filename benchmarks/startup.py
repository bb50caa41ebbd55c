"""Seconds from ``peft-studio up`` to ready, and the memory of all processes when idle."""

import tempfile
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.studio import running_studio

LATER_STARTS = 3


def measure() -> list[Figure]:
    """Start once in an empty directory, then again in the same one."""
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as folder:
        with running_studio(Path(folder)) as studio:
            first = studio.seconds_to_ready
        later: list[float] = []
        memory: dict[str, float] = {}
        for _ in range(LATER_STARTS):
            with running_studio(Path(folder)) as studio:
                later.append(studio.seconds_to_ready)
                memory = studio.memory()
    return [
        Figure("up to ready, empty directory", first, "s", at_most=40),
        Figure("up to ready, existing directory (slowest of 3)", max(later), "s", at_most=15),
        Figure("all processes idle, proportional set size", sum(memory.values()), "MB", at_most=1200),
        *(Figure(f"  of which {name}", size, "MB") for name, size in sorted(memory.items())),
    ]
