"""How a token of Modal is tried: by listing the workspace's apps, through Modal's own library."""

from infra.hosts.modal_apps import ModalApps
from infra.platforms.checks import Asked, Values
from infra.providers.base import Account


class ModalCheck:
    """A list that only a valid token gets."""

    async def run(self, platform: Asked, values: Values) -> None:
        """Raise ``CredentialRefused``, that Modal cannot be reached, or that its library is not installed."""
        await ModalApps(Account("", values)).names()
