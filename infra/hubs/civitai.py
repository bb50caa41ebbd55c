"""Models of Civitai: to look at, not to train on, since they are for images."""

import re
from html import unescape
from typing import Any, cast

from infra.credentials import CredentialStore
from infra.hubs.access import values_of
from infra.hubs.base import gigabytes, no_model, unavailable
from infra.platforms.connections import base_url
from infra.platforms.vendors import VENDORS
from infra.settings import Settings
from infra.vendor_http import Answer, Call, ask
from peft_studio.base_models import UNTRAINABLE
from peft_studio.catalog import FoundModel, ModelDetails
from peft_studio.config import ModelSource

Json = dict[str, Any]
_MOST = 100  # the most that one request gives; text search knows no pages


class CivitaiModels:
    """Civitai's public API; a connected account's key shows what it alone may see."""

    def __init__(self, credentials: CredentialStore, settings: Settings):
        self._credentials = credentials
        self._settings = settings

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        """Return models that Civitai finds for a query."""
        parameters = {"query": query, "limit": str(min(limit, _MOST)), "sort": "Most Downloaded"}
        found = _object(await self._ask("/models", parameters)).get("items")
        items = [cast(Json, item) for item in cast(list[Any], found or []) if isinstance(item, dict)]
        return [_found(item) for item in items][:limit]

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one model by its number; raises ``NotFound``."""
        if not (model_id.isascii() and model_id.isdigit()) or len(model_id) > 18 or revision is not None:
            raise no_model(ModelSource.CIVITAI, model_id, "; its ids are numbers, without revisions")
        answer = await self._ask(f"/models/{model_id}")
        if answer.status == 404:
            raise no_model(ModelSource.CIVITAI, model_id)
        item = _object(answer)
        text = unescape(re.sub(r"<[^>]*>", " ", str(item.get("description") or "")))
        return ModelDetails(
            **_found(item).model_dump(),
            description=" ".join(text.split())[:2000] or None,
            architecture=_version(item).get("baseModel"),
            not_trainable=UNTRAINABLE[ModelSource.CIVITAI],
        )

    async def _ask(self, path: str, parameters: dict[str, str] | None = None) -> Answer:
        values = await values_of("civitai", self._credentials)
        key = values.get("api_key")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = base_url(VENDORS["civitai"], self._settings, values)
        return await ask(Call(url + path, params=parameters or {}, headers=headers))


def _object(answer: Answer) -> Json:
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise unavailable(ModelSource.CIVITAI, answer.status, answer.retry_after)
    return cast(Json, answer.body)


def _version(item: Json) -> Json:
    return next((cast(Json, one) for one in item.get("modelVersions") or [] if isinstance(one, dict)), {})


def _found(item: Json) -> FoundModel:
    version = _version(item)
    files = [cast(Json, file) for file in version.get("files") or [] if isinstance(file, dict)]
    size = next((file.get("sizeKB") for file in sorted(files, key=lambda file: not file.get("primary"))), None)
    known = (item.get("type"), version.get("baseModel"), *(item.get("tags") or []))
    return FoundModel(
        id=str(item.get("id")),
        name=str(item.get("name")),
        source=ModelSource.CIVITAI,
        size_gb=gigabytes(size * 1024) if isinstance(size, int | float) else None,
        downloads=cast(Json, item.get("stats") or {}).get("downloadCount"),
        tags=[str(tag) for tag in known if tag],
        gated=False,
    )
