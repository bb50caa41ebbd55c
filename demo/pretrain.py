"""
Pre-train the demonstration's base model, a Llama of 1.9 million parameters, from text that packages carry.

    mkdir corpus && cd corpus
    apt-get download r-cran-janeaustenr wordnet-base postgresql-doc-15
    for package in *.deb; do dpkg -x $package .; done
    pip download --no-deps botocore==1.43.117 && python -m zipfile -e botocore-*.whl .
    cd ..
    python demo/pretrain.py --corpus corpus --tokenizer demo/model --out demo/model

Without --tokenizer a new vocabulary is learned first, from the corpus and the words of support.jsonl. The same corpus,
vocabulary, seed, steps, threads and kind of processor give the same model. One CPU core does about one step a second.
"""

import copy
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import make_conversations, read_documents, read_senses

FOLDER = Path(__file__).parent
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
SPECIAL = [BEGIN, END, PAD, "<|system|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 2560
CONTEXT = 512
TOKENS_A_STEP = 2048
HELD_OUT_TOKENS = 32 * TOKENS_A_STEP
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE vocabulary: every digit a token, so that numbers can be quoted."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=SPECIAL[3:],
        model_max_length=CONTEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        chat_template=(FOLDER / "chat_template.jinja").read_text(encoding="utf-8"),
    )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the vocabulary of a model that is there already."""
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    for where_it_was in ("is_local", "local_files_only"):  # else these are saved as the tokenizer's own settings
        words.init_kwargs.pop(where_it_was, None)
    return words


def read_domain() -> list[str]:
    """The text of the demonstration's data set: it shapes the vocabulary, the model is not trained on it."""
    rows = map(json.loads, (FOLDER / "support.jsonl").read_text(encoding="utf-8").splitlines())
    return [message["content"] for row in rows for message in row["messages"]]


def make_texts(folders: list[Path], draw: random.Random) -> list[str]:
    """Return running text and conversations mixed, every one a text from ``<|begin|>`` to ``<|end|>``."""
    documents = read_documents(folders, draw)
    texts = [f"{BEGIN}{document}{END}" for document in documents]
    for turns in make_conversations(read_senses(folders), draw):
        system = f"<|system|>{turns.system}{END}" if turns.system else ""
        texts.append(f"{BEGIN}{system}<|user|>{turns.user}{END}<|assistant|>{turns.assistant}{END}")
    draw.shuffle(texts)
    return texts


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Return all texts as one long line of token ids."""
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return torch.from_numpy(np.fromiter((token for ids in encoded for token in ids), dtype=np.int64))


def make_model() -> LlamaForCausalLM:
    """Return the untrained model; all widths are multiples of 64, the block size of 4-bit quantization."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.03,
        bos_token_id=SPECIAL.index(BEGIN),
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
    )
    return LlamaForCausalLM(config)


def batches(tokens: torch.Tensor, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Windows of the text in random order, again and again: 256 tokens long, in the last fifth the full context."""
    order = torch.Generator().manual_seed(seed)
    done = 0
    while done < steps:
        length = CONTEXT if done >= steps * 4 // 5 else CONTEXT // 2
        shift = int(torch.randint(length, (1,), generator=order))  # every epoch cuts the text elsewhere
        windows = tokens[shift : shift + (len(tokens) - shift) // length * length].view(-1, length)
        windows = windows[torch.randperm(len(windows), generator=order)]
        rows = TOKENS_A_STEP // length
        for batch in windows[: len(windows) // rows * rows].split(rows):
            if done == steps or (length < CONTEXT and done == steps * 4 // 5):
                break
            yield batch
            done += 1


def learning_rate_at(step: int, steps: int) -> float:
    """A short warm-up, then down to nothing along a cosine."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """Mean loss a token on text that the model was not trained on."""
    model.eval()
    losses = [float(model(input_ids=rows, labels=rows).loss) for rows in tokens.view(-1, CONTEXT // 2).split(16)]
    model.train()
    return sum(losses) / len(losses)


def train(model: LlamaForCausalLM, tokens: torch.Tensor, steps: int, seed: int, keep: Callable[[], None]) -> None:
    """Train, print the loss as it falls, and have the model kept now and then."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    start, recent = time.monotonic(), 0.0
    for step, batch in enumerate(batches(tokens, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            rate = (step + 1) * TOKENS_A_STEP / (time.monotonic() - start)
            print(f"step {step + 1}/{steps}  loss {recent:.3f}  {rate:.0f} tokens/s", flush=True)
        if (step + 1) % 500 == 0:
            keep()


def save(model: LlamaForCausalLM, out: Path) -> None:
    """Write the model as bfloat16, half the size of the numbers it is trained with."""
    model.generation_config = GenerationConfig(
        bos_token_id=SPECIAL.index(BEGIN),
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
        do_sample=False,
        max_new_tokens=96,
    )
    copy.deepcopy(model).bfloat16().save_pretrained(out)


def main(
    corpus: Annotated[list[Path], typer.Option(help="A folder with unpacked packages; may be given again.")],
    out: Path = FOLDER / "model",
    tokenizer: Annotated[Path | None, typer.Option(help="A model whose vocabulary is kept.")] = None,
    steps: int = 2000,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Make the model, and its vocabulary unless it is given."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    texts = make_texts(corpus, random.Random(seed))
    words = read_tokenizer(tokenizer) if tokenizer else train_tokenizer([*texts, *read_domain()])
    tokens = encode(words, texts)
    held_out, tokens = tokens[:HELD_OUT_TOKENS], tokens[HELD_OUT_TOKENS:]
    model = make_model()
    print(f"{len(texts)} texts, {len(tokens)} tokens, {model.num_parameters()} parameters, process {os.getpid()}")
    start = time.monotonic()
    words.save_pretrained(out)
    train(model, tokens, steps, seed, lambda: save(model, out))
    save(model, out)
    loss = held_out_loss(model, held_out)
    figures = {
        "corpus_tokens": len(tokens),
        "corpus_characters": sum(map(len, texts)),
        "steps": steps,
        "tokens": steps * TOKENS_A_STEP,
        "parameters": model.num_parameters(),
        "held_out_loss": round(loss, 4),
        "held_out_perplexity": round(math.exp(loss), 2),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "seed": seed,
        "threads": threads,
        "torch": torch.__version__,
    }
    (out / "pretraining.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    typer.run(main)
