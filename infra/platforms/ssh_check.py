"""How credentials for machines of one's own are tried: by logging in to each, and asking if it can train."""

import asyncio

from infra import ssh
from infra.platforms.checks import Asked, Values
from infra.providers.ssh import Facts
from infra.ssh import Login
from peft_studio.errors import InvalidConfig


class SshCheck:
    """A login to every host, and a look around."""

    async def run(self, platform: Asked, values: Values) -> None:
        """Raise ``CredentialRefused`` or ``InvalidConfig`` by field, or that a host cannot be reached."""
        await asyncio.gather(*(_check(login, values.get("python", "python3")) for login in ssh.logins(values)))


async def _check(login: Login, python: str) -> None:
    if missing := (await Facts.of(login, python)).missing:
        raise InvalidConfig.of("credentials.python", f"{login.address} cannot train: {missing}")
