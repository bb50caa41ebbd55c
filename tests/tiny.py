"""A language model small enough for tests: its own tokenizer, random weights, and rows to train it on."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from peft_studio.config import TrainingConfig
from peft_studio.run_dir import RunDir

WORDS = ["the", "a", "red", "blue", "cat", "dog", "house", "runs", "sleeps", "sees", "who", "what", "where", "is", "my"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def sentence(random_words: random.Random, longest: int = 12) -> str:
    return " ".join(random_words.choices(WORDS, k=random_words.randint(1, longest)))


def tiny_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=["<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 2, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    return fast


def tiny_model(folder: Path, template: str | None = TEMPLATE, **changes: Any) -> Path:
    tokenizer = tiny_tokenizer(template)
    torch.manual_seed(1)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.1,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def conversations(count: int, seed: int = 0) -> list[dict[str, Any]]:
    words = random.Random(seed)
    return [
        {
            "messages": [
                {"role": "user", "content": sentence(words)},
                {"role": "assistant", "content": sentence(words)},
            ]
        }
        for _ in range(count)
    ]


def make_run(folder: Path, model: Path, dataset: Path, **config: Any) -> RunDir:
    settings: dict[str, Any] = {
        "base_model": str(model),
        "model_source": "local",
        "dataset_path": str(dataset),
        "learning_rate": 5e-3,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_epochs": 2,
        "validation_split": 0.0,
        "checkpoint_steps": 3,
    }
    run = RunDir(folder)
    run.write("config.json", TrainingConfig(**{**settings, **config}))
    return run


def preferences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs of answers; the chosen ones speak of other things than the rejected ones."""
    words = random.Random(seed)
    return [
        {
            "prompt": f"<s>{sentence(words)}",
            "chosen": " " + " ".join(words.choices(["the", "red", "cat", "sleeps"], k=words.randint(2, 8))),
            "rejected": " " + " ".join(words.choices(["a", "blue", "dog", "runs"], k=words.randint(2, 8))),
        }
        for _ in range(count)
    ]


def verdicts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Answers that are good or bad, each by itself, by turns."""
    return [
        {"prompt": row["prompt"], "completion": row["rejected" if i % 2 else "chosen"], "label": i % 2 == 0}
        for i, row in enumerate(preferences(count, seed))
    ]


def labelled(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts that are about one of three things, each with a label."""
    words = random.Random(seed)
    things = [["cat", "dog", "house"][i % 3] for i in range(count)]
    return [{"text": f"{sentence(words, 4)} {thing}", "label": thing} for thing in things]


def tagged(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Words of which colours and animals have tags of their own."""
    words, kinds = random.Random(seed), {"red": 1, "blue": 1, "cat": 2, "dog": 2}
    sentences = [sentence(words).split() for _ in range(count)]
    return [{"tokens": some, "ner_tags": [kinds.get(word, 0) for word in some]} for some in sentences]


def tiny_encoder(folder: Path) -> Path:
    """A model that reads in both directions and writes nothing; its tokenizer puts a token before and behind a text."""
    tokenizer = tiny_tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}
    layers: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.1, pad_token_id=2, **sizes, **layers)
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two texts about the same two things, in other words; every third row has one about others, too."""
    words = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        things = words.sample(WORDS, 2)
        row = {"anchor": " ".join(things), "positive": " ".join([*reversed(things), words.choice(WORDS)])}
        rows.append(row | {"negative": " ".join(words.sample(WORDS, 2)) if i % 3 == 0 else None})
    return rows


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Prompts, and beside each a word that would be the right answer."""
    words = random.Random(seed)
    return [{"prompt": f"<s>{sentence(words)}", "answer": words.choice(WORDS)} for _ in range(count)]
