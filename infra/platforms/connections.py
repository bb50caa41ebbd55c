"""Which platforms the studio is connected to: connect with a real check, list, check again, disconnect."""

import re
from collections.abc import Collection, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.credentials import Connection, Credentials, CredentialStore
from infra.platforms.checks import Asked, Values
from infra.platforms.vendors import VENDORS, Vendor, likely, vendor_named
from infra.settings import Settings
from peft_studio.errors import (
    Conflict,
    CredentialRefused,
    InsufficientCredits,
    InvalidConfig,
    NotFound,
    PlatformNotConnected,
)
from peft_studio.events import now
from peft_studio.platforms import Platform, PlatformStatus

LONGEST_VALUE = 16_384
_A_NAME = re.compile("[a-z_]{1,32}")
_SEVERAL_LINES = frozenset(("ca_certificate", "private_key", "known_hosts"))


class Guard(Protocol):
    """Who is asked before an account is let go of; each raises ``Conflict``."""

    async def require_free(self, platform: str) -> None:
        """Refuse to have a platform's credentials forgotten, while something needs them."""
        ...

    async def require_same_account(self, platform: str, values: Values) -> None:
        """Refuse credentials with which something that the old ones had could not be reached."""
        ...


class Platforms:
    """All platforms of the table, and how the studio stands with each."""

    def __init__(self, credentials: CredentialStore, settings: Settings, *guards: Guard):
        self._credentials = credentials
        self._settings = settings
        self._guards = guards

    async def list(self) -> list[Platform]:
        """Return every platform the studio knows, connected or not."""
        connections = await self._credentials.connections()
        return [_platform(vendor, connections.get(name)) for name, vendor in VENDORS.items()]

    async def get(self, name: str) -> Platform:
        """Return one platform; raises ``NotFound``."""
        vendor = _known(name)
        return _platform(vendor, (await self._credentials.connections()).get(vendor.name))

    async def connected(self, names: Collection[str]) -> frozenset[str]:
        """Return those of some platforms that credentials are stored of; asks nobody where there are none to ask."""
        return frozenset(await self._credentials.connections() if names else ()) & frozenset(names)

    async def connect(self, name: str, given: Mapping[str, SecretStr]) -> Platform:
        """
        Try credentials at their platform, then store them in the place of those before.

        Whatever goes wrong, credentials that were stored before stay as they were.
        """
        vendor = _known(name)
        values = _checked(vendor, given)
        await self._try(vendor, values)
        for guard in self._guards:
            await guard.require_same_account(vendor.name, values)
        if not vendor.is_here:
            secrets = {field: SecretStr(value) for field, value in values.items()}
            await self._credentials.put(Credentials(platform=vendor.name, verified_at=now(), values=secrets))
        return await self.get(vendor.name)

    async def verify(self, name: str) -> Platform:
        """Try the stored credentials again and return how things stand; raises ``PlatformNotConnected``."""
        vendor = _known(name)
        if vendor.is_here:
            return _platform(vendor, None)
        kept = await self._credentials.get(vendor.name)
        if kept is None:
            raise not_connected(vendor)
        try:
            await self._try(vendor, kept.reveal())
            tried = kept.model_copy(update={"verified_at": now(), "refused": None})
        except (CredentialRefused, InsufficientCredits) as error:
            tried = kept.model_copy(update={"refused": error.message})
        await self._credentials.put(tried)
        return _platform(vendor, tried)

    async def disconnect(self, name: str) -> None:
        """Forget a platform's credentials; raises ``PlatformNotConnected`` where there are none."""
        vendor = _known(name)
        if vendor.is_here:
            raise Conflict(f"{vendor.display_name} is always connected.", platform=vendor.name)
        for guard in self._guards:
            await guard.require_free(vendor.name)
        if not await self._credentials.delete(vendor.name):
            raise not_connected(vendor)

    async def _try(self, vendor: Vendor, values: Values) -> None:
        if vendor.check is not None:
            where = base_url(vendor, self._settings, values)
            await vendor.check.run(Asked(vendor.name, vendor.display_name, where, vendor.blamed(values)), values)


def base_url(vendor: Vendor, settings: Settings, values: Values | None = None) -> str:
    """Return where a platform is: as its credentials say, as the operator says, or where it usually is."""
    given = (values or {}).get(vendor.url_field) if vendor.url_field else None
    return (given or settings.platform_urls.get(vendor.name) or vendor.url or "").rstrip("/")


def not_connected(vendor: Vendor, field: str | None = None) -> PlatformNotConnected:
    """Return the error that says what to do first."""
    details = {"field": field} if field else {}
    instead = f", or change {field}" if field else ""
    return PlatformNotConnected(
        f"The platform {vendor.name!r} is not connected; connect it first (POST /platforms/{vendor.name}/connect)"
        f"{instead}.",
        platform=vendor.name,
        **details,
    )


def _known(name: str) -> Vendor:
    if (vendor := vendor_named(name)) is None:
        raise NotFound(
            f"There is no platform {name[:64]!r}{likely(name)}; GET /platforms lists all.",
            field="platform",
            platform=name[:64],
        )
    return vendor


def _platform(vendor: Vendor, connection: Connection | None) -> Platform:
    status = PlatformStatus.CONNECTED if connection or vendor.is_here else PlatformStatus.DISCONNECTED
    refused = connection.refused if connection else None
    return Platform(
        name=vendor.name,
        display_name=vendor.display_name,
        status=PlatformStatus.ERROR if refused else status,
        features=vendor.features,
        supported_features=vendor.supported,
        last_verified=connection.verified_at if connection else None,
        error=refused,
        credentials=vendor.fields,
        docs=vendor.docs,
    )


def _checked(vendor: Vendor, given: Mapping[str, SecretStr]) -> dict[str, str]:
    """Return the values in clear, blanks around them gone; raises ``InvalidConfig``, which shows none of them."""
    known = {field.name: field for field in vendor.fields}
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    if unknown := next((name for name in given if name not in known), None):
        shown = unknown if _A_NAME.fullmatch(unknown) else "…"  # it may be a key in the place of its name
        raise _invalid(shown, f"{vendor.display_name} has no such credential; {takes}")
    values = {name: value.get_secret_value().strip() for name, value in given.items()}
    if missing := next((name for name, field in known.items() if field.required and not values.get(name)), None):
        raise _invalid(missing, f"Required; {known[missing].description}")
    values = {name: value for name, value in values.items() if value}
    for name, value in values.items():
        if len(value) > LONGEST_VALUE:
            raise _invalid(name, f"Must have at most {LONGEST_VALUE} characters")
        lines = value.splitlines() if name in _SEVERAL_LINES else [value]
        if not all(line.isascii() and line.isprintable() for line in lines):
            raise _invalid(name, "Must be printable ASCII characters")
        if name == vendor.url_field and (issue := _not_an_address(value)):
            raise _invalid(name, issue)
        if name == "hourly_rate" and not _is_money(value):
            raise _invalid(name, "Must be US dollars, such as 1.20")
    return values


def _is_money(value: str) -> bool:
    whole, _, cents = value.partition(".")
    return (whole + (cents or "0")).isdigit() and len(value) < 12


def _not_an_address(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
        parts = urlsplit("")
    if wrong or parts.query or parts.fragment or " " in value:
        return "Must be an address such as https://host:port"
    return "Must not hold a user or password; there are fields for them" if "@" in parts.netloc else None


def _invalid(name: str, issue: str) -> InvalidConfig:
    return InvalidConfig.of(f"credentials.{name}", issue)
