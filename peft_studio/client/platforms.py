"""Platforms, the base models they have, and the machines they rent out."""

from peft_studio.answers import (
    ModelSearch,
    PlatformConnected,
    PlatformDisconnected,
    PlatformList,
    ResourceList,
    ResourcePricing,
)
from peft_studio.catalog import ModelDetails
from peft_studio.client.calls import Call, model, operation, path
from peft_studio.config import ModelSource
from peft_studio.platforms import Platform

_CHECKING_SECONDS = 60.0  # another service is asked


class PlatformOperations:
    """Connect platforms, search models, look at machines."""

    @operation
    def list_platforms(self) -> Call[PlatformList]:
        """Return the platforms that the studio knows, and which are connected."""
        return Call("GET", "/platforms", model(PlatformList))

    @operation
    def get_platform(self, name: str) -> Call[Platform]:
        """Return a platform: whether it is connected, and which credentials connecting takes."""
        return Call("GET", path("platforms", name), model(Platform))

    @operation
    def connect_platform(self, name: str, credentials: dict[str, str]) -> Call[PlatformConnected]:
        """Have the studio check credentials with the platform, and keep them encrypted if they are good."""
        body, where = {"credentials": credentials}, path("platforms", name, "connect")
        return Call("POST", where, model(PlatformConnected), json=body, seconds=_CHECKING_SECONDS)

    @operation
    def verify_platform(self, name: str) -> Call[Platform]:
        """Have the studio try a platform's stored credentials again."""
        return Call("POST", path("platforms", name, "verify"), model(Platform), seconds=_CHECKING_SECONDS)

    @operation
    def disconnect_platform(self, name: str) -> Call[PlatformDisconnected]:
        """Have the studio forget a platform's credentials."""
        return Call("DELETE", path("platforms", name), model(PlatformDisconnected))

    @operation
    def search_models(
        self,
        query: str = "",
        *,
        source: ModelSource | str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Call[ModelSearch]:
        """Search base models, on all sources or on one."""
        parameters = {"q": query, "source": source, "limit": limit, "cursor": cursor}
        return Call("GET", "/models/search", model(ModelSearch), parameters, seconds=_CHECKING_SECONDS)

    @operation
    def get_model(self, source: ModelSource | str, model_id: str, *, revision: str | None = None) -> Call[ModelDetails]:
        """Return what is known of a base model, and what it takes to train on it."""
        where = path("models", source, *model_id.split("/"))
        return Call("GET", where, model(ModelDetails), {"revision": revision}, seconds=_CHECKING_SECONDS)

    @operation
    def list_resources(self, *, provider: str | None = None, available: bool | None = None) -> Call[ResourceList]:
        """Return the machines that jobs can train on."""
        return Call("GET", "/resources", model(ResourceList), {"provider": provider, "available": available})

    @operation
    def get_pricing(self, provider: str, resource_id: str) -> Call[ResourcePricing]:
        """Return what a machine costs, and how long one waits for it."""
        return Call("GET", path("resources", provider, resource_id, "pricing"), model(ResourcePricing))
