"""The program that trains one adapter: python -m peft_studio.trainer RUN_DIR."""

import os

# Read when torch is first loaded. By default an OpenMP thread that waits for another one burns its core meanwhile;
# where other programs want the cores too, that was measured to make training several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Part of every plan's cache key: goes up when the same configuration would train a different adapter.
TRAINER_VERSION = "5"
