"""The program that trains one adapter: python -m peft_studio.trainer RUN_DIR."""
