"""Whether adapters can be published where a user wants them; the same answer for jobs and for adapters that exist."""

from collections.abc import Collection, Sequence

from infra.platforms import usable
from peft_studio.errors import InvalidConfig
from peft_studio.platforms import Feature
from peft_studio.registries import Registry


def check_registries(registries: Sequence[Registry], connected: Collection[str]) -> None:
    """Raise ``InvalidConfig`` or ``PlatformNotConnected``; ``connected`` are those of their platforms that are."""
    places = [registry.place for registry in registries]
    for number, registry in enumerate(registries):
        field = f"registries.{number}"
        if registry.place in places[:number]:
            issue = f"{registry.place} is named twice; leave one of them out"
            raise InvalidConfig.of(field, issue)
    for number, registry in enumerate(registries):
        usable.check(registry.platform, Feature.REGISTRY, connected, f"registries.{number}")
