"""
A machine's door by way of a bucket, for studios that rented machines cannot call back.

The machine gets the signed address of one small file, and in it signed addresses of all else: of its inputs to read,
and a policy that lets it write below its own mailbox, until its time is up. No key of the bucket leaves the studio.
Below ``BUCKET/PATH/machines/NAME`` lie, for one machine:

    claim.json   the work, with what is secret, until the machine has it
    inputs/      the files it needs
    orders.json  what is wanted of it
    box/         the mailbox, where the machine sends to

Source: AWS, "Authenticating requests: browser-based uploads using POST" (starts-with conditions on ``key``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from pydantic import SecretStr

from infra.rendezvous.bucket_folder import BucketFolder, unreached
from infra.rendezvous.door import input_file
from infra.settings import Settings
from peft_studio.errors import NotFound
from peft_studio.machine_names import job_of_machine
from peft_studio.remote.assignment import ALIVE, ORDERS, Assignment, Orders, Upload

CLAIM, BOX = "claim.json", "box"
LONGEST_SECONDS = 7 * 86_400 - 60  # of an address signed with version 4
LARGEST_BYTES = 5 << 30  # of a file that comes as a form
_PUSH_SECONDS = 5.0  # every look at a bucket is paid for


class BucketDoor:
    """One machine's door in the studio's bucket."""

    look_seconds = 2.0  # how often it is worth while to look; every look is paid for

    def __init__(self, settings: Settings, machine: str):
        job_id = job_of_machine(machine)
        if settings.bucket is None or job_id is None:
            raise NotFound("There is no such machine.")
        self.run = settings.run_dir(job_id)
        self.machine = machine
        place = f"{settings.bucket.removeprefix('s3://').strip('/')}/machines/{machine}"
        self._bucket, _, self._prefix = place.partition("/")
        self._endpoint = settings.bucket_endpoint
        self._folder = BucketFolder(place, self._endpoint)
        self.box = BucketFolder(f"{place}/{BOX}", self._endpoint)

    def open(
        self, assignment: Assignment, files: Mapping[str, Path], seconds: float, hub: Mapping[str, SecretStr]
    ) -> str:
        """Leave work in the bucket; return the signed address it is claimed at within so many seconds."""
        lasting = int(min(assignment.deadline_seconds + seconds + 3600, LONGEST_SECONDS))
        for path, file in files.items():
            self._folder.put(f"inputs/{path}", file)
        self.order(Orders())
        try:
            sent, claim = self._signed(files, lasting, int(min(seconds, LONGEST_SECONDS)))
        except BotoCoreError as error:
            raise unreached(self._bucket, error) from error
        work = assignment.model_copy(update={**sent, "push_seconds": _PUSH_SECONDS, "secrets": dict(hub)})
        self._folder.write(CLAIM, work.model_dump_json().encode())
        return claim

    def admitted(self) -> None:
        """Remove the claim, and what is secret with it, once the machine has it."""
        self._folder.remove([CLAIM])

    @property
    def is_claimed(self) -> bool:
        """Whether a machine has claimed its work."""
        return self.box.exists(ALIVE)

    def order(self, orders: Orders) -> None:
        """Tell the machine what is wanted of it."""
        self._folder.write(ORDERS, orders.model_dump_json().encode())

    def orders(self) -> Orders:
        """Return what the machine was told last."""
        content = self._folder.read(ORDERS, 1 << 20)
        return Orders.model_validate_json(content) if content else Orders()

    def shut(self) -> None:
        """Forget what was sent; a machine that lives on finds no orders, and ends."""
        self._folder.clear()

    def forget(self) -> None:
        """Leave nothing of what it may have sent since, now that the machine is gone."""
        self._folder.clear()

    def _signed(self, files: Mapping[str, Path], lasting: int, claim_seconds: int) -> tuple[dict[str, Any], str]:
        """Return what an assignment says of the bucket, and the claim's address; signing asks nobody."""
        client, box = self._client(), f"{self._prefix}/{BOX}/"

        def address(path: str, seconds: int) -> str:
            where = {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}
            return client.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)

        form = client.generate_presigned_post(
            self._bucket,
            f"{box}${{filename}}",
            Conditions=[["content-length-range", 0, LARGEST_BYTES]],
            ExpiresIn=lasting,
        )
        sent = {
            "inputs": [input_file(path, address(f"inputs/{path}", lasting), file) for path, file in files.items()],
            "orders_url": address(ORDERS, lasting),
            "upload": Upload(url=form["url"], fields=form["fields"], prefix=box),
        }
        return sent, address(CLAIM, claim_seconds)

    def _client(self) -> Any:
        # The same chain of credentials as s3fs: the environment, a profile, the machine's own role.
        signed = Config(signature_version="s3v4")
        return botocore.session.get_session().create_client("s3", endpoint_url=self._endpoint, config=signed)
