"""
What runs on a rented machine: it claims its work from the studio, trains, and sends back what comes of it.

    PEFT_STUDIO_CLAIM=https://… python -m peft_studio.remote

The claim's address is all that the machine is given. What it gets there (an ``Assignment``) says which files to fetch,
where to send others, and when to be done. Nothing is kept that the studio does not get: events and checkpoints go out
as they come, so that a machine may vanish at any moment.
"""

from pathlib import Path

CLAIM_VARIABLE = "PEFT_STUDIO_CLAIM"
LAUNCHER_VARIABLE = "PEFT_STUDIO_LAUNCHER"  # a command that runs a Python module, where it is not to be ``python -m``


def work_folder() -> Path:
    """Return where a machine's work lies: run/JOB_ID, and the model and data that were fetched for it."""
    return Path.home() / "peft-studio"
