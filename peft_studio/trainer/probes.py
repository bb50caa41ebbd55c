"""What a trained adapter says to a few questions, kept to compare what it says where it is served."""

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch

from peft_studio import datasets
from peft_studio.config import Quantization, TrainingConfig
from peft_studio.datasets import Example
from peft_studio.effect import PROBE_TOKENS, PROBES, TOP, Probe, Probes, Said
from peft_studio.plan import Plan
from peft_studio.trainer.answers import stop_tokens
from peft_studio.trainer.evaluating import evaluating
from peft_studio.trainer.model import Base
from peft_studio.trainer.render import Renderer

_COUNT = 3
_LOOKED_AT = 64  # rows
_LONGEST = 512  # tokens of a question


def probe_notes(
    model: Any, base: Base, config: TrainingConfig, plan: Plan | None, *, is_moved: bool, is_sharded: bool
) -> dict[str, Any]:
    """
    Ask a trained model, adapter on and off, and return the file for the adapter's folder by its name.

    Nothing is asked where the adapter cannot be served here, nor of a model that is sharded: it computes only in all
    processes together. ``is_moved``: without its adapter the model is not the base model.
    """
    if is_sharded or not (config.method.served and config.aim.writes):
        return {}
    probes: list[Probe] = []
    with evaluating(model):
        for renderer, example in islice(_questions(config, plan, base), _COUNT):
            text = renderer.prompt(example)[0]
            ids = base.tokenizer(text, add_special_tokens=renderer.literal)["input_ids"]
            stops = stop_tokens(model, base, renderer)
            probe = Probe(
                messages=None if renderer.literal else renderer.asked(example),
                text=text,
                ids=ids,
                adapter=_say(model, base, ids, stops),
            )
            if not is_moved:
                with model.disable_adapter():
                    probe.base = _say(model, base, ids, stops)
            probes.append(probe)
    found = Probes(quantized=config.effective_quantization is not Quantization.NONE, probes=probes)
    return {PROBES: found.model_dump(mode="json")} if probes else {}


def _questions(config: TrainingConfig, plan: Plan | None, base: Base) -> Generator[tuple[Renderer, Example]]:
    """Yield rows of the data set that a served model can be asked: short ones, without tools."""
    path = plan.dataset.path if plan else config.dataset_path
    rows: Iterator[Example] = datasets.examples(path, config.columns, config.objective)
    limit = min(_LONGEST, base.longest(config.max_length) - PROBE_TOKENS)
    for row in islice(rows, _LOOKED_AT):
        example = row.texts[0]
        renderer = Renderer(base.tokenizer, example.format)
        text = renderer.prompt(example)[0]
        length = len(base.tokenizer(text, add_special_tokens=renderer.literal)["input_ids"])
        if not example.tools and 0 < length <= limit:
            yield renderer, example


def _say(model: Any, base: Base, ids: list[int], stops: list[int]) -> Said:
    """Go on greedily, without a cache: the answer is short, and training may have turned caches off."""
    said, tokens = Said(), list(ids)
    dtype_is_half = model.dtype is torch.bfloat16
    for _ in range(PROBE_TOKENS):
        some = torch.tensor([tokens], device=model.device)
        with torch.autocast(some.device.type, dtype=torch.bfloat16) if dtype_is_half else nullcontext():
            logits = model(input_ids=some, use_cache=False).logits[0, -1]
        values, likeliest = logits.float().log_softmax(-1).topk(TOP)
        token = int(likeliest[0])
        if token in stops:
            break
        tokens.append(token)
        names = [base.tokenizer.decode([one]) for one in likeliest.tolist()]
        said.tokens.append(names[0])
        said.logprobs.append(float(values[0]))
        said.top.append(dict(zip(names, values.tolist(), strict=True)))
    return said
