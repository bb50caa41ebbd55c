"""The program on a rented machine: claim, fetch, work, send, end; see ``peft_studio.remote``."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

from peft_studio.errors import StudioError, Unreachable
from peft_studio.plan import Plan
from peft_studio.remote import CLAIM_VARIABLE, work_folder
from peft_studio.remote.assignment import END, Assignment, End
from peft_studio.remote.claiming import claimed
from peft_studio.remote.courier import TIMEOUT, Courier, Dismissed
from peft_studio.remote.outbox import Outbox
from peft_studio.remote.self_release import SelfRelease
from peft_studio.remote.work import Work
from peft_studio.run_dir import RunDir, for_owner, write_whole
from peft_studio.trainer.outcome import CRASHED
from peft_studio.trainer.stop import StopSignal, stop_on_signals

FINISH_SECONDS = 900.0  # for all that is left, where the studio is away just then
TAKEN_BACK_SECONDS = 60.0  # in which a studio that is there ends a machine that has finished
AGAIN_SECONDS = 60.0
_DISMISSED = 0

log = logging.getLogger("peft_studio.remote")


def main() -> int:
    """Do the work that is claimed; return the exit code, which is the trainer's."""
    parser = argparse.ArgumentParser(prog="python -m peft_studio.remote", description="Train on a rented machine.")
    parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # addresses are nobody's business
    address = os.environ.get(CLAIM_VARIABLE) or parser.error(f"{CLAIM_VARIABLE} is not set: it holds the claim's URL.")
    stop = StopSignal()
    stop_on_signals(stop)
    release = SelfRelease.in_environment()
    with httpx.Client(timeout=TIMEOUT) as client:
        try:
            return _carry_out(claimed(client, address), client, stop, release)
        except (Dismissed, Unreachable) as error:
            log.warning("There is no work for this machine (any more), which ends: %s", error.message)
            _end_without_work(release, stop)
            return _DISMISSED


def _carry_out(assignment: Assignment, client: httpx.Client, stop: StopSignal, release: SelfRelease | None) -> int:
    began, folder = time.monotonic(), work_folder()
    run = RunDir(folder / "run" / assignment.job_id)
    run.path.mkdir(parents=True, exist_ok=True)
    courier = Courier(client, assignment)
    outbox = Outbox(run, courier, folder / "outbox", release.machine_id if release else "")
    overtime = _watch_the_deadline(assignment, release)
    code, reason = CRASHED, ""
    try:
        courier.orders()  # nothing is fetched for what is not wanted any more
        for file in assignment.inputs:
            stop.check()
            outbox.push()
            courier.fetch(file, folder)
        _find_inputs(assignment, run, folder)
        code = Work(assignment, run, courier, outbox, stop).do(_trainer_environment(assignment, folder, release))
        reason = stop.reason
    except Dismissed:
        overtime.cancel()
        raise
    except Exception as error:
        reason = error.message if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
        log.exception("The work could not be done")
    with suppress(Dismissed):
        _tell_the_end(outbox, courier, End(code=code, reason=reason, seconds=time.monotonic() - began), assignment)
        _await_dismissal(courier, assignment.push_seconds)
        if release:
            release.end()
    overtime.cancel()
    return code


def _find_inputs(assignment: Assignment, run: RunDir, folder: Path) -> None:
    """Have the plan say where on this machine model and data lie."""
    if plan := run.read("plan.json", Plan):
        model = {"path": str(folder / assignment.model) if assignment.model else None}
        data = {"path": str(folder / assignment.data)} if assignment.data else {}
        here = {"model": plan.model.model_copy(update=model), "dataset": plan.dataset.model_copy(update=data)}
        run.write("plan.json", plan.model_copy(update=here))


def _tell_the_end(outbox: Outbox, courier: Courier, end: End, assignment: Assignment) -> None:
    """Send all that is left; whoever is away is waited for as long as training would have gone on, or time is up."""
    left = assignment.deadline_seconds + assignment.stop_seconds - end.seconds
    patience = min(left, max(FINISH_SECONDS, assignment.silence_seconds))
    try:
        outbox.finish(patience)
        whole = end.model_copy(update={"events_bytes": outbox.events_bytes})
        courier.send(END, whole.model_dump_json().encode(), patience)
    except Unreachable as error:
        log.error("What came of the work could not be sent: %s", error.message)


def _await_dismissal(courier: Courier, look_seconds: float) -> None:
    """Give the studio time to take the machine back, which it does once it has seen the end; raises ``Dismissed``."""
    deadline = time.monotonic() + TAKEN_BACK_SECONDS
    while time.monotonic() < deadline:
        if (orders := courier.orders()) and orders.dismissed:
            raise Dismissed
        time.sleep(look_seconds)


def _trainer_environment(assignment: Assignment, folder: Path, release: SelfRelease | None) -> dict[str, str]:
    """Return this process's environment without keys, and with the file that holds the hub's token."""
    unwanted = {CLAIM_VARIABLE, release.key_variable if release else ""}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    file = folder / "hub-token"
    if token := assignment.secrets.get("HF_TOKEN"):
        write_whole(file, for_owner(token.get_secret_value()))
    return kept | ({"HF_TOKEN_PATH": str(file)} if file.is_file() else {})


def _watch_the_deadline(assignment: Assignment, release: SelfRelease | None) -> threading.Timer:
    """Have the machine end when its time, and that to save and send what it has, is up: whatever hangs."""

    def give_up() -> None:
        if release:
            release.end()
        os.killpg(0, signal.SIGKILL)
        os._exit(CRASHED)  # the first process of a container cannot be killed from within

    timer = threading.Timer(assignment.deadline_seconds + assignment.stop_seconds, give_up)
    timer.daemon = True
    timer.start()
    return timer


def _end_without_work(release: SelfRelease | None, stop: StopSignal) -> None:
    """
    End this machine, which would be paid for in vain; asked for again until it has come about.

    To end the program is enough only where no vendor would start its container anew, and again: there, a machine that
    can end itself.
    """
    while release:
        release.end()
        again = time.monotonic() + AGAIN_SECONDS
        while time.monotonic() < again:
            if stop.requested:
                return
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
