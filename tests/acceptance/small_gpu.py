"""
Stands in for ``PEFT_STUDIO_LAUNCHER`` on rented machines, of which the first has too little memory for any trainer.

    python small_gpu.py FILE MODULE RUN_DIR ARGUMENT...     FILE remembers which machine that is
"""

import json
import os
import sys
from pathlib import Path

remembered, module, run = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
if not remembered.exists():
    remembered.write_text(os.environ["HOME"])
if module == "peft_studio.trainer" and remembered.read_text() == os.environ["HOME"]:
    failure = {"type": "error", "job_id": run.name, "error": "Out of memory.", "code": "OUT_OF_MEMORY"}
    (run / "failure.json").write_text(json.dumps(failure))
    sys.exit(64)
os.execv(sys.executable, [sys.executable, "-m", "infra.warm", "run", *sys.argv[2:]])
