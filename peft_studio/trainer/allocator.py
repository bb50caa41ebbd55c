"""
How glibc hands out a trainer's memory: it reads this when a process begins, so that who starts trainers has to say it.

PyTorch asks for blocks at multiples of 64 bytes. glibc cuts each out of a larger one, and keeps what is left before it
for small objects, which then lie between tensors: free blocks on both sides of one are never joined, and the heap grows
by holes. Without its two caches of small blocks, splinters are joined with their neighbours first.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"  # other C libraries do not read it
_WHOLE_BLOCKS = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.arena_max=1"


def allocator_environment() -> Mapping[str, str]:
    """Return the environment in which a trainer needs less; nothing where a GPU has the tensors, or somebody chose."""
    if sys.platform != "linux" or VARIABLE in os.environ or has_gpu():
        return {}
    return {VARIABLE: _WHOLE_BLOCKS}


def has_gpu() -> bool:
    """Tell whether there is an NVIDIA GPU, without PyTorch, which takes a second to ask."""
    return Path("/dev/nvidiactl").exists()
