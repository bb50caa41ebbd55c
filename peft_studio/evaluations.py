"""Evaluations of stored adapters: what can be asked of one, and what comes of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import TrainingConfig
from peft_studio.errors import NotFound
from peft_studio.evaluation.comparison import EvaluationConfig, Measure, ModelComparison
from peft_studio.jobs import Evaluation, JobStatus

PREFIX = "evaluation_"
Word = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]


class Judge(BaseModel):
    """Who compares written answers: a model behind an OpenAI-compatible API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Word
    url: Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s?#@]+$")] | None = Field(
        default=None, description="Base address of the API, with /v1; by default the studio's own judge, with its key."
    )


class Harness(BaseModel):
    """Tasks of lm-evaluation-harness, which the studio needs to have installed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: Annotated[list[Word], Field(min_length=1, max_length=20)]
    limit: int | None = Field(default=None, ge=1, le=1_000_000, description="Documents of each task; by default all.")


class EvaluationWanted(EvaluationConfig):
    """What one evaluation is asked to do."""

    adapter_id: Word
    dataset: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        default=None,
        description="A file, or a data set's id; by default the rows that the adapter's job held out.",
    )
    rows: int = Field(default=1000, ge=1, le=1_000_000, description="Of more rows so many are drawn.")
    measures: Annotated[list[Measure], Field(min_length=1)] | None = Field(
        default=None, description="Only these; by default all that the adapter has."
    )
    lm_eval: Harness | None = None
    judge: Judge | None = Field(default=None, description="Compare the written answers, too.")


class EvaluationTask(BaseModel):
    """An evaluation with all that it stands on, looked up when it was asked for: the parameter of its flow."""

    model_config = ConfigDict(frozen=True)

    wanted: EvaluationWanted
    adapter: str = Field(description="The adapter's folder.")
    config: TrainingConfig = Field(description="How it was trained, as far as that decides how rows are read.")
    held_out: bool = Field(description="Whether only the rows are used that its job held out.")
    dataset_sha256: str = Field(description="Of the data set when the evaluation was asked for.")
    notes: list[str] = []

    @property
    def adapter_id(self) -> str:
        """The adapter's id."""
        return self.wanted.adapter_id

    @property
    def name(self) -> str:
        """What the flow run is called."""
        return f"Evaluation of {self.adapter_id}"

    @property
    def labels(self) -> list[str]:
        """By what it is found in Prefect."""
        return []


class Judged(BaseModel):
    """What a judge found: each row is shown twice, the answers changing places."""

    model_config = ConfigDict(frozen=True)

    model: str
    rows: int = Field(description="Rows of which both verdicts could be read.")
    unreadable: int = Field(description="Rows of which one could not; they count for nobody.")
    adapter_wins: int = Field(description="Rows where the adapter's answer won from either place.")
    base_wins: int
    ties: int = Field(description="Rows where neither did, or the verdict followed the place.")
    win_rate: float | None = Field(description="Of the adapter, a tie counted half; null where nothing could be read.")
    low: float | None = Field(default=None, description="The ends of its confidence interval.")
    high: float | None = None


class EvaluationResult(BaseModel):
    """What came of an evaluation."""

    evaluation: Evaluation
    notes: list[str] = Field(default=[], description="What whoever reads the figures should know.")
    lm_eval: dict[str, ModelComparison] = Field(default={}, description="By task and metric: arc_easy/acc_norm.")
    judge: Judged | None = None


class EvaluationStep(BaseModel):
    """How far an evaluation has come."""

    step: str
    progress: float = Field(ge=0, le=1)
    result: EvaluationResult | None = None
    error: str | None = None


class AdapterEvaluation(BaseModel):
    """An evaluation as users see it."""

    evaluation_id: str
    adapter_id: str
    config: EvaluationWanted
    status: JobStatus
    step: str = Field(description="What it is at: queued, base model, adapter, judging, done …")
    progress: float
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: EvaluationResult | None = None
    error: str | None = None


class EvaluationPage(BaseModel):
    """Some evaluations, newest first."""

    evaluations: Sequence[AdapterEvaluation]
    next_cursor: str | None


def evaluation_id_of(flow_run_id: UUID | str) -> str:
    """Return the id of the evaluation that a flow run is."""
    return PREFIX + UUID(str(flow_run_id)).hex


def flow_run_id_of_evaluation(evaluation_id: str) -> UUID:
    """Return the flow run that an evaluation is; raises ``NotFound`` for what is no evaluation's id."""
    digits = evaluation_id.removeprefix(PREFIX)
    if digits != evaluation_id and len(digits) == 32 and digits.isascii() and digits.isalnum():
        try:
            return UUID(digits)
        except ValueError:
            pass
    raise NotFound(f"There is no evaluation {evaluation_id[:100]!r}.", evaluation_id=evaluation_id)
