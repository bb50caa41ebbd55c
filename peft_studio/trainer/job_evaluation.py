"""Measure a stored adapter on the held-out rows of its job, beside its base model."""

from pathlib import Path

from peft_studio.errors import InvalidConfig
from peft_studio.run_dir import RunDir
from peft_studio.trainer.comparing import Subject, compare_models
from peft_studio.trainer.model import device, read_base
from peft_studio.trainer.objectives import criterion_of
from peft_studio.trainer.outcome import attempt
from peft_studio.trainer.prepare import read_examples, read_held_out
from peft_studio.trainer.program import read_job
from peft_studio.trainer.quantization import require_quantization
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
    if criterion.streams:
        first, held_out = read_held_out(config, plan)
    else:
        train, held_out = read_examples(config, plan)
        first = train[0]
        criterion.study([*train, *held_out])
    subject = Subject(config, base, criterion, Renderer(base.tokenizer, first.layout), adapter, stop)
    prompt = config.test_prompt or (held_out or [first])[0]
    run.write("evaluation.json", compare_models(subject, held_out, prompt, config.evaluation).evaluation)
