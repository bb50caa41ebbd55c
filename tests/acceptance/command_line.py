"""The command line, as tests call it."""

import os
import subprocess
import sys

from benchmarks.studio import Studio


def peft_studio(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "peft_studio.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
    )


def on_this_machine(studio: Studio, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a command as whoever started the studio: told where its data lies, and neither its address nor a key."""
    nothing_remembered = str(studio.data_dir / "nothing")
    return peft_studio(*words, PEFT_STUDIO_DATA_DIR=str(studio.data_dir), XDG_CONFIG_HOME=nothing_remembered)
