"""
Measure a stored adapter: loss and accuracy on the held-out rows, and one answer, beside the base model's.

    python -m peft_studio.trainer.evaluate RUN_DIR ADAPTER_DIR [--tied-to-stdin]

Loads the adapter the way any user of it would, with stock PEFT, and writes evaluation.json.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft_studio.config import TrainingConfig
from peft_studio.errors import InvalidConfig
from peft_studio.jobs import Answer, Evaluation, HeldOut
from peft_studio.run_dir import RunDir
from peft_studio.trainer.adapter import load_adapter
from peft_studio.trainer.command import command_line, start
from peft_studio.trainer.data import Item, supervised_of, tokens_of
from peft_studio.trainer.model import device, load_base, read_base, require_quantization
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.objectives.criterion import Criterion
from peft_studio.trainer.outcome import attempt
from peft_studio.trainer.prepare import read_examples
from peft_studio.trainer.program import read_job
from peft_studio.trainer.render import Renderer
from peft_studio.trainer.stop import StopSignal


def run(run: RunDir, adapter_dir: str | Path, stop: StopSignal | None = None) -> int:
    """Evaluate an adapter with the run directory's job; return the exit code (see ``outcome``)."""
    stop = stop or StopSignal()
    return attempt(run, stop, lambda: evaluate(run, Path(adapter_dir), stop))


def evaluate(run: RunDir, adapter: Path, stop: StopSignal) -> None:
    """Leave evaluation.json in the run directory; raises what ``outcome`` knows."""
    config, plan = read_job(run)
    if not (adapter / "adapter_config.json").is_file():
        raise InvalidConfig(f"There is no adapter in {adapter}.", field="adapter", issue="Give its folder.")
    require_quantization(config, device())
    base = read_base(config, plan)
    criterion = criterion_of(config, base)
    train, held_out = read_examples(config, plan)
    criterion.study([*train, *held_out])
    renderer = Renderer(base.tokenizer, train[0].layout)
    limit = base.longest(config.max_length, config.virtual_tokens)
    rows = criterion.encode(held_out, renderer, limit).rows
    prompt = config.test_prompt or (held_out or train)[0]
    stop.check()

    bare = load_base(base, config, "all" if config.shard_base else "device")
    rows = criterion.with_reference(bare, rows, stop)
    base_on_rows = measure(bare, criterion, rows, config, stop)
    said_before = criterion.answer(bare, renderer, prompt, limit)
    stop.check()
    model = load_adapter(bare, adapter)
    run.write(
        "evaluation.json",
        Evaluation(
            held_out_rows=len(rows),
            base=base_on_rows,
            adapter=measure(model, criterion, rows, config, stop),
            answer=_answer(said_before, criterion.answer(model, renderer, prompt, limit)),
        ),
    )


def _answer(base: tuple[str, str] | None, adapter: tuple[str, str] | None) -> Answer | None:
    return Answer(prompt=base[0], base=base[1], adapter=adapter[1]) if base and adapter else None


def measure(
    model: Any, criterion: Criterion[Any], rows: Sequence[Item], config: TrainingConfig, stop: StopSignal
) -> HeldOut | None:
    """Return how well a model does on the rows; None where there are no rows."""
    if not rows:
        return None
    criterion.begin(model, rows)
    found = criterion.measure(model, rows, config.batch_size, stop)
    return HeldOut(
        loss=found.loss,
        perplexity=found.perplexity,
        accuracy=found.accuracy,
        tokens=sum(map(supervised_of, rows)) or sum(map(tokens_of, rows)),
        metrics=found.metrics,
    )


def _work(run_dir: RunDir, arguments: argparse.Namespace, stop: StopSignal) -> int:
    return run(run_dir, arguments.adapter, stop)


if __name__ == "__main__":
    parser = command_line("peft_studio.trainer.evaluate", "Measure a stored adapter.")
    parser.add_argument("adapter", type=Path, help="the adapter's folder")
    start(parser, _work)
