"""The program on a rented machine: claim, fetch, work, send, end; see ``peft_studio.remote``."""

import argparse
import logging
import os
import secrets
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
from peft_studio.remote.assignment import END, Assignment, End, SelfRelease
from peft_studio.remote.courier import TIMEOUT, Courier, Dismissed, claim
from peft_studio.remote.outbox import Outbox
from peft_studio.remote.work import Work
from peft_studio.run_dir import RunDir, replace_file
from peft_studio.trainer.outcome import CRASHED
from peft_studio.trainer.stop import StopSignal, stop_on_signals

FINISH_SECONDS = 900.0  # for all that is left, where the studio is away just then
TAKEN_BACK_SECONDS = 60.0  # in which a studio that is there ends a machine that has finished
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
    with httpx.Client(timeout=TIMEOUT) as client:
        try:
            assignment = claim(client, address, _claimant())
        except Dismissed:
            log.warning("There is no work for this machine (any more): it waits to be taken back.")
            _wait_for_the_end(stop)
            return _DISMISSED
        return _carry_out(assignment, client, stop)


def _carry_out(assignment: Assignment, client: httpx.Client, stop: StopSignal) -> int:
    began, folder = time.monotonic(), work_folder()
    run = RunDir(folder / "run" / assignment.job_id)
    run.path.mkdir(parents=True, exist_ok=True)
    courier = Courier(client, assignment)
    outbox = Outbox(run, courier, folder / "outbox", _own_id(assignment.self_release))
    overtime = _watch_the_deadline(assignment)
    code, reason = CRASHED, ""
    try:
        for file in assignment.inputs:
            stop.check()
            outbox.push()
            courier.fetch(file, folder)
        _find_inputs(assignment, run, folder)
        code = Work(assignment, run, courier, outbox, stop).do(_trainer_environment(assignment, folder))
        reason = stop.reason
    except Dismissed:
        log.warning("The studio has dismissed this machine.")
        return _DISMISSED
    except Exception as error:
        reason = error.message if isinstance(error, StudioError) else f"{type(error).__name__}: {error}"
        log.exception("The work could not be done")
    with suppress(Dismissed):
        _tell_the_end(outbox, courier, End(code=code, reason=reason, seconds=time.monotonic() - began), assignment)
        _await_dismissal(courier, assignment.push_seconds)
        _release_itself(assignment.self_release)
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


def _claimant() -> str:
    """Return the name this machine claims by: the same where its container is started anew with its disk."""
    file = work_folder() / "claimant"
    with suppress(OSError):
        return file.read_text()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    replace_file(file, secrets.token_urlsafe(24).encode())
    return file.read_text()


def _trainer_environment(assignment: Assignment, folder: Path) -> dict[str, str]:
    """Return this process's environment without keys, and with the file that holds the hub's token."""
    release = assignment.self_release
    unwanted = {CLAIM_VARIABLE, release.key_variable if release else ""}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    if token := assignment.secrets.get("HF_TOKEN"):
        file = folder / "hub-token"
        file.touch(mode=0o600)
        file.write_text(token.get_secret_value())
        kept["HF_TOKEN_PATH"] = str(file)
    return kept


def _watch_the_deadline(assignment: Assignment) -> threading.Timer:
    """Have the machine end when its time, and that to save and send what it has, is up: whatever hangs."""

    def give_up() -> None:
        _release_itself(assignment.self_release)
        os.killpg(0, signal.SIGKILL)
        os._exit(CRASHED)  # the first process of a container cannot be killed from within

    timer = threading.Timer(assignment.deadline_seconds + assignment.stop_seconds, give_up)
    timer.daemon = True
    timer.start()
    return timer


def _own_id(release: SelfRelease | None) -> str:
    """Return what the vendor calls this machine, where it has put that into the environment."""
    return os.environ.get(release.id_variable, "") if release else ""


def _release_itself(release: SelfRelease | None) -> None:
    """Ask the vendor to end this machine; where that fails the studio does it, which it does in any case."""
    if release is None or not (key := os.environ.get(release.key_variable)):
        return
    with suppress(httpx.HTTPError, KeyError):
        url = release.url.format_map(os.environ)
        httpx.delete(url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT)


def _wait_for_the_end(stop: StopSignal) -> None:
    """Wait to be ended: a container whose program ends is started anew by some vendors, and again."""
    while not stop.requested:
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
