"""Models of an Ollama daemon: to look at, not to train on, since they are quantized GGUF files."""

from typing import Any, cast

from infra.credentials import CredentialStore
from infra.hubs.access import address_of
from infra.hubs.base import gigabytes, no_model, unavailable
from infra.settings import Settings
from infra.vendor_http import Answer, Call, ask
from peft_studio.base_models import UNTRAINABLE
from peft_studio.catalog import FoundModel, ModelDetails
from peft_studio.config import ModelSource

Json = dict[str, Any]
_BARE = "{{ .Prompt }}"


class OllamaModels:
    """What the daemon has pulled: it offers no search of Ollama's own library."""

    def __init__(self, credentials: CredentialStore, settings: Settings):
        self._credentials = credentials
        self._settings = settings

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        """Return the daemon's models whose names have all the query's words."""
        listed = _object(await self._ask("/api/tags"))
        words = query.lower().split()
        models = [cast(Json, item) for item in listed.get("models") or [] if isinstance(item, dict)]
        named = [(str(item.get("model") or item.get("name") or ""), item) for item in models]
        return [_found(name, item) for name, item in named if name and all(w in name.lower() for w in words)][:limit]

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one of the daemon's models; raises ``NotFound``."""
        answer = await self._ask("/api/show", {"model": model_id})
        if answer.status == 404 or revision is not None:
            raise no_model(ModelSource.OLLAMA, model_id, "; pull it with `ollama pull`, and leave revision out")
        shown, listed = _object(answer), await self.search(model_id, 1000)
        info = cast(Json, shown.get("model_info") or {})
        family = info.get("general.architecture")
        model = next((one for one in listed if one.id == model_id), _found(model_id, {}))
        return ModelDetails(
            **model.model_dump(exclude={"license"}),
            license=(str(shown.get("license") or "").strip().splitlines() or [None])[0],
            architecture=family,
            parameters=info.get("general.parameter_count"),
            context_length=info.get(f"{family}.context_length"),
            # Without a template of its own a model gets the bare prompt.
            has_chat_template=str(shown.get("template") or _BARE).strip() != _BARE,
            not_trainable=UNTRAINABLE[ModelSource.OLLAMA],
        )

    async def _ask(self, path: str, body: Json | None = None) -> Answer:
        url = await address_of("ollama", self._credentials, self._settings)
        return await ask(Call(url + path, method="POST" if body else "GET", body=body))


def _object(answer: Answer) -> Json:
    if answer.status != 200 or not isinstance(answer.body, dict):
        raise unavailable(ModelSource.OLLAMA, answer.status, answer.retry_after)
    return cast(Json, answer.body)


def _found(name: str, item: Json) -> FoundModel:
    details = cast(Json, item.get("details") or {})
    known = (details.get("family"), details.get("parameter_size"), details.get("quantization_level"))
    size = item.get("size")
    return FoundModel(
        id=name,
        name=name,
        source=ModelSource.OLLAMA,
        size_gb=gigabytes(size) if isinstance(size, int) else None,
        tags=[str(tag) for tag in known if tag],
        gated=False,
    )
