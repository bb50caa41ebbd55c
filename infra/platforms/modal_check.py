"""How a token of Modal is tried: by listing the workspace's apps, through Modal's own library."""

from infra.hosts.modal_apps import ModalApps
from infra.platforms.checks import Asked, Values
from infra.providers.base import Account
from peft_studio.errors import RateLimitExceeded, ResourceUnavailable

_SECONDS = 10.0  # whoever connects it waits for that


class ModalCheck:
    """A list that only a valid token gets."""

    async def run(self, platform: Asked, values: Values) -> None:
        """Raise ``CredentialRefused``, that Modal cannot be reached, or that its library is not installed."""
        try:
            await ModalApps(Account(platform.url, values), patience=0.0, seconds=_SECONDS).names()
        except RateLimitExceeded as error:  # it is not the studio that is asked too often
            raise ResourceUnavailable(
                f"{platform.display_name} could not check the credentials: it is asked too often at the moment; try "
                "again later.",
                platform=platform.name,
                retry_after_seconds=error.details["retry_after_seconds"],
            ) from None
