"""What validation finds out before anything is rented or trained, and pins down for every later attempt."""

from pydantic import BaseModel, Field

from peft_studio.config import TrainingConfig
from peft_studio.row_formats import RowFormat


class LinearLayers(BaseModel):
    """Linear layers of the same name and size."""

    name: str = Field(description="Last component of their names.")
    rows: int = Field(description="Outputs.")
    columns: int = Field(description="Inputs.")
    count: int

    @property
    def sides(self) -> int:
        """Rows and columns of one of them."""
        return self.rows + self.columns


class ModelFacts(BaseModel):
    """A base model, read from its configuration and safetensors headers alone."""

    id: str
    revision: str | None = Field(default=None, description="The commit on a hub; a hash of the files when local.")
    path: str | None = Field(default=None, description="The folder, where it is on this machine.")
    architecture: str
    writes: bool = Field(default=True, description="Whether it is a model that writes text, rather than an encoder.")
    parameters: int
    linear_modules: list[str] = Field(description="Last components of the linear layers' names, no output head.")
    modules: list[str] = Field(default=[], description="Last components of the names of all modules with weights.")
    layers: int | None = Field(default=None, description="Number of transformer blocks.")
    linear_parameters: int | None = Field(default=None, description="Weights of the linear layers.")
    linear_sides: int | None = Field(default=None, description="Rows and columns of all linear layers, added up.")
    smallest_linear: int | None = Field(default=None, description="Weights of the smallest linear layer.")
    linear_layers: list[LinearLayers] = Field(default=[], description="Linear layers by name and size; no output head.")
    norm_parameters: int | None = Field(default=None, description="Weights and biases of the normalisation layers.")
    width: int | None = Field(default=None, description="Numbers of a token's embedding.")
    key_width: int | None = Field(default=None, description="Numbers of the keys that a block keeps of a token.")
    vocabulary: int | None = Field(default=None, description="Tokens the model knows.")
    context_length: int | None = None
    has_chat_template: bool = False
    chat_template_sha256: str | None = Field(default=None, description="Of the template's text; null where none is.")
    license: str | None = None


class DatasetFacts(BaseModel):
    """A data set, read once from end to end."""

    path: str
    sha256: str
    format: RowFormat
    rows: int
    bytes: int
    characters: int = Field(description="Characters of text in all rows, from which tokens are estimated.")
    labels: list[str | int] = Field(default=[], description="Classes in the model's order, where rows have labels.")
    conversational: bool = Field(default=False, description="Of preferences: whether they are lists of messages.")


class Range(BaseModel):
    """A figure that nobody knows exactly: it will hardly be below ``low`` or above ``high``."""

    low: float
    expected: float
    high: float


class Estimate(BaseModel):
    """What a job will take on one kind of machine, from renting it to giving it back."""

    cost: Range = Field(description="In US dollars.")
    minutes: Range
    measured_jobs: int = Field(description="Finished jobs on such machines that have corrected it.")


class PlannedOffer(BaseModel):
    """A machine that the job could train on, and what it would take there."""

    provider: str
    resource_id: str
    name: str
    gpu_type: str | None
    gpu_count: int
    vram_gb: float | None
    spot: bool
    hourly_rate: float
    estimate: Estimate | None = Field(description="Null where nobody knows how fast the machine is.")


class PlannedConversion(BaseModel):
    """What the finished adapter is converted to, so that a job's ``serve_target`` takes it."""

    target: str
    format: str = Field(description="A format of exports: lora, merged or ollama.")
    rank: int | None = Field(default=None, description="Of the format lora.")
    reason: str


class Plan(BaseModel):
    """A job that can work: its configuration and what it stands on."""

    config: TrainingConfig
    model: ModelFacts
    dataset: DatasetFacts
    cache_key: str = Field(description="Equal for two jobs that would train the same adapter.")
    total_steps: int
    estimated_cost: float | None = Field(description="In US dollars; None where nothing is known.")
    estimated_duration_minutes: float | None
    tokens: int | None = Field(default=None, description="Tokens that are trained on, all epochs together, estimated.")
    needed_vram_gb: float | None = Field(default=None, description="Memory that it takes of each GPU, estimated.")
    estimate: Estimate | None = Field(default=None, description="Of a rented machine; null where nobody knows.")
    offers: list[PlannedOffer] = Field(
        default=[], description="The machines on which it costs least to finish, of all connected providers."
    )

    conversion: PlannedConversion | None = Field(
        default=None, description="What serve_target takes instead of the adapter; null where it takes it as it is."
    )

    @property
    def is_chat(self) -> bool:
        """Whether the trainer lays rows out by the chat template: conversations, not plain text."""
        data = self.dataset
        chat = data.conversational or data.format in (RowFormat.MESSAGES, RowFormat.INSTRUCTION)
        return self.model.has_chat_template and chat
