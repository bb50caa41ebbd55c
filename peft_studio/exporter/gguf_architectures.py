"""
The architectures that are written as GGUF: what llama.cpp calls them, and what it takes for granted of each.

llama.cpp has some constants of an architecture in its code, and not in the file: of Gemma 3, say, that five layers of
six see a window only. A model that has others is refused. What each row says was seen in ``src/models`` of llama.cpp,
and is tried in the tests: llama.cpp has to write what transformers writes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf

from peft_studio.errors import InvalidConfig

Arch = gguf.MODEL_ARCH
_GELU = "gelu_pytorch_tanh"
_GEMMA_LOCAL_BASE = 10_000.0  # of the rotary positions in the layers with a window


@dataclass(frozen=True)
class Architecture:
    """How one of transformers' classes is called by llama.cpp, and how that lays it out."""

    arch: gguf.MODEL_ARCH
    interleaved: bool = False  # rotary pairs lie side by side
    adds_one: bool = False  # norms multiply by one more than the weight says, which the file has to say itself
    biases: bool = True  # whether linear layers may have them
    divides: bool = False  # reads what each rotary frequency is divided by, as in Llama 3.1
    turns_some: bool = False  # rotary positions may turn a part of each head only
    activation: str = "silu"
    whole_every: int | None = None  # every such layer attends to everything, all others to a window
    own: Callable[[gguf.GGUFWriter, Any], None] | None = None  # writes what is its alone; refuses what has no place


def _gemma(writer: gguf.GGUFWriter, config: Any) -> None:
    _takes_none(config, "use_bidirectional_attention")


def _gemma2(writer: gguf.GGUFWriter, config: Any) -> None:
    _takes_none(config, "use_bidirectional_attention")
    _scaled_by(config, config.hidden_size // config.num_attention_heads if config.num_hidden_layers == 46 else None)
    for field, write in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if (cap := getattr(config, field)) is None:
            raise refused(f"llama.cpp caps the logits of Gemma 2 always, this model has no {field}")
        write(cap)


def _gemma3(writer: gguf.GGUFWriter, config: Any) -> None:
    _takes_none(config, "use_bidirectional_attention", "attn_logit_softcapping", "final_logit_softcapping")
    _scaled_by(config, config.hidden_size // config.num_attention_heads if config.num_hidden_layers == 62 else None)
    far, near = config.rope_parameters["full_attention"], config.rope_parameters["sliding_attention"]
    if near.get("rope_type", "default") != "default" or near["rope_theta"] != _GEMMA_LOCAL_BASE:
        raise refused("llama.cpp knows Gemma 3 with rotary base 10,000 in the layers that see a window")
    if far.get("rope_type", "default") not in ("default", "linear"):
        raise refused(f"llama.cpp would scale the layers with a window, too, by {far['rope_type']}")


def _phi3(writer: gguf.GGUFWriter, config: Any) -> None:
    if head_size(config) * config.num_attention_heads != config.hidden_size:
        raise refused("llama.cpp knows Phi 3 with heads that share the hidden size between them")


def _smollm3(writer: gguf.GGUFWriter, config: Any) -> None:
    if config.no_rope_layers != [int((layer + 1) % 4 != 0) for layer in range(config.num_hidden_layers)]:
        raise refused("llama.cpp knows SmolLM3 without positions in every fourth layer, which is not so here")


def _granite(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_logit_scale(config.logits_scaling)


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture(Arch.LLAMA, interleaved=True, divides=True),
    "MistralForCausalLM": Architecture(Arch.LLAMA, interleaved=True, divides=True),
    "Qwen2ForCausalLM": Architecture(Arch.QWEN2),
    "Qwen3ForCausalLM": Architecture(Arch.QWEN3),
    "GemmaForCausalLM": Architecture(Arch.GEMMA, adds_one=True, biases=False, activation=_GELU, own=_gemma),
    "Gemma2ForCausalLM": Architecture(
        Arch.GEMMA2, adds_one=True, biases=False, activation=_GELU, whole_every=2, own=_gemma2
    ),
    "Gemma3ForCausalLM": Architecture(
        Arch.GEMMA3, adds_one=True, biases=False, activation=_GELU, whole_every=6, own=_gemma3
    ),
    "Phi3ForCausalLM": Architecture(Arch.PHI3, biases=False, turns_some=True, own=_phi3),
    "Olmo2ForCausalLM": Architecture(Arch.OLMO2, biases=False),
    "SmolLM3ForCausalLM": Architecture(Arch.SMOLLM3, interleaved=True, biases=False, own=_smollm3),
    "GraniteForCausalLM": Architecture(Arch.GRANITE, interleaved=True, own=_granite),
}


def architecture_of(config: Any) -> Architecture:
    """Return the row of a model's configuration; raises ``InvalidConfig`` for one that cannot be written."""
    name = (getattr(config, "architectures", None) or [type(config).__name__])[0]
    if (found := ARCHITECTURES.get(name)) is None:
        raise refused(f"{name} is not among the architectures that are written as GGUF: {', '.join(ARCHITECTURES)}")
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if activation != found.activation:
        raise refused(f"llama.cpp knows {name} with {found.activation}, this model has {activation}")
    if every := found.whole_every:
        layers = ["sliding" if (layer + 1) % every else "full" for layer in range(config.num_hidden_layers)]
        if config.layer_types != [f"{kind}_attention" for kind in layers]:
            raise refused(f"llama.cpp knows {name} with a window in all but every {every}. layer, unlike here")
    return found


def head_size(config: Any) -> int:
    """Return the size of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def refused(issue: str) -> InvalidConfig:
    """Say why a model is not written as GGUF."""
    return InvalidConfig.of("format", issue)


def _takes_none(config: Any, *fields: str) -> None:
    for field in fields:
        if getattr(config, field, None):
            raise refused(f"llama.cpp knows {type(config).__name__} without {field}")


def _scaled_by(config: Any, size: int | None) -> None:
    """Raise ``InvalidConfig`` where attention is scaled by something else than by the size of a head, or this one."""
    size = size or head_size(config)
    if config.query_pre_attn_scalar != size:
        raise refused(f"llama.cpp scales attention by {size} here, this model by {config.query_pre_attn_scalar}")
