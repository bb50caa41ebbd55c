"""Whether this version can train on, report to or deploy on what a user names; the same answer for plans and lists."""

from collections.abc import Collection

from infra.platforms.connections import not_connected
from infra.platforms.vendors import likely, names, vendor_named
from peft_studio.errors import ResourceUnavailable
from peft_studio.platforms import Feature

_KINDS = {
    Feature.TRAINING: "provider",
    Feature.EXPERIMENTS: "experiment tracker",
    Feature.INFERENCE: "platform to deploy on",
    Feature.REGISTRY: "registry",
}
_CANNOT = {
    Feature.TRAINING: "rent machines there",
    Feature.EXPERIMENTS: "report to it or read from it",
    Feature.INFERENCE: "deploy there",
    Feature.REGISTRY: "publish adapters there",
}


def outside(*given: str | None) -> frozenset[str]:
    """Return the platforms, other than this machine, that are among the names given, by their own names."""
    vendors = (vendor_named(name) for name in given if name)
    return frozenset(vendor.name for vendor in vendors if vendor and not vendor.is_here)


def unknown(name: str, feature: Feature) -> str | None:
    """Say what is wrong with a name that is none of a platform with this feature."""
    vendor = vendor_named(name)
    if vendor and feature in vendor.features:
        return None
    return f"there is no {_KINDS[feature]} {name[:64]!r}{likely(name)}; use one of {', '.join(names(feature))}"


def check(name: str, feature: Feature, connected: Collection[str], field: str) -> None:
    """
    Raise ``PlatformNotConnected`` for a known platform that is not, ``ResourceUnavailable`` for one of no use yet.

    ``connected`` are those of ``outside(name)`` that are connected.
    """
    vendor = vendor_named(name)
    if vendor is None or vendor.is_here:
        return
    if vendor.name not in connected:
        raise not_connected(vendor, field)
    if feature not in vendor.supported:
        raise ResourceUnavailable(
            f"{vendor.display_name} is connected, but this version cannot {_CANNOT[feature]} yet; "
            f"change {field}: 'local' does all of that.",
            platform=vendor.name,
            field=field,
        )
