"""
A machine's door by way of a bucket, for studios that rented machines cannot call back.

The machine gets the signed address of one small file, and in it signed addresses of all else: of its inputs to read,
and a policy that lets it write below its own prefix, until its time is up. No key of the bucket leaves the studio.
Source: AWS, "Authenticating requests: browser-based uploads using POST" (starts-with conditions on ``key``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from pydantic import SecretStr

from infra.rendezvous.door import input_file
from infra.rendezvous.mailbox import Mailbox
from infra.settings import Settings
from peft_studio.errors import NotFound
from peft_studio.machine_names import job_of_machine
from peft_studio.remote.assignment import ALIVE, ORDERS, Assignment, Orders, Upload

CLAIM = "claim.json"
LONGEST_SECONDS = 7 * 86_400 - 60  # of an address signed with version 4
_PUSH_SECONDS = 5.0  # every look at a bucket is paid for


class BucketDoor:
    """One machine's door in the studio's bucket."""

    def __init__(self, settings: Settings, machine: str):
        job_id = job_of_machine(machine)
        if settings.bucket is None or job_id is None:
            raise NotFound("There is no such machine.")
        self.run = settings.run_dir(job_id)
        self.machine = machine
        self._url = f"{settings.bucket.rstrip('/')}/machines/{machine}"
        self._bucket, _, self._prefix = self._url.removeprefix("s3://").partition("/")
        self._endpoint = settings.bucket_endpoint
        options = {"client_kwargs": {"endpoint_url": self._endpoint}} if self._endpoint else {}
        self.box = Mailbox(self._url, **options)

    def open(
        self, assignment: Assignment, files: Mapping[str, Path], seconds: float, hub: Mapping[str, SecretStr]
    ) -> str:
        """Leave work in the bucket; return the signed address it is claimed at within so many seconds."""
        lasting = int(min(assignment.deadline_seconds + seconds + 3600, LONGEST_SECONDS))
        client = self._client()
        for path, file in files.items():
            client.upload_file(str(file), self._bucket, f"{self._prefix}/inputs/{path}")
        self.box.write(ORDERS, Orders().model_dump_json().encode())
        form = client.generate_presigned_post(
            self._bucket,
            f"{self._prefix}/${{filename}}",
            Conditions=[["starts-with", "$key", f"{self._prefix}/"]],
            ExpiresIn=lasting,
        )
        sent = {
            "inputs": [
                input_file(path, self._signed(client, f"inputs/{path}", lasting), file) for path, file in files.items()
            ],
            "orders_url": self._signed(client, ORDERS, lasting),
            "upload": Upload(url=form["url"], fields=form["fields"], prefix=f"{self._prefix}/"),
            "push_seconds": _PUSH_SECONDS,
            "secrets": dict(hub),
        }
        self.box.write(CLAIM, assignment.model_copy(update=sent).model_dump_json().encode())
        return self._signed(client, CLAIM, int(min(seconds, LONGEST_SECONDS)))

    def admitted(self) -> None:
        """Remove the claim, and what is secret with it, once the machine has it."""
        self.box.remove(CLAIM)

    @property
    def is_claimed(self) -> bool:
        """Whether a machine has claimed its work."""
        return self.box.read(ALIVE) is not None

    def shut(self) -> None:
        """Forget what was sent, and leave word for a machine that lives on."""
        self.box.remove()
        self.box.write(ORDERS, Orders(dismissed=True).model_dump_json().encode())

    def _signed(self, client: Any, path: str, seconds: int) -> str:
        where = {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}
        return client.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)

    def _client(self) -> Any:
        # The same chain of credentials as s3fs: the environment, a profile, the machine's own role.
        signed = Config(signature_version="s3v4", connect_timeout=10, read_timeout=60, retries={"max_attempts": 5})
        return botocore.session.get_session().create_client("s3", endpoint_url=self._endpoint, config=signed)
