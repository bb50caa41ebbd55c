"""Models of the Hugging Face Hub, by huggingface_hub's own sessions, errors and words."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any, cast

import httpx2
from huggingface_hub import ModelInfo, get_async_session, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers
from pydantic import SecretStr

from infra.credentials import CredentialStore
from infra.hubs.access import values_of
from infra.hubs.base import gigabytes, no_model, trainable, unavailable
from infra.settings import Settings
from peft_studio.base_models import Hub, inspect_on_hub, is_hub_id
from peft_studio.catalog import FoundModel, ModelDetails
from peft_studio.config import ModelSource
from peft_studio.errors import InvalidConfig, ResourceUnavailable

_SHOWN = ("downloads", "tags", "gated", "safetensors", "pipeline_tag", "library_name")
_SECONDS = 10.0
_READING_SECONDS = 60.0
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}  # of all others: one


class HuggingFaceModels:
    """
    The Hub, or one that speaks like it; a connected account's token shows what it alone may see.

    Not by ``HfApi.list_models``: that has no time-out, and sleeps in its thread for as long as a 429 asks.
    """

    def __init__(self, credentials: CredentialStore, settings: Settings):
        self._credentials = credentials
        self._settings = settings

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        """Return models whose names match, the most downloaded first."""
        hub = await self._hub()
        wanted: dict[str, Any] = {"search": query, "limit": limit, "sort": "downloads", "expand": list(_SHOWN)}
        address: str | None = f"{hub.url}/api/models"
        found: list[FoundModel] = []
        while address is not None and len(found) < limit:
            response = await _get(hub, address, wanted)
            found += [_found(ModelInfo(**item)) for item in _objects(response)]
            # The next page's address holds the whole query; a token goes to the hub alone.
            following = response.links.get("next", {}).get("url")
            address, wanted = (following if following and following.startswith(f"{hub.url}/") else None), {}
        return found[:limit]

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one model; raises ``NotFound``. One whose conditions were not accepted is shown as gated."""
        if not is_hub_id(model_id) or (revision is not None and not is_hub_id(revision)):
            raise no_model(ModelSource.HUGGINGFACE, model_id, "; its ids are NAME or OWNER/NAME")
        hub = await self._hub()
        info = await _info(hub, model_id, revision)
        model = _found(info)
        try:
            async with asyncio.timeout(_READING_SECONDS):
                facts = await asyncio.to_thread(inspect_on_hub, model_id, info.sha, hub)
        except InvalidConfig as error:
            return ModelDetails(
                **model.model_dump(),
                revision=info.sha,
                architecture=next(iter((info.config or {}).get("architectures") or []), None),
                parameters=info.safetensors.total if info.safetensors else None,
                not_trainable=error.details["issue"],
            )
        except TimeoutError:
            raise ResourceUnavailable(f"{hub.url} is too slow; try again later.") from None
        return trainable(model, facts)

    async def _hub(self) -> Hub:
        values = await values_of("huggingface", self._credentials)
        key = values.get("api_key")
        endpoint = self._settings.platform_urls.get("huggingface") or os.environ.get("HF_ENDPOINT")
        return Hub(
            endpoint=endpoint,
            cache_dir=str(self._settings.hub_files),
            timeout_seconds=_SECONDS,
            token=SecretStr(key) if key else None,
        )


async def _info(hub: Hub, model_id: str, revision: str | None) -> ModelInfo:
    address = f"{hub.url}/api/models/{model_id}" + (f"/revision/{revision}" if revision else "")
    try:
        return ModelInfo(**_object(await _get(hub, address, {})))
    except RepositoryNotFoundError:
        raise no_model(ModelSource.HUGGINGFACE, model_id, "; private ones need the platform to be connected") from None
    except RevisionNotFoundError:
        raise no_model(ModelSource.HUGGINGFACE, model_id, f" of revision {revision!r}") from None


async def _get(hub: Hub, address: str, parameters: Mapping[str, Any]) -> httpx2.Response:
    headers = build_hf_headers(token=hub.key)
    try:
        # In a thread: reading the authorities that it trusts would hold up all other sources.
        async with await asyncio.to_thread(get_async_session) as session:
            response = await session.get(address, params=dict(parameters) or None, headers=headers, timeout=_SECONDS)
        hf_raise_for_status(response)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except HfHubHTTPError as error:
        waited = error.response.headers.get("Retry-After", "")
        wait = int(waited) if waited.isascii() and waited.isdigit() else None
        raise unavailable(ModelSource.HUGGINGFACE, error.response.status_code, wait) from None
    except (httpx2.HTTPError, OSError) as error:
        raise ResourceUnavailable(f"{hub.url} cannot be reached ({type(error).__name__}); try again later.") from None
    return response


def _objects(response: httpx2.Response) -> list[dict[str, Any]]:
    items = _json(response)
    return [cast(dict[str, Any], item) for item in cast(list[Any], items) if isinstance(item, dict) and "id" in item]


def _object(response: httpx2.Response) -> dict[str, Any]:
    item = _json(response)
    if not isinstance(item, dict) or "id" not in item:
        raise ResourceUnavailable(f"What answers at {response.url.host} is no model hub.")
    return cast(dict[str, Any], item)


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ResourceUnavailable(f"What answers at {response.url.host} is no model hub.") from None


def _found(info: ModelInfo) -> FoundModel:
    tags = info.tags or []
    weights = info.safetensors.parameters if info.safetensors else {}
    size = sum(count * _BYTES.get(kind, 1) for kind, count in weights.items())
    return FoundModel(
        id=info.id,
        name=info.id.rpartition("/")[2],
        source=ModelSource.HUGGINGFACE,
        size_gb=gigabytes(size) if size else None,
        license=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None),
        downloads=info.downloads,
        tags=[tag for tag in tags if not tag.startswith("license:")],
        gated=bool(info.gated),
    )
