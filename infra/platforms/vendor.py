"""What the studio knows of a platform before anyone connects it."""

from collections.abc import Sequence
from dataclasses import dataclass

from infra.platforms.checks import Trial, Values
from peft_studio.platforms import CredentialField, Feature

API_KEY = CredentialField(name="api_key", description="An API key of the account.")


@dataclass(frozen=True)
class Vendor:
    """One platform; ``url_field`` names the credential that says where it is, for those that users run themselves."""

    name: str
    display_name: str
    features: Sequence[Feature]
    check: Trial | None = None
    url: str | None = None
    fields: Sequence[CredentialField] = (API_KEY,)
    url_field: str | None = None
    supported: Sequence[Feature] = ()
    aliases: Sequence[str] = ()
    docs: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is part of this machine, so that there is nothing to connect."""
        return not self.fields

    def blamed(self, values: Values) -> str:
        """Name the field that a refusal is about: the secret that was given, or what should have been one."""
        secret = [field.name for field in self.fields if field.secret]
        return next((name for name in secret if name in values), next(iter(secret), self.url_field or ""))


def where(name: str, description: str, *, required: bool = False) -> CredentialField:
    """Describe a field that is no secret."""
    return CredentialField(name=name, description=description, required=required, secret=False)


def optional(name: str, description: str, *, secret: bool = True) -> CredentialField:
    """Describe a field that need not be given."""
    return CredentialField(name=name, description=description, required=False, secret=secret)
