"""How a machine ends itself: what its studio tells it for that, in its environment; nothing of it is secret."""

import os
import string
from collections.abc import Mapping
from contextlib import suppress

import httpx
from pydantic import BaseModel, Field

from peft_studio.remote.courier import TIMEOUT

URL_VARIABLE, KEY_VARIABLE = "PEFT_STUDIO_RELEASE_URL", "PEFT_STUDIO_RELEASE_KEY"


class SelfRelease(BaseModel):
    """
    DELETE of ``url`` with the key its vendor has put into a variable for that.

    It is in the environment rather than with the work: a machine that has none must know it, too.
    """

    url: str = Field(description="{NAME} stands for the variable in which the vendor tells what the machine is called.")
    key_variable: str = Field(description="The variable's name; the key itself is between the vendor and the machine.")

    @classmethod
    def in_environment(cls) -> "SelfRelease | None":
        """Return what this machine was told; None where it cannot end itself."""
        url, key_variable = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE)
        return cls(url=url, key_variable=key_variable) if url and key_variable else None

    def as_environment(self) -> Mapping[str, str]:
        """Return the variables that tell a machine."""
        return {URL_VARIABLE: self.url, KEY_VARIABLE: self.key_variable}

    @property
    def machine_id(self) -> str:
        """What the vendor calls this machine; empty where it does not tell the machine."""
        names = [name for _, name, _, _ in string.Formatter().parse(self.url) if name]
        return os.environ.get(names[0], "") if names else ""

    def end(self) -> None:
        """Ask the vendor to end this machine; where that fails the studio does it, which it does in any case."""
        if key := os.environ.get(self.key_variable):
            with suppress(httpx.HTTPError, KeyError):
                url = self.url.format_map(os.environ)
                httpx.delete(url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT)
