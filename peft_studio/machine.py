"""Capabilities: what a machine that trains has and how fast it is, as measured on it."""

from pydantic import BaseModel, ConfigDict, Field

from peft_studio.config import Precision, Quantization


class Gpu(BaseModel):
    """One GPU."""

    name: str
    vram_gb: float


class Capabilities(BaseModel):
    """A machine, measured; rates are of the device that training runs on: the first GPU, else the CPU."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str
    torch: str
    bitsandbytes: str | None
    torchao: str | None = None
    trainer: str = Field(default="", description="The version of the trainer whose rates these are.")
    cpu_cores: int = Field(description="Cores that this process may use.")
    ram_gb: float
    gpus: list[Gpu] = Field(default_factory=list[Gpu])
    matmul_gflops: float = Field(description="Billions of float32 operations a second in matrix products.")
    bf16_gflops: float | None = Field(description="The same in bfloat16; None where it does not work.")
    quantizations: dict[Quantization, str | None] = Field(description="None where it works, else why it does not.")

    def gflops(self, precision: Precision) -> float:
        """The rate in the number format that training would use."""
        wants_bf16 = precision is Precision.BFLOAT16 or (precision is Precision.AUTO and bool(self.gpus))
        return self.bf16_gflops if wants_bf16 and self.bf16_gflops else self.matmul_gflops

    @property
    def most_processes(self) -> int:
        """How many processes can train together: one on each GPU, or without any one on each core."""
        return len(self.gpus) or self.cpu_cores
