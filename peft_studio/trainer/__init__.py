"""The program that trains one adapter: python -m peft_studio.trainer RUN_DIR."""

import os

# All read when torch is first loaded. By default an OpenMP thread that waits for another one burns its core for
# milliseconds; where other programs want the cores too, that was measured to make training several times slower.
# One that sleeps at once is late where they do not: waking an idle core takes longer than most of what it waits for.
# So it looks 2,000 times, for some 20 microseconds, before it sleeps (docs/training-speed.md).
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}
# oneDNN makes a kernel for every shape of product, and it and PyTorch keep 1,024 of them each, by default:
# half a GB. A batch has its own number of tokens, and so some dozens of shapes, which no other batch may ever have.
KERNELS_KEPT = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
for _name, _value in (WAITING | KERNELS_KEPT).items():
    os.environ.setdefault(_name, _value)

# Part of every plan's cache key: goes up when the same configuration would train a different adapter.
TRAINER_VERSION = "10"
