"""What trainers are measured on: base models built from a configuration, and rows of realistic lengths."""

import json
import math
import random
from pathlib import Path
from typing import Any

from benchmarks.studio import ROOT

# Name -> class and sizes. About 30 and 120 million parameters, the embeddings being the head as well; and, for GPUs,
# what Llama 3's of 1 and 8 billion are, in bfloat16.
MODELS: dict[str, dict[str, Any]] = {
    "llama-30m": {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1408},
    "qwen-30m": {"model_type": "qwen2", "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1408},
    "llama-120m": {"model_type": "llama", "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2560},
    "qwen-120m": {"model_type": "qwen2", "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2560},
    "llama-1b": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_key_value_heads": 8,
    },
    "llama-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
VOCABULARY = {"30m": 16_384, "120m": 32_000, "1b": 128_256, "8b": 128_256}
LARGE = 1024  # wider models are stored in half
SEED = 0
# Lengths in tokens are log-normal, as those of instruction sets are: median 195, hardly any below 26 or above 1,000.
MEDIAN, SPREAD, SHORTEST, LONGEST = 195, 0.7, 26, 1000
ANSWER_SHARE = 0.55  # of a row's tokens, about


def write_model(name: str, folder: Path) -> Path:
    """Write a base model with random weights and the demo's tokenizer, in the Hugging Face layout."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    heads = MODELS[name]["hidden_size"] // 64
    usual: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 4 or 1,
        "vocab_size": VOCABULARY[name.rsplit("-", 1)[1]],
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    config = AutoConfig.for_model(**usual | MODELS[name])
    torch.manual_seed(SEED)
    half = MODELS[name]["hidden_size"] > LARGE
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if half else torch.float32)
    path = folder / name
    model.save_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "demo" / "model", model_max_length=2048)
    tokenizer.save_pretrained(path)
    return path


def write_rows(path: Path, count: int) -> Path:
    """Write rows of prompt and completion, their words from the demo's data set."""
    choose = random.Random(SEED)
    words = _words()
    with path.open("w") as file:
        for _ in range(count):
            length = min(LONGEST, max(SHORTEST, round(MEDIAN * math.exp(choose.gauss(0, SPREAD)))))
            answer = round(length * ANSWER_SHARE)
            row = {
                "prompt": _text(words, length - answer, choose),
                "completion": " " + _text(words, answer, choose),
            }
            file.write(json.dumps(row) + "\n")
    return path


def _words() -> list[str]:
    rows = (json.loads(line) for line in (ROOT / "demo" / "support.jsonl").open())
    return [word for row in rows for message in row["messages"] for word in message["content"].split()]


def _text(words: list[str], tokens: int, choose: random.Random) -> str:
    """Return running text of about so many tokens: the tokenizer makes 1.8 of a word."""
    count = max(1, round(tokens / 1.8))
    start = choose.randrange(len(words) - count)
    return " ".join(words[start : start + count])
