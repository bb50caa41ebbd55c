"""The program that trains one adapter: python -m peft_studio.trainer RUN_DIR."""

# Part of every plan's cache key: goes up when the same configuration would train a different adapter.
TRAINER_VERSION = "1"
