"""
An environment of its own for a real MLflow server and a real trackio: their pins are not those of the studio.

It is made once, inside the environment that runs the tests, and lies there until that one is made anew.
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

WANTED = ["mlflow>=3.17,<3.18", "trackio>=0.43,<0.44"]
OURS = ["httpx>=0.28", "pydantic>=2.12", "websockets>=15", "typer>=0.15", "rich>=14", "pyyaml>=6", "fsspec>=2025.3"]
FOLDER = Path(sys.prefix) / "trackers"
_MARK = "wanted-" + hashlib.sha256(" ".join(WANTED + OURS).encode()).hexdigest()[:12]


def python_with_trackers() -> Path:
    """Return a Python that has both; the first call takes about a minute."""
    python = FOLDER / "bin" / "python"
    with FOLDER.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / _MARK).exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True, capture_output=True)
            # Of ten thousand modules a third is ever imported: compiling them all takes as long as the rest.
            install = [python, "-m", "pip", "install", "-q", "--no-compile", *WANTED, *OURS]
            subprocess.run(install, check=True, capture_output=True, timeout=1500)
            (FOLDER / _MARK).touch()
    return python
