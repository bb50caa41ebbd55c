"""How credentials of S3 are tried: by a signed request for the account's buckets, whether or not it may see them."""

import asyncio

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.platforms.checks import Asked, Values
from peft_studio.errors import CredentialRefused, ResourceUnavailable

_TIMES = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 2, "mode": "standard"})
_REGION = "us-east-1"  # for signing, where none is given


class S3Check:
    """A request that the service answers by the signature."""

    async def run(self, platform: Asked, values: Values) -> None:
        """Raise ``CredentialRefused``, or that the service cannot be reached."""
        await asyncio.to_thread(_check, platform, values)


def _check(platform: Asked, values: Values) -> None:
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=values.get("region", _REGION),
        endpoint_url=values.get("endpoint_url"),
        aws_access_key_id=values["access_key_id"],
        aws_secret_access_key=values["secret_access_key"],
        aws_session_token=values.get("session_token"),
        config=_TIMES,
    )
    try:
        client.list_buckets()
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "AccessDenied":
            return  # the signature is good; such a key may do less, and enough
        if status >= 500 or status == 429:
            raise ResourceUnavailable(f"S3 answered {status}; try again later.", platform=platform.name) from None
        raise CredentialRefused(
            f"S3 refused the credentials ({code}): they are mistyped, expired, or of another service.",
            platform=platform.name,
            field="credentials.secret_access_key" if code == "SignatureDoesNotMatch" else "credentials.access_key_id",
        ) from None
    except BotoCoreError as error:
        raise ResourceUnavailable(
            f"S3 cannot be reached ({type(error).__name__}); try again later, or check endpoint_url and region.",
            platform=platform.name,
        ) from None
