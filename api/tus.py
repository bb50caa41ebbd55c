"""The tus protocol, version 1.0.0 (https://tus.io): what its requests and answers have in common."""

import base64
import binascii
from datetime import UTC, datetime
from email.utils import format_datetime

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import PreconditionFailed, send_error
from peft_studio.errors import InvalidConfig

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination"
PIECE = "application/offset+octet-stream"
LONGEST_METADATA = 64 << 10


class TusVersion(ASGIMiddleware):
    """Refuses other versions of the protocol, and says in every answer which one is spoken here."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Look at the version."""

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                headers["Tus-Resumable"] = VERSION
                if message["status"] == 412:
                    headers["Tus-Version"] = VERSION
            await send(message)

        asked = Headers.from_scope(scope).get("tus-resumable")
        if asked == VERSION or scope["method"] == "OPTIONS":  # pyright: ignore[reportGeneralTypeIssues]
            await next_app(scope, receive, send_with_version)
        else:
            error = PreconditionFailed(f"This API speaks version {VERSION} of tus: say so in Tus-Resumable.")
            await send_error(error, scope, receive, send_with_version)


def metadata_of(header: str) -> dict[str, str]:
    """Read ``Upload-Metadata``: names, each with a value in Base64 where it has one."""
    values: dict[str, str] = {}
    for pair in filter(None, (pair.strip() for pair in header.split(","))):
        name, _, encoded = pair.partition(" ")
        try:
            values[name] = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidConfig(
                "Upload-Metadata cannot be read.",
                field="Upload-Metadata",
                issue="Must be names, each with a UTF-8 value in Base64 behind a space, separated by commas",
            ) from None
    return values


def http_date(time: datetime) -> str:
    """Write a time as HTTP's headers do."""
    return format_datetime(time.astimezone(UTC), usegmt=True)
