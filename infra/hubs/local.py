"""Models in folders of this machine, in the Hugging Face layout."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from infra.hubs.base import gigabytes, no_model, trainable
from infra.settings import Settings
from peft_studio.catalog import FoundModel, ModelDetails
from peft_studio.config import ModelSource
from peft_studio.errors import InvalidConfig
from peft_studio.model_files import folder_facts, require_writer

DEMO = Path(__file__).parents[2] / "demo"


class LocalModels:
    """Folders ``NAME`` or ``OWNER/NAME`` below the places that hold models."""

    def __init__(self, settings: Settings):
        self._settings = settings

    async def search(self, query: str, limit: int) -> list[FoundModel]:
        """Return models whose names have all the query's words, by name."""
        return await asyncio.to_thread(self._search, query.lower().split(), limit)

    async def details(self, model_id: str, revision: str | None) -> ModelDetails:
        """Look at one model's folder; raises ``NotFound``."""
        return await asyncio.to_thread(self._details, model_id, revision)

    def _search(self, words: list[str], limit: int) -> list[FoundModel]:
        found = {name: folder for name, folder in _all(self._settings) if all(word in name.lower() for word in words)}
        return [_found(name, found[name]) for name in sorted(found)[:limit]]

    def _details(self, model_id: str, revision: str | None) -> ModelDetails:
        if (folder := find(model_id, self._settings)) is None:
            raise no_model(ModelSource.LOCAL, model_id, " in its folders; search lists what there is")
        model = _found(model_id, folder)
        try:
            facts = require_writer(folder_facts(model_id, folder))
        except InvalidConfig as error:
            return ModelDetails(**model.model_dump(), not_trainable=error.details["issue"])
        except OSError as error:
            return ModelDetails(**model.model_dump(), not_trainable=f"its files cannot be read: {error.strerror}")
        if revision not in (None, facts.revision):
            raise no_model(ModelSource.LOCAL, model_id, f" of revision {revision!r}; its files are {facts.revision}")
        return trainable(model, facts)


def find(model_id: str, settings: Settings) -> Path | None:
    """Return the folder of a model by its id; none outside of the places that hold models."""
    parts = model_id.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        return None
    for prefix, place in _places(settings):
        inner = parts[1:] if prefix and parts[0] == prefix else [] if prefix else parts
        folder = place.joinpath(*inner)
        try:
            if 1 <= len(inner) <= 2 and (folder / "config.json").is_file():
                return folder
        except OSError:  # a name that is too long, or a folder that may not be entered
            continue
    return None


def _places(settings: Settings) -> list[tuple[str, Path]]:
    """Where models are looked for, each with what its models' ids begin with."""
    return [("", settings.data_dir / "models"), *(("", folder) for folder in settings.model_dirs), ("demo", DEMO)]


def _all(settings: Settings) -> Iterator[tuple[str, Path]]:
    for prefix, place in _places(settings):
        for config in sorted((*place.glob("*/config.json"), *place.glob("*/*/config.json"))):
            name = config.parent.relative_to(place).as_posix()
            yield f"{prefix}/{name}" if prefix else name, config.parent


def _found(name: str, folder: Path) -> FoundModel:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return FoundModel(
        id=name,
        name=name.rpartition("/")[2],
        source=ModelSource.LOCAL,
        size_gb=gigabytes(size) if size else None,
        tags=["local"],
        gated=False,
    )
