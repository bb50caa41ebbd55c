"""A studio of its own for a benchmark, on free ports and in a temporary directory."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from peft_studio.client import Client
from peft_studio.ports import free_port

ROOT = Path(__file__).parent.parent


@dataclass
class Studio:
    """A running studio: where it is, a key to it, and how long it took to be ready (seconds)."""

    url: str
    key: str
    data_dir: Path
    process: "subprocess.Popen[str]"
    seconds_to_ready: float

    def client(self) -> Client:
        """Open a connection."""
        return Client(self.url, self.key)

    def new_key(self, name: str) -> str:
        """Create another API key."""
        with self.client() as client:
            return client.create_key(name, "admin").key

    def memory(self) -> dict[str, float]:
        """Return the proportional set size of every process, in MB, by what it is; shared pages count once in all."""
        sizes: dict[str, float] = {}
        supervisor = psutil.Process(self.process.pid)
        for process in [supervisor, *supervisor.children(recursive=True)]:
            name = _name(process)
            sizes[name] = sizes.get(name, 0.0) + process.memory_full_info().pss / 1e6
        return sizes


@contextmanager
def running_studio(data_dir: Path | None = None, *options: str, **environment: str) -> Generator[Studio]:
    """Start a studio, wait until it is ready, and stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="peft-studio-bench-") as folder:
        data_dir = data_dir or Path(folder)
        port, prefect_port = free_port(), free_port()
        began = time.perf_counter()
        ports = ["--port", str(port), "--prefect-port", str(prefect_port)]
        process = subprocess.Popen(
            [sys.executable, "-m", "peft_studio.cli", "up", "--data-dir", str(data_dir), *ports, *options],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=ROOT,
            env=os.environ | environment,
        )
        try:
            assert process.stdout is not None
            if not any("is ready" in line for line in process.stdout):
                raise RuntimeError(f"The studio did not start: see {data_dir}/logs.")
            seconds = time.perf_counter() - began
            key = _command(data_dir, "keys", "create", f"bench-{time.time():.0f}")
            yield Studio(f"http://127.0.0.1:{port}", key, data_dir, process, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def demo_job(**changes: Any) -> dict[str, Any]:
    """Return the demonstration's job, changed."""
    config = yaml.safe_load((ROOT / "demo" / "job.yaml").read_text())
    for field in ("base_model", "dataset_path"):
        config[field] = str(ROOT / config[field])
    return config | changes


def _command(data_dir: Path, *words: str) -> str:
    command = [sys.executable, "-m", "peft_studio.cli", *words, "--data-dir", str(data_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def _name(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    for part, name in (
        ("postgres", "PostgreSQL"),
        ("infra.warm serve", "warm server"),
        ("infra.worker", "worker"),
        ("api.app", "API"),
        ("prefect", "Prefect server"),
        (" up", "supervisor"),
    ):
        if part in words:
            return name
    return words[:40] or "other"
