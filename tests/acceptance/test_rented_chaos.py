"""
Many jobs on rented machines while everything goes wrong: each ends right, is paid for to the cent, and leaves nothing.

    PEFT_STUDIO_CHAOS_JOBS=100 PEFT_STUDIO_CHAOS_SEED=7 python -m pytest tests/acceptance/test_rented_chaos.py -s

A few jobs and always the same seed by default. The seed decides which faults come at which vendor, and what is killed
when; it is printed.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from random import Random
from typing import TypeVar

import psutil
import pytest

from benchmarks.rented import RentingStudio, renting_studio
from infra.simulators.cloud import SimulatedMachine
from infra.simulators.faults import OF_HOSTS, Fault, FaultKind
from peft_studio.errors import Unreachable
from peft_studio.jobs import Job, JobStatus
from peft_studio.machines import MachineStatus
from tests.acceptance.conftest import eventually
from tests.acceptance.jobs import flow_process, follow, job, part, short_job, submit

JOBS = int(os.environ.get("PEFT_STUDIO_CHAOS_JOBS", "5"))
SEED = int(os.environ.get("PEFT_STUDIO_CHAOS_SEED", "1"))
VENDORS = ("runpod", "vast", "huggingface")
AT_ONCE, STEPS, BOOT_MINUTES = 10, 30, 0.4
PRICE = 500.0  # times what is listed, where a vendor may change it: seconds are cents then
KILLS = ("flow", "api", "flow", "worker")
SECONDS = 120 + 40 * JOBS
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(SECONDS + 120)]


@pytest.fixture
def renting(used_data_dir: Callable[[str], Path]) -> Iterator[RentingStudio]:
    folder, minutes = used_data_dir("chaos"), str(BOOT_MINUTES)
    with renting_studio(folder, *VENDORS, PEFT_STUDIO_MAX_RECOVERIES="50", PEFT_STUDIO_BOOT_MINUTES=minutes) as started:
        yield started


def test_jobs_end_right_are_paid_for_and_leave_nothing_whatever_goes_wrong(renting: RentingStudio) -> None:
    print(f"seed {SEED}, {JOBS} jobs", flush=True)
    at_home = submit(renting.studio, max_steps=STEPS)
    follow(renting.studio, at_home)
    right = job(renting.studio, at_home).artifact
    assert right is not None
    chaos = Chaos(renting, Random(SEED))
    ended = chaos.run()
    for job_id, one in ended.items():
        if one.status is JobStatus.COMPLETED:
            assert one.artifact and one.artifact.hash == right.hash, job_id
        else:
            assert one.status is JobStatus.FAILED and one.error, (job_id, one.status)
            assert one.error["code"] == "INSUFFICIENT_CREDITS", (job_id, one.error)
    failed = sum(one.status is JobStatus.FAILED for one in ended.values())
    print(f"{len(ended) - failed} completed, {failed} without credit", flush=True)
    assert failed <= chaos.came(FaultKind.OUT_OF_CREDIT)
    assert eventually(lambda: renting.existing() == [], 60), renting.existing()
    check_machines(renting, ended)
    check_bills(renting, ended)


Answer = TypeVar("Answer")


class Chaos:
    """What goes wrong, dealt from shuffled decks: with a few jobs each kind of trouble comes, too."""

    def __init__(self, renting: RentingStudio, choose: Random):
        self._renting, self._choose = renting, choose
        for vendor in VENDORS:
            renting.clouds[vendor].faults.add(Fault(kind=FaultKind.PRICE_DRIFT, value=PRICE, times=1_000_000))
        rounds = ceil(JOBS / 8)
        left_out = OF_HOSTS | {FaultKind.REVOKED_KEY, FaultKind.PRICE_DRIFT}
        kinds = [kind for kind in FaultKind if kind not in left_out] * rounds
        self.faults = [Fault(kind=kind, value=self._value(kind)) for kind in kinds]
        self._kills = [*KILLS] * rounds
        choose.shuffle(self.faults)
        choose.shuffle(self._kills)

    def run(self) -> dict[str, Job]:
        """Submit jobs, some at a time, and disturb them until all have ended."""
        left, live, ended = JOBS, list[str](), dict[str, Job]()
        waiting, kills = list(self.faults), list(self._kills)
        deadline, kill_at = time.monotonic() + SECONDS, time.monotonic() + 8
        while left or live:
            assert time.monotonic() < deadline, f"still at work: {live}; ended: {len(ended)}"
            while left and len(live) < AT_ONCE:
                for fault in waiting[: ceil(len(waiting) / left)]:
                    self._add(waiting.pop(waiting.index(fault)))
                live.append(self._submit())
                left -= 1
            due = len(self._kills) * (JOBS - left) / JOBS  # no more at first than in the end
            if kills and len(self._kills) - len(kills) < due and time.monotonic() > kill_at:
                self._kill(kills.pop(), live)
                kill_at = time.monotonic() + self._choose.uniform(2, 10)
            time.sleep(0.5)
            for job_id in list(live):
                if (seen := patiently(partial(job, self._renting.studio, job_id))).status.is_final:
                    ended[job_id] = seen
                    live.remove(job_id)
                    print(f"{time.strftime('%X')} {job_id} {seen.status} {seen.error or ''}", flush=True)
        return ended

    def came(self, kind: FaultKind) -> int:
        """How many troubles of a kind have come."""
        to_come = sum(cloud.faults.to_come(kind) for cloud in self._renting.clouds.values())
        return sum(fault.kind is kind for fault in self.faults) - to_come

    def _submit(self) -> str:
        vendor = self._choose.choice(VENDORS)
        spot = vendor == "vast" and self._choose.random() < 0.3
        config = short_job(provider=vendor, spot=spot, max_steps=STEPS, checkpoint_steps=5)
        key = secrets.token_hex(8)  # so that what is said again is done once

        def submitted() -> str:
            with self._renting.studio.client() as client:
                return client.create_job(config, idempotency_key=key).job_id

        return patiently(submitted)

    def _add(self, fault: Fault) -> None:
        vendor = self._choose.choice(VENDORS)
        print(f"{time.strftime('%X')} {vendor}: {fault.kind} {fault.value:.0f}", flush=True)
        self._renting.clouds[vendor].faults.add(fault)

    def _kill(self, which: str, live: Sequence[str]) -> None:
        print(f"{time.strftime('%X')} kill {which}", flush=True)
        with suppress(psutil.NoSuchProcess, FileNotFoundError, StopIteration, ValueError):
            match which:
                case "flow":
                    flow_process(self._renting.studio, self._choose.choice(live)).kill()
                case "api":
                    part(self._renting.studio, "api.app").kill()
                case _:
                    part(self._renting.studio, "infra.worker").kill()

    def _value(self, kind: FaultKind) -> float:
        match kind:
            case FaultKind.TIMEOUT_AFTER_CREATE:  # one that is longer than an answer may take takes its time
                return 46 if JOBS > 50 else 3
            case FaultKind.PREEMPTED:
                return self._choose.randint(2, STEPS - 5)
            case FaultKind.SLOW_BOOT | FaultKind.LIST_LAG:
                return self._choose.uniform(2, 6)
            case _:
                return 0.0


def patiently(call: Callable[[], Answer]) -> Answer:
    """Call until the API answers, which takes longer to start on a busy machine than its clients wait."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except Unreachable:
            assert time.monotonic() < deadline


def check_machines(renting: RentingStudio, ended: dict[str, Job]) -> None:
    """No name was used twice, every machine has its receipt, and no job had two machines at work at once."""
    machines = [one for cloud in renting.clouds.values() for one in cloud.machines.values()]
    assert len({one.name for one in machines}) == len(machines)
    receipts = [receipt for job_id in ended for receipt in renting.receipts(job_id)]
    assert all(receipt.status.is_over for receipt in receipts)
    gone = {receipt.name for receipt in receipts if receipt.status is MachineStatus.GONE}
    assert gone == {one.name for one in machines}
    for job_id in ended:
        spans = sorted(_span(one) for one in machines if job_id.removeprefix("job_") in one.name)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), (job_id, spans)


def _span(machine: SimulatedMachine) -> tuple[float, float]:
    assert machine.gone is not None
    return machine.created, min(end for end in (machine.ended, machine.lost, machine.gone) if end is not None)


def check_bills(renting: RentingStudio, ended: dict[str, Job]) -> None:
    """What the studio says that jobs have cost is what the vendors' own ledgers say."""
    said = {job_id: renting.job(job_id)["cost"] for job_id in ended}
    ledgers = sum(receipt.cost for cloud in renting.clouds.values() for receipt in cloud.ledger())
    print(f"${sum(said.values()):.4f}; the vendors' ledgers: ${ledgers:.4f}", flush=True)
    for job_id, cost in said.items():
        assert cost == pytest.approx(renting.billed(job_id), abs=0.0005), (job_id, renting.receipts(job_id))
    assert sum(said.values()) == pytest.approx(ledgers, abs=0.005)
