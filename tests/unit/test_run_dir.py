"""The run directory: what is written whole, and how events are numbered."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from peft_studio.config import TrainingConfig
from peft_studio.events import Failure, Log, Metrics, Status
from peft_studio.jobs import JobStatus, Phase
from peft_studio.run_dir import EventReader, Request, RunDir, for_owner, write_once, write_whole


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "job_1")


def log(message: str) -> Log:
    return Log(job_id="job_1", message=message)


def messages(run: RunDir, after: int = 0) -> list[tuple[int, str]]:
    return [(seq, event.message) for seq, event in run.events(after) if isinstance(event, Log)]


def test_events_come_back_in_order_with_their_line_numbers(run: RunDir) -> None:
    for message in "abc":
        run.append(log(message))
    assert messages(run) == [(1, "a"), (2, "b"), (3, "c")]
    assert messages(run, after=2) == [(3, "c")]


def test_a_torn_line_keeps_its_number_and_swallows_nothing(run: RunDir) -> None:
    run.append(log("a"))
    with run.events_path.open("ab") as file:
        file.write(b'{"type": "log", "mess')
    run.append(log("c"))
    assert messages(run) == [(1, "a"), (3, "c")]


def test_a_line_that_is_still_being_written_is_not_read_yet(run: RunDir) -> None:
    run.append(log("a"))
    reader = EventReader(run)
    assert [seq for seq, _ in reader.read()] == [1]
    line = log("b").model_dump_json().encode() + b"\n"
    with run.events_path.open("ab", buffering=0) as file:
        file.write(line[:10])
        assert list(reader.read()) == []
        file.write(line[10:])
    assert [seq for seq, _ in reader.read()] == [2]


def test_line_separators_inside_a_message_do_not_shift_numbers(run: RunDir) -> None:
    run.append(log("one\u2028line\x85still\nthe same"))
    run.append(log("two"))
    assert messages(run) == [(1, "one\u2028line\x85still\nthe same"), (2, "two")]


def test_many_writers_never_mix_their_lines(run: RunDir) -> None:
    run.path.mkdir()
    children: list[int] = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            for number in range(50):
                run.append(log(f"{number} {'x' * 9000}"))  # several pages: a look at the file may see half of it
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert [seq for seq, _ in messages(run)] == list(range(1, 201))


def test_reading_where_there_is_nothing_yet_gives_nothing(run: RunDir) -> None:
    assert list(run.events()) == []
    assert run.latest().phase is None
    assert run.read_summary() is None


def test_the_latest_state_comes_from_the_end_of_a_long_record(run: RunDir) -> None:
    run.append(Status(job_id="job_1", status=JobStatus.RUNNING, phase=Phase.VALIDATING))
    for step in range(2000):
        run.append(Metrics(job_id="job_1", metrics={"step": step, "loss": 1.0, "epoch": 0.5}))
    run.append(Status(job_id="job_1", status=JobStatus.RUNNING, phase=Phase.EVALUATING))
    run.append(Metrics(job_id="job_1", metrics={"step": 1999, "epoch": 1.0, "eval_loss": 0.5}))
    run.append(Failure(job_id="job_1", error="It broke.", details="Mend it."))
    latest = run.latest()
    assert latest.phase is Phase.EVALUATING
    assert latest.metrics == {"step": 1999, "loss": 1.0, "epoch": 1.0, "eval_loss": 0.5}
    assert latest.failure == {"error": "It broke.", "details": "Mend it.", "code": "TRAINING_FAILED"}


def test_a_job_that_has_trained_for_long_still_trains(run: RunDir) -> None:
    run.append(Status(job_id="job_1", status=JobStatus.RUNNING, phase=Phase.TRAINING))
    for step in range(2000):
        run.append(Metrics(job_id="job_1", metrics={"step": step, "loss": 1.0, "epoch": 0.5}))
    assert run.latest().phase is Phase.TRAINING


def test_a_job_that_is_taken_up_again_has_not_failed(run: RunDir) -> None:
    run.append(Failure(job_id="job_1", error="It broke."))
    run.enter(Phase.QUEUED, JobStatus.PENDING)
    assert run.latest().failure is None


def test_a_request_stands_until_it_is_withdrawn(run: RunDir) -> None:
    assert not run.is_asked(Request.PAUSE)
    run.withdraw(*Request)
    first = run.ask(Request.PAUSE)
    assert run.ask(Request.PAUSE) >= first
    assert run.is_asked(Request.PAUSE) and not run.is_asked(Request.CHECKPOINT)
    run.withdraw(*Request)
    assert not run.is_asked(Request.PAUSE)


def test_a_document_is_replaced_whole_and_leaves_no_scraps(run: RunDir) -> None:
    config = TrainingConfig(base_model="a", dataset_path="b")
    run.write("config.json", config)
    run.write("config.json", config.model_copy(update={"rank": 4}))
    assert run.read_config().rank == 4
    assert [path.name for path in run.path.iterdir()] == ["config.json"]


def test_a_file_url_is_a_run_directory_too(tmp_path: Path) -> None:
    run = RunDir(f"file://{tmp_path}/job_2")
    run.append(log("a"))
    assert run.job_id == "job_2"
    assert (tmp_path / "job_2" / "events.jsonl").exists()


def test_of_several_that_write_a_file_once_the_first_one_counts_for_all(tmp_path: Path) -> None:
    file, all_there = tmp_path / "key", Barrier(8)

    def key_of(number: int) -> str:
        all_there.wait()
        write_once(file, lambda temporary: temporary.write_text(f"key {number}"))
        return file.read_text()

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(key_of, range(8)))
    assert keys == {file.read_text()}
    assert os.listdir(tmp_path) == ["key"]


def test_threads_that_write_a_file_at_once_leave_what_one_of_them_wrote(tmp_path: Path) -> None:
    file, all_there = tmp_path / "record", Barrier(8)

    def write(number: int) -> None:
        all_there.wait()
        for _ in range(20):
            write_whole(file, lambda temporary: temporary.write_text(f"{number}" * 1000))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(file.read_text()) == 1000 and len(set(file.read_text())) == 1
    assert os.listdir(tmp_path) == ["record"]


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_what_is_written_for_its_owner_nobody_else_can_read(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "key", for_owner("sécret"))
    assert (tmp_path / "key").read_text() == "sécret"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
