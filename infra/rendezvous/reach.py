"""Whether rented machines can come back to the studio: one on a laptop's own address is out of their reach."""

import ipaddress
from urllib.parse import urlsplit

from infra.settings import Settings
from peft_studio.errors import ResourceUnavailable


def require_reachable(display_name: str, addresses: str, settings: Settings) -> None:
    """
    Raise ``ResourceUnavailable`` where machines elsewhere would be told to call back to this machine's own address.

    ``addresses`` are the vendor's: a URL, or hosts with commas between them. Vendors on this machine are simulated.
    """
    if settings.bucket or not _is_of_this_machine(urlsplit(settings.address_for_machines).hostname or ""):
        return
    hosts = [urlsplit(one if "://" in one else f"//{one}").hostname or "" for one in addresses.split(",")]
    if all(map(_is_of_this_machine, hosts)):
        return
    raise ResourceUnavailable(
        f"Machines of {display_name} cannot reach the studio at {settings.address_for_machines}: set "
        "PEFT_STUDIO_PUBLIC_URL to an address where they can, or PEFT_STUDIO_BUCKET to a bucket, then start it again.",
        field="provider",
    )


def _is_of_this_machine(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
