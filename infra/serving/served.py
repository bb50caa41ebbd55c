"""The models that an endpoint answers for: its base model, and every adapter loaded on it."""

import asyncio
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.serving.adapter_files import read_adapter
from infra.serving.engine import Engine
from infra.serving.lora import AdaptedLayers, Slot
from infra.serving.model import BaseModel
from peft_studio.errors import InvalidConfig, NotFound, ResourceUnavailable
from peft_studio.plan import RowFormat
from peft_studio.trainer.render import Renderer


@dataclass(frozen=True)
class Served:
    """A model by the name that requests call it."""

    name: str
    root: str
    parent: str | None
    slot: Slot | None
    chat_template: str | None
    end_tokens: frozenset[int]
    created: int = field(default_factory=lambda: int(time.time()))


class Models:
    """What is served; adapters come and go while requests are answered."""

    def __init__(self, base: BaseModel, layers: AdaptedLayers, engine: Engine):
        self.base = base
        self._layers = layers
        self._engine = engine
        source, template = base.name.source, base.tokenizer.chat_template
        self._served = {source: Served(source, source, None, None, template, self._end_tokens(template))}
        self._changing = asyncio.Lock()

    def all(self) -> list[Served]:
        """Return all models, the base model first."""
        return list(self._served.values())

    def get(self, name: str) -> Served:
        """Return one model; raises ``NotFound``."""
        try:
            return self._served[name]
        except KeyError:
            raise NotFound(f"The model {name!r} does not exist.", field="model") from None

    async def load(self, name: str, path: str) -> None:
        """Load an adapter; the same once more does nothing, another one by a name that is taken is refused."""
        async with self._changing:
            if known := self._served.get(name):
                if known.root == path and known.parent:
                    return
                raise InvalidConfig(
                    f"The name {name!r} is taken by {known.root!r}; unload it first.", field="lora_name"
                )
            adapter = await asyncio.to_thread(read_adapter, Path(path), self.base.model, self.base.name)
            template = adapter.chat_template or self.base.tokenizer.chat_template
            ends = await asyncio.to_thread(self._end_tokens, template)
            slot = await asyncio.wrap_future(self._engine.call(lambda: self._layers.attach(adapter.weights)))
            self._served[name] = Served(name, path, self.base.name.source, slot, template, ends)

    async def unload(self, name: str) -> None:
        """Unload an adapter; requests that it is answering end with an error."""
        async with self._changing:
            known = self._served.get(name)
            if known is None or known.slot is None:
                raise NotFound(f"The lora adapter {name!r} cannot be found.", field="lora_name")
            slot = known.slot
            del self._served[name]

            def take_off() -> None:
                error = ResourceUnavailable(f"The model {name!r} was unloaded while it answered.")
                self._engine.scheduler.fail(error, lambda generation: generation.slot is slot)
                self._layers.detach(slot)

            await asyncio.wrap_future(self._engine.call(take_off))

    def _end_tokens(self, template: str | None) -> frozenset[int]:
        """Every token that ends an answer: the model's own, and the one that ends a turn in the chat template."""
        tokenizer, known = self.base.tokenizer, self.base.model.generation_config.eos_token_id
        tokens: set[Any] = {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])}
        if template:
            tokens.add(_end_of_turn(tokenizer, template))
        return frozenset(token for token in tokens if token is not None)


def _end_of_turn(tokenizer: Any, template: str) -> int | None:
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = template
    try:
        token = Renderer(tokenizer, RowFormat.MESSAGES).end_of_turn()
    except Exception:
        # A template is a program, which may fail in any way at such a conversation: the model's own tokens have to do.
        return None
    return tokenizer.convert_tokens_to_ids(token) if token else None
