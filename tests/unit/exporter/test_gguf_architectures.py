"""Every architecture that is written as GGUF: llama.cpp writes what transformers does; what it would not is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from peft_studio.errors import InvalidConfig
from peft_studio.export_rules import GGUF_ARCHITECTURES
from peft_studio.exporter import llama_cpp
from peft_studio.exporter.gguf_architectures import ARCHITECTURES
from peft_studio.exporter.gguf_file import write_gguf
from peft_studio.exporter.merge import Merged
from peft_studio.exports import GgufType
from tests.tiny import tiny_tokenizer
from tests.unit.exporter.trained import LLAMA3, SIZES

PROMPT = [0, *range(20, 60)]  # longer than any window here
TOKENS = 12
MULTIPLIERS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.1,
    "logits_scaling": 2.0,
}
WINDOWED = {"sliding_window": 16, "num_hidden_layers": 7, "query_pre_attn_scalar": 16, "head_dim": 16}
LOCAL = {"rope_type": "default", "rope_theta": 10_000.0}
FAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
PARTLY = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 10_000.0}


def model(family: str, **changes: Any) -> Any:
    """A tiny model of random weights, its norms and biases too, which are all ones or zeros when a model is made."""
    torch.manual_seed(3)
    sizes = {**SIZES, "vocab_size": len(tiny_tokenizer()), "pad_token_id": 2, **changes}
    made: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()
    made.config.architectures = [type(made).__name__]  # as a stored one has them
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(0.1)  # where it is the head as well, a token would follow itself
        for weight in made.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
    return made


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gemma", {"head_dim": 32}),
        ("gemma2", {**WINDOWED, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        ("gemma3_text", {**WINDOWED, "rope_parameters": {"full_attention": FAR, "sliding_attention": LOCAL}}),
        ("phi3", {"rope_parameters": PARTLY}),
        ("olmo2", {}),
        ("smollm3", {"num_hidden_layers": 5, "tie_word_embeddings": False}),
        ("granite", {**MULTIPLIERS, "attention_bias": True, "mlp_bias": True}),
        ("qwen3", {"head_dim": 32, "rope_parameters": YARN}),
    ],
)
def test_llama_cpp_writes_what_transformers_writes(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    made = model(family, **changes)
    write_gguf(Merged(made, tiny_tokenizer()), tmp_path / "tiny.gguf", GgufType.F32, "tiny")
    answer = llama_cpp.ask(llama_cpp.Question(str(tmp_path / "tiny.gguf"), [], True, PROMPT, TOKENS))
    with torch.inference_mode():
        whole = made.generate(torch.tensor([PROMPT]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=2)
    written = whole[0, len(PROMPT) :].tolist()
    assert answer.written == written[: len(answer.written)]
    assert len(answer.written) >= 6
    assert len(set(answer.written)) > 2, "a text of one token says little"


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("bloom", {}, "is not among the architectures"),
        ("llama", {"hidden_act": "gelu"}, "this model has gelu"),
        ("llama", {"rope_parameters": {**YARN, "beta_fast": 16}}, "no beta_fast of 16"),
        ("llama", {"rope_parameters": {**YARN, "attention_factor": 2.0}}, "no attention_factor of 2"),
        ("qwen2", {"rope_parameters": LLAMA3}, "no rotary scaling 'llama3'"),
        ("gemma", {"tie_word_embeddings": False}, "no place for the model's tensor lm_head"),
        ("gemma", {"attention_bias": True}, "no place for the model's tensor model.layers.0.self_attn.q_proj.bias"),
        ("gemma", {"hidden_act": "silu"}, "with gelu_pytorch_tanh"),
        ("gemma", {"use_bidirectional_attention": True}, "without use_bidirectional_attention"),
        ("gemma2", {**WINDOWED, "query_pre_attn_scalar": 8}, "scales attention by 16"),
        ("gemma2", {**WINDOWED, "final_logit_softcapping": None}, "no final_logit_softcapping"),
        ("gemma2", {**WINDOWED, "layer_types": ["sliding_attention"] * 7}, "all but every 2. layer"),
        ("gemma3_text", {**WINDOWED, "final_logit_softcapping": 9.0}, "without final_logit_softcapping"),
        (
            "gemma3_text",
            {**WINDOWED, "rope_parameters": {"full_attention": FAR, "sliding_attention": {**LOCAL, "rope_theta": 5e3}}},
            "base 10,000",
        ),
        (
            "gemma3_text",
            {**WINDOWED, "rope_parameters": {"full_attention": YARN, "sliding_attention": LOCAL}},
            "by yarn",
        ),
        ("phi3", {"rope_parameters": LONGROPE}, "no rotary scaling 'longrope'"),
        ("phi3", {"head_dim": 32}, "share the hidden size"),
        ("smollm3", {"no_rope_layer_interval": 2}, "every fourth layer"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    family: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match=reason):
        write_gguf(Merged(model(family, **changes), tiny_tokenizer()), tmp_path / "x.gguf", GgufType.F32, "tiny")


def test_an_export_is_refused_at_the_request_for_the_architectures_that_have_no_row() -> None:
    assert tuple(ARCHITECTURES) == GGUF_ARCHITECTURES
