"""What this machine can do: measured once by a program of its own, remembered in the data directory."""

import socket
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable
from peft_studio.machine import Capabilities
from peft_studio.packages import installed
from peft_studio.run_dir import replace_file
from peft_studio.trainer import TRAINER_VERSION

PROGRAM = "peft_studio.trainer.capabilities"
TIMEOUT_SECONDS = 120


def load(settings: Settings) -> Capabilities | None:
    """Return what was measured; None where nothing was, or on another machine, with other libraries or a trainer."""
    try:
        known = Capabilities.model_validate_json(_file(settings).read_bytes())
    except (OSError, ValidationError):
        return None
    here = (socket.gethostname(), installed("torch"), installed("bitsandbytes"), installed("torchao"), TRAINER_VERSION)
    return known if (known.host, known.torch, known.bitsandbytes, known.torchao, known.trainer) == here else None


def probe(settings: Settings) -> Capabilities:
    """Return what this machine can do, measuring it if that was not done yet: some seconds, mostly imports."""
    if known := load(settings):
        return known
    try:
        done = subprocess.run(
            [sys.executable, "-m", PROGRAM], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
        )
        measured = Capabilities.model_validate_json(done.stdout.strip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        raise ResourceUnavailable(
            f"This machine could not be measured within {TIMEOUT_SECONDS} seconds; it is overloaded, try again."
        ) from None
    except (subprocess.CalledProcessError, ValidationError) as error:
        said = (
            (error.stderr.strip() or "nothing").splitlines()[-1]
            if isinstance(error, subprocess.CalledProcessError)
            else ""
        )
        raise ResourceUnavailable(
            f"This machine could not be measured: {said}. Is peft-studio[train] installed?"
        ) from error
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    replace_file(_file(settings), measured.model_dump_json(indent=2).encode())
    return measured


def _file(settings: Settings) -> Path:
    return settings.data_dir / "machine.json"
