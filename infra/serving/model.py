"""The base model of an endpoint, loaded, and what it can take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from infra.serving.adapter_files import BaseName
from peft_studio.config import Precision
from peft_studio.errors import InvalidConfig
from peft_studio.trainer.model import device, dtype_of

_CACHED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_CACHE_SHARE = 0.4  # of the memory that is free once the model is loaded
_MOST_CACHE_TOKENS = 1 << 20


@dataclass(frozen=True)
class BaseModel:
    """A base model in memory, with its tokenizer; the model takes at most ``context`` tokens."""

    name: BaseName
    model: Any
    tokenizer: Any
    context: int


def load_base(source: str, revision: str | None, precision: Precision = Precision.AUTO) -> BaseModel:
    """Load a folder's or a hub's model; raises ``InvalidConfig`` for one that cannot be served."""
    transformers_logging.disable_progress_bar()
    on = device()
    at = None if Path(source).is_dir() else revision  # a folder's revision is a hash of its files
    where: dict[str, Any] = {} if on.type == "cpu" else {"device_map": {"": str(on)}}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=at)
        tokenizer("a")  # the first call may change its settings, which no other thread must be using then
        model: Any = AutoModelForCausalLM.from_pretrained(source, revision=at, dtype=dtype_of(precision, on), **where)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidConfig(f"The base model {source!r} cannot be loaded: {reason}", field="base") from error
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or not kinds <= _CACHED_LAYERS:
        raise InvalidConfig(
            f"The base model {source!r} keeps a state other than keys and values; such models are not served here.",
            field="base",
        )
    model.eval().requires_grad_(False)
    context = getattr(config, "max_position_embeddings", None) or _MOST_CACHE_TOKENS
    return BaseModel(BaseName(source, revision), model, tokenizer, context)


def cache_tokens(base: BaseModel) -> int:
    """How many tokens' keys and values fit into a good part of the memory that is free now."""
    config = base.model.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    heads = getattr(config, "num_key_value_heads", None) or heads
    size = 2 * config.num_hidden_layers * heads * width * base.model.dtype.itemsize
    on = base.model.device
    free = torch.cuda.mem_get_info(on)[0] if on.type == "cuda" else psutil.virtual_memory().available
    return max(base.context, min(int(free * _CACHE_SHARE / size), _MOST_CACHE_TOKENS))
