"""What a machine has sent is taken once, whole, and only as far as it is what it should be."""

import hashlib
import json
import os
import random
from pathlib import Path

import pytest

from infra.rendezvous.mailbox import FolderMailbox, largest
from infra.rendezvous.mirror import Mirror
from peft_studio.events import Event, Failure, Log, Metrics, Status
from peft_studio.jobs import JobStatus
from peft_studio.remote.assignment import End
from peft_studio.run_dir import RunDir
from tests.rented_jobs import config

MACHINE = "pst-abcdef-" + "0" * 32 + "-1"


class Sender:
    """A machine's side of a mailbox: files that are there from one moment to the next."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.box = FolderMailbox(folder)

    def send(self, path: str, content: bytes | str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.part")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, target)

    def piece(self, folder: str, begin: int, content: bytes) -> None:
        self.send(f"{folder}/{begin:015d}", content)

    def checkpoint(self, step: int, *missing: str, best: int = 0, damaged: bool = False) -> None:
        files = {"state.pt": f"state {step}".encode(), "progress.json": json.dumps({"best_step": best}).encode()}
        facts = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
        files["manifest.json"] = json.dumps({"purpose": "p", "files": facts}).encode()
        if damaged:
            files["state.pt"] = b"something else"
        for name in files.keys() - set(missing):
            self.send(f"checkpoints/step-{step}/{name}", files[name])

    def end(self, **changes: object) -> None:
        self.send("end.json", End.model_validate({"code": 0, "seconds": 1.0} | changes).model_dump_json())

    def left(self) -> list[str]:
        return sorted(self.box.contents())


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "job_1")
    run.write("config.json", config(batch_size=4, gradient_accumulation_steps=2))
    return run


@pytest.fixture
def machine(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "box")


def mirror(run: RunDir, machine: Sender) -> Mirror:
    """As a process has it that has just begun."""
    return Mirror(machine.box, run, MACHINE)


def line(event: Event) -> bytes:
    return event.model_dump_json(exclude_none=True).encode() + b"\n"


def step(number: int) -> bytes:
    return line(Metrics(job_id="job_1", metrics={"step": float(number), "epoch": 0.1, "loss": 2.0}))


def steps(run: RunDir) -> list[float]:
    return [event.metrics["step"] for _, event in run.events() if isinstance(event, Metrics)]


def test_pieces_that_come_twice_or_out_of_order_or_cut_elsewhere_are_each_taken_once(
    run: RunDir, machine: Sender
) -> None:
    first, second, third = step(1), step(2), step(3)
    taking = mirror(run, machine)
    machine.piece("events", len(first), second)
    taking.pull()
    assert steps(run) == []
    machine.piece("events", 0, first)
    taking.pull()
    assert steps(run) == [1, 2]
    machine.piece("events", 0, first)
    machine.piece("events", 0, first + second + third)  # by a container that was started anew, with its disk
    taking.pull()
    assert steps(run) == [1, 2, 3]
    assert machine.left() == []


def test_whoever_goes_on_after_a_kill_neither_loses_an_event_nor_takes_one_twice(run: RunDir, machine: Sender) -> None:
    """The kill comes after each of the things that taking a piece consists of."""
    content = b"".join(map(step, range(1, 41)))
    places = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    dice, begin = random.Random(7), 0
    while begin < len(content):
        end = dice.choice([place for place in places if place > begin])
        machine.piece("events", begin, content[begin:end])
        notes = run.path / "machines" / MACHINE / "taken.json"
        before = notes.read_bytes() if notes.exists() else None
        mirror(run, machine).pull()
        if dice.random() < 0.7:  # killed before the notes were written: some of the lines are there, or all
            lines = run.events_path.read_bytes().splitlines(keepends=True)
            new = content[begin:end].count(b"\n")
            run.events_path.write_bytes(b"".join(lines[: len(lines) - dice.randint(0, new)]))
            notes.unlink() if before is None else notes.write_bytes(before)
            machine.piece("events", begin, content[begin:end])
            run.append(Log(job_id="job_1", message="The flow says something in between."))
            mirror(run, machine).pull()
        begin = end
    assert sorted(steps(run)) == list(range(1, 41))


def test_a_piece_of_the_largest_size_is_not_taken_twice(run: RunDir, machine: Sender) -> None:
    long = b"".join(line(Log(job_id="job_1", message=f"{n} " + "x" * 100_000)) for n in range(38))
    machine.piece("events", 0, long)
    mirror(run, machine).pull()
    (run.path / "machines" / MACHINE / "taken.json").unlink()
    machine.piece("events", 0, long)
    mirror(run, machine).pull()
    assert len(list(run.events())) == 38


def test_events_are_a_trainers_and_of_this_job_or_left_out(run: RunDir, machine: Sender) -> None:
    lines = [
        b"rubbish\n",
        b"\xff\xfe\n",
        b"{}\n",
        b"[" * 10_000 + b"\n",
        line(Status(job_id="job_1", status=JobStatus.COMPLETED)),
        line(Metrics(job_id="job_1", metrics={"loss": 1.0})),
        b'{"type":"metrics","job_id":"j","metrics":{"step":NaN,"loss":1}}\n',
        b'{"type":"metrics","job_id":"j","metrics":{"step":1e400,"loss":1}}\n',
        line(Failure(job_id="another", error="It failed.")),
    ]
    machine.piece("events", 0, b"".join(lines))
    mirror(run, machine).pull()
    [(_, event)] = run.events()
    assert isinstance(event, Failure) and event.job_id == "job_1"


def test_files_that_have_no_place_in_a_mailbox_are_not_taken(run: RunDir, machine: Sender) -> None:
    for path in ("config.json", "checkpoints/step-1/a/b", "checkpoints/step-x/manifest.json", "adapter/.hidden", "a/b"):
        machine.send(path, "x")
    machine.piece("events", 0, b"x" * (5 << 20))
    machine.send("summary.json", b" " * (2 << 20))
    assert machine.left() == []
    before = (run.path / "config.json").read_bytes()
    assert mirror(run, machine).pull() is None
    assert (run.path / "config.json").read_bytes() == before
    assert list(run.checkpoints.glob("*")) == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "adapter/..",
        "adapter/../x",
        "events/1",
        "checkpoints/step-1/..",
        "checkpoints/../adapter/x",
        "/end.json",
    ],
)
def test_a_path_that_leads_elsewhere_is_no_place(path: str) -> None:
    assert largest(path) < 0


def test_a_checkpoint_is_taken_when_its_last_file_is_there(run: RunDir, machine: Sender) -> None:
    taking = mirror(run, machine)
    machine.checkpoint(10, "manifest.json")
    taking.pull()
    assert not (run.checkpoints / "step-10").exists()
    machine.checkpoint(10)
    taking.pull()
    assert (run.checkpoints / "step-10" / "state.pt").read_bytes() == b"state 10"
    assert machine.left() == []


def test_a_checkpoint_that_was_half_taken_is_taken_again(run: RunDir, machine: Sender) -> None:
    half = run.checkpoints / ".step-10"
    half.mkdir(parents=True)
    (half / "state.pt").write_bytes(b"half")
    machine.checkpoint(10)
    mirror(run, machine).pull()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-10"]
    assert (run.checkpoints / "step-10" / "state.pt").read_bytes() == b"state 10"


@pytest.mark.parametrize("missing", ["state.pt", "progress.json"])
def test_a_checkpoint_that_was_taken_and_only_half_removed_stays_as_it_is(
    run: RunDir, machine: Sender, missing: str
) -> None:
    machine.checkpoint(10)
    mirror(run, machine).pull()
    machine.checkpoint(10, missing)
    mirror(run, machine).pull()
    assert {path.name for path in (run.checkpoints / "step-10").iterdir()} == {
        "manifest.json",
        "progress.json",
        "state.pt",
    }
    assert machine.left() == []


def test_a_damaged_checkpoint_takes_the_place_of_none(run: RunDir, machine: Sender) -> None:
    machine.checkpoint(10)
    machine.checkpoint(20, damaged=True)
    machine.send("checkpoints/step-30/manifest.json", "rubbish")
    mirror(run, machine).pull()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-10"]


def test_the_newest_two_checkpoints_and_the_best_are_kept(run: RunDir, machine: Sender) -> None:
    taking = mirror(run, machine)
    for number in (10, 20, 30, 40):
        machine.checkpoint(number, best=10)
        taking.pull()
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-10", "step-30", "step-40"}


def test_the_end_counts_when_all_events_are_there(run: RunDir, machine: Sender) -> None:
    taking = mirror(run, machine)
    machine.end(events_bytes=len(step(1)))
    assert taking.pull() is None
    machine.piece("events", 0, step(1))
    end = taking.pull()
    assert end is not None and end.code == 0
    assert steps(run) == [1]


def test_an_adapter_that_was_half_taken_is_taken_again(run: RunDir, machine: Sender) -> None:
    (run.path / ".adapter").mkdir()
    (run.path / ".adapter" / "left").write_bytes(b"half")
    machine.send("adapter/adapter_model.safetensors", "weights")
    machine.end()
    for _ in range(2):  # a process that was killed after it had taken it finds it again
        assert mirror(run, machine).pull() is not None
        assert [path.name for path in run.adapter.iterdir()] == ["adapter_model.safetensors"]


def test_results_that_are_none_are_not_taken(run: RunDir, machine: Sender) -> None:
    for name in ("summary.json", "evaluation.json", "failure.json"):
        machine.send(name, "{rubbish")
    machine.end(code=64)
    assert mirror(run, machine).pull() is not None
    assert (run.read_summary(), run.read_evaluation(), run.read_failure()) == (None, None, None)


@pytest.mark.parametrize("content", ["", "rubbish", "[]", '{"code": "x"}'])
def test_an_end_that_is_none_is_none(run: RunDir, machine: Sender, content: str) -> None:
    machine.send("end.json", content)
    assert mirror(run, machine).pull() is None


@pytest.mark.parametrize(
    ("batch", "accumulation", "is_kept"), [(2, 4, True), (1, 8, True), (2, 2, False), (0, 1, False)]
)
def test_a_layout_is_noted_if_a_step_stays_the_same(
    run: RunDir, machine: Sender, batch: int, accumulation: int, is_kept: bool
) -> None:
    layout = {"batch_size": batch, "gradient_accumulation_steps": accumulation, "gradient_checkpointing": True}
    machine.send("memory.json", json.dumps(layout))
    mirror(run, machine).pull()
    assert (run.path / "memory.json").exists() == is_kept
    assert machine.left() == []


def test_a_sign_of_life_is_seen_when_it_changes(run: RunDir, machine: Sender) -> None:
    taking = mirror(run, machine)
    taking.pull()
    assert taking.sign == ""
    signs = set[str]()
    for beat in range(3):
        machine.send("alive.json", f'{{"beat": {beat}, "seconds": 1}}')
        taking.pull()
        signs.add(taking.sign)
    assert len(signs) == 3


def test_what_a_machine_prints_is_taken_once(run: RunDir, machine: Sender) -> None:
    machine.piece("log", 0, b"one\n")
    mirror(run, machine).pull()
    machine.piece("log", 0, b"one\ntwo\n")
    mirror(run, machine).pull()
    assert run.log.read_bytes() == b"one\ntwo\n"
