"""
What is tried when a machine has too little memory: the same training, laid out so that it needs less at once.

The rows of a step stay the same, so the adapter is the same and a checkpoint from before is still good. The run
directory's ``config.json`` stays what the user asked for; ``memory.json`` says how it is carried out.
"""

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Algorithm, TrainingConfig
from peft_studio.run_dir import RunDir

FILE = "memory.json"


class Layout(BaseModel):
    """How a step's rows are gone through, where that differs from what was asked for."""

    model_config = ConfigDict(frozen=True)

    batch_size: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    gradient_checkpointing: bool

    @classmethod
    def of(cls, config: TrainingConfig) -> "Layout":
        """Return what a configuration asks for."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})

    def applied_to(self, config: TrainingConfig) -> TrainingConfig:
        """Return a configuration that is carried out like this; its effective batch size is the same."""
        return config.model_copy(update=self.model_dump())

    def __str__(self) -> str:
        again = ", activations computed again" if self.gradient_checkpointing else ""
        return f"batch_size {self.batch_size} x gradient_accumulation_steps {self.gradient_accumulation_steps}{again}"


def lower(config: TrainingConfig, layout: Layout) -> Layout | None:
    """Return the next layout that needs less memory: half the micro-batch, then less kept; None after the last."""
    if layout.batch_size > 1:
        rows = config.effective_batch_size
        half = next(size for size in range(layout.batch_size // 2, 0, -1) if rows % size == 0)
        return layout.model_copy(update={"batch_size": half, "gradient_accumulation_steps": rows // half})
    if not layout.gradient_checkpointing and config.algorithm is not Algorithm.PREFIX_TUNING:
        return layout.model_copy(update={"gradient_checkpointing": True})
    return None


def layout_of(run: RunDir, config: TrainingConfig) -> Layout:
    """Return how a job is carried out at present."""
    return run.read(FILE, Layout) or Layout.of(config)


def step_down(run: RunDir) -> Layout | None:
    """Go one rung down, for the trainer's next start; None where there is no further one."""
    config = run.read_config()
    if (layout := lower(config, layout_of(run, config))) is not None:
        run.write(FILE, layout)
    return layout
