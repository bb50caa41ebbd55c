"""
A machine's door to the studio: opened with a claim that one machine can use, shut when it is not wanted any more.

Below ``RUN_DIR/machines/NAME`` lie, for one machine:

    receipt.json     see ``infra/machines/ledger.py``
    door.json        whom the door is open for; only hashes and names, nothing that would open it
    assignment.json  the work, without what is secret
    inputs.json      which of the studio's files the machine may fetch
    taken.json       how much of the mailbox has been taken over
    orders.json      what is wanted of the machine
    box/             the mailbox, where the machine sends to

With a bucket, all but the receipt and how much was taken lies there instead.
"""

import fcntl
import hashlib
import hmac
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, SecretStr

from infra.credentials import CredentialStore
from infra.rendezvous.mailbox import FolderMailbox
from infra.settings import Settings
from peft_studio.errors import AuthenticationFailed, NotFound
from peft_studio.events import now
from peft_studio.machine_names import job_of_machine
from peft_studio.remote.assignment import ORDERS, Assignment, InputFile, Orders, Upload
from peft_studio.run_dir import RunDir, for_owner, write_once

ROUTE = "/api/v1/rendezvous"
HUB, HUB_VARIABLE = "huggingface", "HF_TOKEN"


class Door(BaseModel):
    """Whom the door is open for."""

    claim_sha256: str
    expires_at: datetime
    claimant: str | None = None
    claimed_at: datetime | None = None
    is_shut: bool = False


class Inputs(BaseModel):
    """Which files the machine may fetch: where they lie here, by the paths that it asks for."""

    files: dict[str, Path]


class CallbackDoor:
    """One machine's door by way of the studio's own API; any of the studio's processes may look after it."""

    look_seconds = 0.25  # how often it is worth while to look

    def __init__(self, settings: Settings, machine: str):
        self._settings = settings
        self.machine = machine
        if (job_id := job_of_machine(machine)) is None:
            raise NotFound("There is no such machine.")
        self.run: RunDir = settings.run_dir(job_id)
        self.folder = self.run.path / "machines" / machine
        self.box = FolderMailbox(self.folder / "box")

    def open(self, assignment: Assignment, files: Mapping[str, Path], seconds: float) -> str:
        """Leave work at the door; return the address it is claimed at, once, within so many seconds."""
        code, base = secrets.token_urlsafe(32), f"{self._settings.address_for_machines}{ROUTE}/{self.machine}"
        sent = {
            "inputs": [input_file(path, f"{base}/inputs/{path}", file) for path, file in files.items()],
            "orders_url": f"{base}/orders",
            "upload": Upload(url=f"{base}/files"),
        }
        self.order(Orders())
        self._write("assignment.json", assignment.model_copy(update=sent))
        self._write("inputs.json", Inputs(files=dict(files)))
        self._write("door.json", Door(claim_sha256=_hash(code), expires_at=now() + timedelta(seconds=seconds)))
        return f"{base}/claims/{code}"

    def admitted(self) -> None:
        """Take note that the machine has come in; its claim is of no more use to anybody, as it was bound to it."""

    def order(self, orders: Orders) -> None:
        """Tell the machine what is wanted of it."""
        self._write(ORDERS, orders)

    def orders(self) -> Orders:
        """Return what the machine was told last."""
        return self.run.read(f"machines/{self.machine}/{ORDERS}", Orders) or Orders()

    def shut(self) -> None:
        """Let nobody in any more, and forget what was sent; silent where there is no door."""
        with self._alone():
            if door := self._read():
                self._write("door.json", door.model_copy(update={"is_shut": True}))
        self.box.clear()

    def forget(self) -> None:
        """Leave nothing of what it may have sent since, now that the machine is gone."""
        self.shut()

    @property
    def is_claimed(self) -> bool:
        """Whether a machine has claimed its work."""
        door = self._read()
        return door is not None and door.claimant is not None

    def claim(self, code: str, claimant: str) -> Assignment:
        """Hand the work to the first machine that asks for it, and to no other; it may ask again."""
        with self._alone():
            door, assignment = self._read(), self._work()
            is_right = door is not None and hmac.compare_digest(door.claim_sha256, _hash(code))
            if door is None or assignment is None or not is_right or door.is_shut:
                raise NotFound("There is no work for this machine.")
            if door.claimant is None and now() > door.expires_at:
                raise NotFound("This claim has expired.")
            if door.claimant not in (None, claimant):
                raise NotFound("This work was claimed by another machine.")
            claimed_at = door.claimed_at or now()
            if door.claimant is None:
                self._write("door.json", door.model_copy(update={"claimant": claimant, "claimed_at": claimed_at}))
        # A container that was started anew has no more time than it had.
        left = max(0.0, assignment.deadline_seconds - (now() - claimed_at).total_seconds())
        told = {"token": SecretStr(self._token(claimant)), "deadline_seconds": left}
        return assignment.model_copy(update=told)

    def require(self, token: str) -> None:
        """Let a machine in that has claimed its work; raises ``AuthenticationFailed``."""
        door = self._read()
        is_open = door is not None and door.claimant is not None and not door.is_shut
        expected = self._token((door and door.claimant) or "")
        if not is_open or not hmac.compare_digest(expected.encode(), token.encode()):
            raise AuthenticationFailed("This machine's door is shut.")

    def input(self, path: str) -> Path:
        """Return the file that a machine may fetch under a path; raises ``NotFound``."""
        inputs = self.run.read(f"machines/{self.machine}/inputs.json", Inputs)
        if inputs is None or path not in inputs.files:
            raise NotFound("There is no such file for this machine.")
        return inputs.files[path]

    def _token(self, claimant: str) -> str:
        key = _secret(self._settings.data_dir / "secrets" / "rendezvous")
        return hmac.new(key, f"{self.machine}\n{claimant}".encode(), "sha256").hexdigest()

    def _read(self) -> Door | None:
        return self.run.read(f"machines/{self.machine}/door.json", Door)

    def _work(self) -> Assignment | None:
        return self.run.read(f"machines/{self.machine}/assignment.json", Assignment)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Have no other process change the door meanwhile; there may be none."""
        if not self.folder.is_dir():
            yield
            return
        with (self.folder / ".door.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, name: str, value: BaseModel) -> None:
        self.run.write(f"machines/{self.machine}/{name}", value)


def input_file(path: str, url: str, file: Path) -> InputFile:
    """Describe a file of the studio's to the machine that is to fetch it."""
    return InputFile(path=path, url=url, size=file.stat().st_size)


async def hub_secrets(credentials: CredentialStore) -> dict[str, SecretStr]:
    """Return what the hub wants to see of a machine, read at the moment it is handed over; empty where unconnected."""
    kept = await credentials.get(HUB)
    return {HUB_VARIABLE: SecretStr(kept.reveal()["api_key"])} if kept else {}


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _secret(path: Path) -> bytes:
    """Read the key that tokens are made with; on first use make it up, readable by the owner alone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(path, for_owner(secrets.token_bytes(32)))
        return path.read_bytes()
