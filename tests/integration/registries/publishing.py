"""
A process that publishes, to be killed: python -m tests.integration.registries.publishing < ORDER.json

Kept apart from the tests, so that it ends as a studio's process does: without a word to anybody.
"""

import asyncio
import sys
from datetime import UTC, datetime

from pydantic import BaseModel

from infra.credentials import Credentials, CredentialsInMemory
from infra.registries.publications import carry_out
from infra.registries.sending import Sender
from infra.settings import Settings
from peft_studio.adapters import Adapter


class Publishing(BaseModel):
    """Whose adapter is to be published, and with which credentials."""

    data_dir: str
    platform_urls: dict[str, str]
    adapter: Adapter
    platform: str
    values: dict[str, str]

    @property
    def settings(self) -> Settings:
        """The studio's settings."""
        return Settings.model_validate({"data_dir": self.data_dir, "platform_urls": self.platform_urls})

    async def credentials(self) -> CredentialsInMemory:
        """The credentials, as they are kept."""
        kept = CredentialsInMemory()
        fields = {"platform": self.platform, "verified_at": datetime.now(UTC), "values": self.values}
        await kept.put(Credentials.model_validate(fields))
        return kept

    async def publish(self) -> None:
        """Publish it, as the flow and the API do."""
        await carry_out(self.adapter, Sender(await self.credentials(), self.settings), self.settings)


if __name__ == "__main__":
    asyncio.run(Publishing.model_validate_json(sys.stdin.buffer.read()).publish())
