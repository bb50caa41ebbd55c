"""What tests of peers that do not read share: jobs with very much to say, and what the server still holds."""

import asyncio
import random
from collections.abc import AsyncGenerator

import psutil

from peft_studio.events import Event, Log
from tests.integration.api.studio_in_memory import JobsInMemory

SECONDS = 20.0
NOISE = random.Random(0).randbytes(32_768).hex()  # what no compression makes small


class TalkativeJobs(JobsInMemory):
    """Jobs that have more to say than all buffers between here and a client can hold."""

    async def follow(self, job_id: str, after: str | None = None) -> AsyncGenerator[tuple[str, Event]]:
        await self.get(job_id)
        self.followers += 1
        try:
            for seq in range(int(after or 0) + 1, 1_000_000):
                yield str(seq), Log(job_id=job_id, message=f"{seq} {NOISE}")
                await asyncio.sleep(0)
        finally:
            self.followers -= 1


def connections(address: str) -> int:
    """Count the connections that the server at an address holds."""
    port = int(address.split(":")[2].partition("/")[0])
    found = psutil.Process().net_connections("tcp4")
    return sum(found.laddr[1] == port and found.fd != -1 and bool(found.raddr) for found in found)
