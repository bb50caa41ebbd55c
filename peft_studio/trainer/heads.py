"""What stands on a model's last hidden states: the output head of a language model, or one that is new."""

from typing import Any

from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from peft_studio.objectives import Head

CLASSES: dict[Head, Any] = {
    Head.CAUSAL_LM: AutoModelForCausalLM,
    Head.SEQUENCE: AutoModelForSequenceClassification,
    Head.TOKENS: AutoModelForTokenClassification,
    Head.NONE: AutoModel,
}
NEW: tuple[str, ...] = ("score", "classifier")  # what new heads are called; PEFT trains and stores them whole


def head_layers(model: Any) -> list[nn.Module]:
    """Find the layers of the output head, whichever it is."""
    output = model.get_output_embeddings()
    if output is not None:
        return [output]
    if model.base_model is model:
        return []
    inside = f"{model.base_model_prefix}."
    return [module for name, module in model.named_modules() if name and not f"{name}.".startswith(inside)]
