"""What the names and shapes of a model's weights say about it."""

import math
from collections import Counter

from peft_studio.plan import LinearLayers

Shapes = dict[str, list[int]]

# Architectures on transformers' Conv1D, whose weights lie the other way round: inputs are rows.
TRANSPOSED = ("GPT2", "OpenAIGPT", "ImageGPT", "DecisionTransformer")
# What a two-dimensional weight can be other than a linear layer inside the model.
_LOOKUPS = ("embed", "wte", "wpe", "relative_attention_bias")
_NOT_LAYERS = ("shared", "gate")  # T5's embedding; the router of a mixture of experts
_HEADS = ("lm_head", "score", "classifier", "embed_out", "output_projection")


def linear_modules(shapes: Shapes) -> list[str]:
    """Leaf names of the linear layers, in the order of the weights, without embeddings and output heads."""
    return list(dict.fromkeys(name.split(".")[-2] for name in _linear_weights(shapes)))


def _linear_weights(shapes: Shapes) -> Shapes:
    found: Shapes = {}
    for name, shape in shapes.items():
        *path, leaf, kind = ["", *name.split(".")][-4:]
        if kind != "weight" or len(shape) != 2 or leaf.startswith(_HEADS) or leaf in _NOT_LAYERS:
            continue
        # Experts lie in one tensor once the model is loaded, whatever the file has: there is no layer to adapt.
        if not any(word in part for part in (*path, leaf) for word in (*_LOOKUPS, "experts")):
            found[name] = shape
    return found


def linear_layers(shapes: Shapes, transposed: bool) -> list[LinearLayers]:
    """Count the linear layers of each name and size."""
    found = Counter((name.split(".")[-2], high, wide) for name, (high, wide) in _linear_weights(shapes).items())
    return [
        LinearLayers(name=name, rows=wide if transposed else high, columns=high if transposed else wide, count=count)
        for (name, high, wide), count in found.items()
    ]


def norm_parameters(shapes: Shapes) -> int:
    """Count the weights and biases of the normalisation layers."""
    modules = {name: ["", *name.split(".")][-2] for name in shapes}
    return sum(math.prod(shapes[name]) for name, leaf in modules.items() if "norm" in leaf or leaf.startswith("ln_"))
