"""The program on a rented machine at work: trainers that die, memory that runs out, orders, a studio that is away."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.simulators.exchange import Asked, Reply, application
from infra.simulators.loopback import served
from peft_studio.oom_ladder import Layout
from peft_studio.remote import LAUNCHER_VARIABLE
from peft_studio.remote.assignment import ALIVE, Assignment, Orders, Upload
from peft_studio.remote.courier import Courier, Dismissed
from peft_studio.remote.outbox import Outbox
from peft_studio.remote.work import RESTARTS, Work
from peft_studio.run_dir import Request, RunDir
from peft_studio.trainer.outcome import CRASHED, DONE, FAILED, STOPPED
from peft_studio.trainer.stop import StopSignal
from tests.rented_jobs import config

# Stands in for ``python -m``: notes each start with the layout it found, then does as it is told.
TRAINER = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
run, act = pathlib.Path(sys.argv[2]), pathlib.Path(__file__).with_name("act").read_text()
memory = run / "memory.json"
layout = json.loads(memory.read_bytes())["batch_size"] if memory.exists() else None
with (run / "starts").open("a") as starts:
    starts.write(json.dumps([sys.argv[1].rsplit(".", 1)[-1], layout]) + chr(10))
count = len((run / "starts").read_text().splitlines())
def fail(code):
    failure = {"type": "error", "job_id": "job_1", "error": "It failed.", "code": code}
    (run / "failure.json").write_text(json.dumps(failure))
    sys.exit(64)
exec(act)
"""


class Office:
    """The studio as a machine meets it: it keeps what is sent, and can be away or say no."""

    def __init__(self) -> None:
        self.orders, self.sent = Orders(), dict[str, bytes]()
        self.answer: Reply | None = None

    async def __call__(self, asked: Asked) -> Reply:
        if self.answer is not None:
            return self.answer
        if asked.method == "GET":
            return Reply(json.loads(self.orders.model_dump_json()))
        self.sent[asked.path.removeprefix("/files/")] = asked.content
        return Reply(b"", 204)


class Bench:
    """A machine's run directory, and a trainer that acts as told."""

    def __init__(self, folder: Path, office: Office, address: str, client: httpx.Client):
        self.office, self._address, self._client = office, address, client
        self.run = RunDir(folder / "run" / "job_1")
        self.run.write("config.json", config(batch_size=4, gradient_accumulation_steps=2))
        self.launcher = folder / "launcher.py"
        self.launcher.write_text(TRAINER)
        self.stop = StopSignal()
        self._folder = folder

    def work(self, act: str, **changes: float) -> int:
        self.launcher.with_name("act").write_text(act)
        terms = {"deadline_seconds": 60.0, "checkpoint_seconds": 60.0, "silence_seconds": 60.0, "stop_seconds": 5.0}
        assignment = Assignment(
            job_id="job_1",
            machine="m",
            inputs=[],
            orders_url=f"{self._address}/orders",
            upload=Upload(url=f"{self._address}/files"),
            evaluate=False,
            **{**terms, "push_seconds": 0.05, **changes},  # pyright: ignore[reportArgumentType]
        )
        courier = Courier(self._client, assignment)
        outbox = Outbox(self.run, courier, self._folder / "outbox")
        return Work(assignment, self.run, courier, outbox, self.stop).do({"PATH": "/usr/bin:/bin"})

    @property
    def starts(self) -> list[int | None]:
        return [json.loads(line)[1] for line in (self.run.path / "starts").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    office = Office()
    monkeypatch.setenv(LAUNCHER_VARIABLE, shlex.join((sys.executable, str(tmp_path / "launcher.py"))))
    with served(application(office)) as address, httpx.Client(timeout=5) as client:
        yield Bench(tmp_path, office, address, client)


def test_a_trainer_that_dies_is_started_anew_and_not_for_ever(bench: Bench) -> None:
    assert bench.work("sys.exit(0 if count == 3 else 70)") == DONE
    assert len(bench.starts) == 3
    (bench.run.path / "starts").unlink()
    assert bench.work("sys.exit(70)") == CRASHED
    assert len(bench.starts) == RESTARTS + 1


def test_a_failure_that_would_come_again_ends_it_and_a_hub_that_is_away_does_not(bench: Bench) -> None:
    assert bench.work("fail('INVALID_CONFIG')") == FAILED
    assert len(bench.starts) == 1
    assert bench.work("fail('RESOURCE_UNAVAILABLE') if count < 3 else sys.exit(0)") == DONE


def test_out_of_memory_goes_down_the_ladder_until_there_is_no_further_rung(bench: Bench) -> None:
    assert bench.work("fail('OUT_OF_MEMORY')") == FAILED
    assert bench.starts == [None, 2, 1, 1]
    failure = bench.run.read_failure()
    assert failure is not None and failure.code == "OUT_OF_MEMORY"
    sent = Layout.model_validate_json(bench.office.sent["memory.json"])
    assert (sent.batch_size, sent.gradient_accumulation_steps) in ((2, 4), (1, 8))
    said = [event.message for _, event in bench.run.events() if event.type == "log"]
    assert len(said) == 3 and "batch_size 1 x gradient_accumulation_steps 8" in said[1]


def test_a_stop_that_is_ordered_lets_the_trainer_save_what_it_has(bench: Bench) -> None:
    bench.office.orders = Orders(stop="enough")
    assert bench.work("time.sleep(30)") == STOPPED
    assert bench.stop.reason == "enough"
    assert ALIVE in bench.office.sent


def test_a_checkpoint_is_asked_of_the_trainer_when_one_is_ordered(bench: Bench) -> None:
    bench.office.orders = Orders(asked_at=5.0)
    act = "[time.sleep(0.05) for _ in range(200) if not (run / 'requests' / 'checkpoint').exists()]"
    assert bench.work(act) == DONE
    assert bench.run.is_asked(Request.CHECKPOINT)


def test_a_checkpoint_is_asked_for_when_none_has_come_for_long(bench: Bench) -> None:
    act = "[time.sleep(0.05) for _ in range(200) if not (run / 'requests' / 'checkpoint').exists()]"
    assert bench.work(act, checkpoint_seconds=0.2) == DONE
    assert bench.run.is_asked(Request.CHECKPOINT)


def test_training_stops_when_time_is_up(bench: Bench) -> None:
    assert bench.work("time.sleep(30)", deadline_seconds=0.5) == STOPPED
    assert "time is up" in bench.stop.reason


def test_a_machine_that_is_not_wanted_ends_at_once(bench: Bench) -> None:
    bench.office.answer = Reply({"error": "no"}, 401)
    with pytest.raises(Dismissed):
        bench.work("time.sleep(30)")


def test_a_tunnels_page_that_the_studio_is_away_dismisses_no_machine(bench: Bench) -> None:
    bench.office.answer = Reply(b"<html>offline</html>", 404, {"Content-Type": "text/html"})
    assert bench.work("time.sleep(30)", silence_seconds=0.5) == STOPPED
    assert "has not answered" in bench.stop.reason


def test_what_was_written_while_the_studio_was_away_is_sent_when_it_is_back(bench: Bench) -> None:
    bench.office.answer = Reply(b"", 503)
    act = "print('a line', flush=True); time.sleep(0.5)"
    assert bench.work(act) == DONE
    assert bench.office.sent == {}
    bench.office.answer = None
    assert bench.work("time.sleep(0.3)") == DONE
    assert b"a line\n" in bench.office.sent["log/000000000000000"]
