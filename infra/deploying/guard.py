"""An account is not let go of while something is deployed with it: nobody could take it off, and it may cost money."""

from collections.abc import Mapping, Sequence

from infra.deploying.hosting import Hosting, account_of
from infra.hosts.table import HOSTS
from infra.serving.records import Deployment, Deployments, Unreadable
from infra.settings import Settings
from peft_studio.errors import Conflict


class DeploymentGuard:
    """Knows what is deployed where; consulted before credentials are forgotten or replaced."""

    def __init__(self, records: Deployments, hosting: Hosting, settings: Settings):
        self._records = records
        self._hosting = hosting
        self._settings = settings

    async def require_free(self, platform: str) -> None:
        """Raise ``Conflict`` where something is served on a platform, or is to be, or was and may be there still."""
        if served := await self._served(platform):
            names = ", ".join(one.deployment_id for one in served[:3])
            raise Conflict(
                f"Adapters are deployed at {platform} ({names}): delete those deployments first, or nobody could take "
                "them off. Where the platform does not take the key any more, an admin can have them forgotten: see to "
                "them there, then DELETE /deployments/{deployment_id}?force=true.",
                platform=platform,
                deployments=[one.deployment_id for one in served],
            )

    async def require_same_account(self, platform: str, values: Mapping[str, str]) -> None:
        """Raise ``Conflict`` where new credentials do not show what is deployed and paid for with the old ones."""
        if not (served := await self._served(platform)):
            return
        host = HOSTS[platform](account_of(platform, self._settings, values))
        shown = set(await host.names()) if host.limits.bills else None
        if shown is not None and (hidden := [one for one in served if self._hosting.name(one) not in shown]):
            names = ", ".join(one.deployment_id for one in hidden[:3])
            raise Conflict(
                f"These credentials do not show {names}, deployed with the ones before: are they of another account? "
                "Delete those deployments, then connect again.",
                platform=platform,
            )

    async def _served(self, platform: str) -> Sequence[Deployment | Unreadable]:
        if platform not in HOSTS:
            return ()
        at_work = [one for one in await self._records.all() if one.is_wanted or one.hosted is not None]
        return [one for one in (*at_work, *await self._records.unreadable()) if one.platform == platform]
