"""
What stands in for the trainer on a rented machine where a test is about the machine: it leaves what the trainer leaves.

Called as ``PEFT_STUDIO_LAUNCHER`` is: MODULE RUN_DIR [ADAPTER] --tied-to-stdin. It needs the standard library alone,
since dozens of them run at a time.
"""

import hashlib
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STEPS, CHECKPOINT_STEPS, STEP_SECONDS = 12, 4, 0.25
STOPPED = 75
stopping: list[int] = []


def main() -> int:
    module, run = sys.argv[1], Path(sys.argv[2])
    if module.endswith("evaluate"):
        put(run / "evaluation.json", {"held_out_rows": 1})
        return 0
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    steps = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    for step in range(max(steps, default=0) + 1, STEPS + 1):
        time.sleep(STEP_SECONDS)
        tell(run, step)
        if stopping:
            checkpoint(run, step)
            return STOPPED
        if step % CHECKPOINT_STEPS == 0:
            checkpoint(run, step)
    put(run / "adapter" / "adapter_model.safetensors", {"steps": STEPS})
    put(run / "summary.json", summary(max(steps, default=0)))
    return 0


def tell(run: Path, step: int) -> None:
    event = {
        "type": "metrics",
        "job_id": run.name,
        "timestamp": datetime.now(UTC).isoformat(),
        "metrics": {"step": step, "epoch": step / STEPS, "loss": 1 / step, "total_steps": STEPS},
    }
    with (run / "events.jsonl").open("a") as events:
        events.write(json.dumps(event) + "\n")


def checkpoint(run: Path, step: int) -> None:
    temporary = run / "checkpoints" / f".step-{step}"
    put(temporary / "progress.json", {"step": step, "epoch": step / STEPS})
    content = (temporary / "progress.json").read_bytes()
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    put(temporary / "manifest.json", {"purpose": "a test", "files": {"progress.json": facts}})
    temporary.rename(run / "checkpoints" / f"step-{step}")


def summary(resumed: int) -> dict[str, Any]:
    whole = dict.fromkeys(("total_steps", "train_rows", "held_out_rows", "tokens", "supervised_tokens"), STEPS)
    parts = dict.fromkeys(("epochs", "final_loss", "best_loss", "tokens_per_second", "seconds", "peak_memory_mb"), 1.0)
    return whole | parts | {"trainable_parameters": 1, "resumed_at": [resumed] if resumed else []}


def put(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


if __name__ == "__main__":
    sys.exit(main())
