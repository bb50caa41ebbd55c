"""Asking machines over SSH: with a key, of hosts whose own keys are known, bounded in time, silent about secrets."""

import asyncio
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from peft_studio.errors import CredentialRefused, InvalidConfig, ResourceUnavailable

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection

CONNECT_SECONDS = 10.0
RUN_SECONDS = 20.0
_AGAIN_SECONDS = 0.3
_CLOSE_SECONDS = 2.0


class Interrupted(ResourceUnavailable):
    """The connection was lost while the machine was at it: it may have done all, a part, or nothing."""


class Fields(Protocol):
    """Credentials by their names."""

    def get(self, field: str, default: str, /) -> str:
        """Return one of them."""
        ...


@dataclass(frozen=True)
class Login:
    """A machine, and how to get into it; ``repr`` does not show the key."""

    host: str
    port: int
    user: str
    private_key: str = field(repr=False)
    known_hosts: str = field(repr=False)

    @property
    def address(self) -> str:
        """The machine's name, with its port where that is not the usual one."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == 22 else f"{name}:{self.port}"


def logins(credentials: Fields) -> list[Login]:
    """Return the machines that credentials of the platform ``ssh`` are for; raises ``InvalidConfig`` by field."""
    rest = [credentials.get(name, "") for name in ("user", "private_key", "known_hosts")]
    places = [_place(part) for part in credentials.get("hosts", "").replace(",", " ").split()]
    if not places:
        raise _no_place()
    return [Login(*place, *rest) for place in places]


def _place(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or 22
    except ValueError:
        host, port = None, 22
    if host is None or "@" in text or "/" in text:
        raise _no_place()
    return host, port


def _no_place() -> InvalidConfig:
    return _invalid("hosts", "Must be names or addresses, with :PORT where it is not 22, and commas between them")


async def run(login: Login, script: str, *words: str, seconds: float = RUN_SECONDS) -> str:
    """
    Have a machine's shell run a script, and return what it printed.

    The script travels as the shell's input: lists of processes show the words alone, which become its ``$1`` and so
    on. Raises ``CredentialRefused`` or ``InvalidConfig`` by field, ``ResourceUnavailable`` where the machine cannot be
    reached, so that nothing has run, and ``Interrupted`` where something may have.
    """
    import asyncssh  # a third of a second, which the start of the API does without

    connection = await _connected(login)
    try:
        async with asyncio.timeout(seconds):
            done = await connection.run(shlex.join(("sh", "-s", "--", *words)), input=script, errors="replace")
    except TimeoutError:
        raise Interrupted(f"{login.address} did not answer within {seconds:g} seconds; try again later.") from None
    except (OSError, asyncssh.Error) as error:
        raise Interrupted(f"The connection to {login.address} was lost ({type(error).__name__}).") from None
    finally:
        connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await connection.wait_closed()
    if done.exit_status != 0:
        raise Interrupted(
            f"The shell of {login.address} ended with {done.exit_status or done.exit_signal or 'nothing'}."
        )
    return str(done.stdout)


async def _connected(login: Login) -> "SSHClientConnection":
    """Log in; tried twice where the connection breaks, since servers drop some when many come at once."""
    import asyncssh

    try:
        key = asyncssh.import_private_key(login.private_key + "\n")
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        raise _invalid("private_key", "Must be a private key in the format of OpenSSH, without a passphrase") from None
    try:
        known_hosts = asyncssh.import_known_hosts(login.known_hosts + "\n")
    except ValueError:
        raise _invalid("known_hosts", "Must be lines of a known_hosts file") from None
    for is_last in (False, True):
        try:
            return await asyncssh.connect(
                login.host,
                login.port,
                username=login.user,
                client_keys=[key],
                known_hosts=known_hosts,
                preferred_auth="publickey",
                config=None,
                agent_path=None,
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
                keepalive_interval=CONNECT_SECONDS,
            )
        except asyncssh.PermissionDenied:
            raise CredentialRefused(
                f"{login.address} does not let {login.user!r} in with this key: it was removed there, or never added "
                "to authorized_keys. Add it, or connect with another (POST /platforms/ssh/connect).",
                platform="ssh",
                field="credentials.private_key",
            ) from None
        except asyncssh.HostKeyNotVerifiable:
            raise CredentialRefused(
                f"{login.address} shows another host key than known_hosts has for it, or none is given: it was set up "
                "anew, or something else answers in its place. Compare the keys, then connect again.",
                platform="ssh",
                field="credentials.known_hosts",
            ) from None
        except (OSError, asyncssh.Error) as error:
            if is_last:
                raise ResourceUnavailable(
                    f"{login.address} cannot be reached over SSH ({type(error).__name__}); try again later."
                ) from None
        await asyncio.sleep(_AGAIN_SECONDS)
    raise AssertionError


def _invalid(name: str, issue: str) -> InvalidConfig:
    return InvalidConfig.of(f"credentials.{name}", issue)
