"""What a job has no use for is not loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.trainer.optimizer import MAKERS
from peft_studio.trainer.unneeded import OPTIMIZERS, unneeded_by
from tests.tiny import make_run

TRAIN = """
import sys
from peft_studio.trainer.__main__ import work
from peft_studio.run_dir import RunDir
from peft_studio.trainer.stop import StopSignal

code = work(RunDir(sys.argv[1]), None, StopSignal())
print([name for name in ("bitsandbytes", "torchao", "boto3") if sys.modules.get(name)])
sys.exit(code)
"""


def unneeded(**fields: Any) -> set[str]:
    return unneeded_by(TrainingConfig(base_model="m", dataset_path="d", **fields))


def test_a_library_is_found_by_jobs_that_need_it() -> None:
    assert unneeded() == {"bitsandbytes", "torchao", "boto3"}
    for fields in ({"quantization": "int8"}, {"algorithm": "qlora"}, {"algorithm": "loftq"}, {"optimizer": "lion"}):
        assert unneeded(**fields) == {"torchao", "boto3"}, fields
    assert unneeded(quantization="fp8") == unneeded(quantization="int8_weight_only") == {"bitsandbytes", "boto3"}


def test_reward_functions_find_everything() -> None:
    assert unneeded(objective="grpo", grpo={"rewards": [{"function": "exact_match"}]}) == set()


def test_the_optimizers_of_bitsandbytes_are_known() -> None:
    made_there = {optimizer for optimizer, make in MAKERS.items() if "_bitsandbytes" in make.__qualname__}
    assert made_there == OPTIMIZERS


@pytest.mark.timeout(120)
def test_a_cold_trainer_trains_without_what_it_does_not_need(model: Path, rows: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, model, rows, max_steps=1)
    done = subprocess.run([sys.executable, "-c", TRAIN, str(run.path)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert run.read_summary() is not None
