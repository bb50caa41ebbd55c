"""Threads that wait for each other look for work for a moment where one job trains, and never where several do."""

import os
from pathlib import Path

from infra.embedded.environment import child_environment
from infra.settings import Settings
from peft_studio.trainer import WAITING


def test_where_one_job_trains_at_a_time_threads_look_before_they_sleep(tmp_path: Path) -> None:
    told = child_environment(Settings(data_dir=tmp_path, local_jobs=1))
    assert told["OMP_WAIT_POLICY"] == "passive"
    assert int(told["GOMP_SPINCOUNT"]) > 0


def test_where_several_jobs_train_at_once_threads_leave_the_processor_at_once(tmp_path: Path) -> None:
    told = child_environment(Settings(data_dir=tmp_path, local_jobs=2))
    assert told["OMP_WAIT_POLICY"] == "passive"
    assert told["GOMP_SPINCOUNT"] == "0"


def test_a_trainer_started_by_hand_has_its_threads_look_too() -> None:
    assert os.environ.keys() >= WAITING.keys()
