"""Settings of the server, read from the environment (``PEFT_STUDIO_…``) once, at the edge."""

import re
import shlex
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from peft_studio.run_dir import RunDir
from peft_studio.vllm_rules import MAX_RANKS

DEPLOYMENT, EXPORT_DEPLOYMENT, EVALUATION_DEPLOYMENT = "finetune/default", "export/default", "evaluation/default"
DEPLOY_DEPLOYMENT = "deploy/default"
HYPERPARAMETERS, SCHEDULED = "hyperparameters/default", "scheduled/default"
WORK_POOL = "studio"
LOCAL_QUEUE, RENTED_QUEUE, HOUSEKEEPING_QUEUE, EXPORT_QUEUE = "local", "rented", "housekeeping", "exports"
DEPLOYING_QUEUE = "deploying"
EVALUATION_QUEUE = "evaluations"
COORDINATING_QUEUE = "coordinating"  # of flow runs that start jobs and wait for them, and so must not wait with them


class LocalEngine(StrEnum):
    """What serves adapters on this machine."""

    AUTO = "auto"  # vLLM where it is installed, has a GPU and takes the adapter; otherwise the studio's own endpoint
    OWN = "own"
    VLLM = "vllm"


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix="PEFT_STUDIO_", frozen=True)

    data_dir: Path = Field(
        default=Path.home() / ".peft-studio", description="Database, run directories, adapters and logs."
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port of the API.")
    prefect_port: int = Field(
        default=4200, ge=1, le=65535, description="Port of the Prefect server and its UI, on loopback."
    )
    database_url: SecretStr | None = Field(
        default=None, description="postgresql+asyncpg://… of an external PostgreSQL; by default an embedded one runs."
    )
    requests_per_minute: int = Field(default=100, ge=1, description="Requests a minute that one API key may make.")
    connections_per_key: int = Field(
        default=10, ge=1, description="WebSockets and event streams that one API key may hold open."
    )
    wrong_keys_per_minute: int = Field(
        default=20, ge=1, description="Wrong API keys a minute from one address that are told to be wrong."
    )
    allowed_origins: str = Field(
        default="", description="Web pages whose scripts may call the API: https://host[:port], separated by commas."
    )
    socket_ping_seconds: float = Field(
        default=20.0, gt=0, description="How often whoever follows events is pinged, and how long the answer may take."
    )
    socket_send_seconds: float = Field(
        default=10.0, gt=0, description="How long a follower of events may take to make room for the next."
    )
    max_body_bytes: int = Field(default=1 << 20, description="Largest JSON request body.")
    max_dataset_bytes: int = Field(default=64 << 30, ge=1, description="Largest data set that can be uploaded.")
    upload_expiry_hours: float = Field(
        default=24, gt=0, description="Hours that an unfinished upload waits for its sender to go on."
    )
    disk_reserve_bytes: int = Field(
        default=1 << 30, ge=0, description="Disk space that uploads leave to database, checkpoints and adapters."
    )
    preview_seconds: float = Field(default=60, gt=0, description="Seconds that a preview of a data set may take.")
    max_adapter_bytes: int = Field(default=4 << 30, ge=1, description="Largest adapter file that can be uploaded.")
    local_jobs: int = Field(default=1, ge=1, description="Jobs that train on this machine at the same time.")
    deploying_at_once: int = Field(default=8, ge=1, description="Deployments that are brought about at the same time.")
    deploy_minutes: float = Field(default=60, gt=0, description="How long a platform may take to serve an adapter.")
    lease_hours: float = Field(
        default=24, gt=0, le=8760, description="How long what a platform bills for is served, unless it is renewed."
    )
    lease_warning_minutes: float = Field(
        default=60, ge=0, description="How long before the end of its lease a deployment says so."
    )
    local_engine: LocalEngine = Field(
        default=LocalEngine.AUTO, description="What serves adapters on this machine: auto, own or vllm."
    )
    vllm_max_lora_rank: int = Field(
        default=64, description="The highest rank that vLLM makes room for on this machine."
    )
    vllm_arguments: str = Field(
        default="--gpu-memory-utilization 0.45 --max-model-len auto --max-loras 4 --max-cpu-loras 16",
        description="Arguments of one's own for `vllm serve` on this machine.",
    )
    local_exports: int = Field(default=1, ge=1, description="Exports that are made at the same time.")
    local_evaluations: int = Field(default=1, ge=1, description="Evaluations that are made at the same time.")
    harness_tasks: Path | None = Field(
        default=None, description="Folder of tasks of one's own for lm-evaluation-harness, besides those it has."
    )
    judge_url: str | None = Field(
        default=None, pattern="^https?://.+", description="OpenAI-compatible API of the studio's own judge, with /v1."
    )
    judge_api_key: SecretStr | None = Field(default=None, description="Its key, which is sent nowhere else.")
    job_niceness: int = Field(
        default=10, ge=0, le=19, description="How far jobs step back for the API and the Prefect server beside them."
    )
    max_recoveries: int = Field(default=3, ge=0, description="Times a job whose process died is taken up again.")
    public_url: str | None = Field(
        default=None, description="Address under which rented machines reach this API; by default its own."
    )
    bucket: str | None = Field(
        default=None,
        pattern="^s3://.+",
        description="Where rented machines leave their work instead: s3://BUCKET/PATH.",
    )
    bucket_endpoint: str | None = Field(default=None, description="Address of the bucket's service, if not Amazon's.")
    trainer_image: str = Field(
        default="ghcr.io/peft-studio/trainer:latest", description="Image that rented machines run."
    )
    rented_jobs: int = Field(default=32, ge=1, description="Jobs that train on rented machines at the same time.")
    sweep_points: int = Field(default=100, ge=1, le=1000, description="Points that one sweep may have.")
    schedule_minutes: float = Field(default=15, gt=0, description="The shortest time between two runs of a schedule.")
    machines_per_job: int = Field(default=8, ge=1, description="Machines that one job may use up, one after the other.")
    checkpoint_minutes: float = Field(
        default=10, gt=0, description="A rented machine saves and sends a checkpoint at least so often."
    )
    boot_minutes: float = Field(default=20, gt=0, description="How long a rented machine may take to report.")
    silence_minutes: float = Field(
        default=30, gt=0, description="How long a rented machine trains on where the studio does not answer it."
    )
    stop_seconds: float = Field(
        default=90, gt=0, description="What a rented machine may take to save and send a checkpoint and be ended."
    )
    machine_hours: float = Field(default=72, gt=0, le=160, description="The longest that any machine is rented for.")
    platform_urls: dict[str, str] = Field(
        default={}, description='Where platforms are, other than usual: {"runpod": "http://127.0.0.1:9000"}.'
    )
    tracker_pythons: dict[str, Path] = Field(
        default={},
        description='Pythons that have a tracker\'s library, if not this one: {"trackio": "/opt/…/bin/python"}.',
    )
    tracker_seconds: float = Field(
        default=5.0, gt=0, le=60, description="How long a list of experiments waits for each tracker."
    )
    model_dirs: list[Path] = Field(default=[], description="Folders of models, besides 'models' in the data directory.")
    reward_functions: list[str] = Field(
        default=[], description='Modules, or module:function, of rewards that jobs may name: ["rewards:brevity"].'
    )
    model_search_seconds: float = Field(
        default=5.0, gt=0, le=60, description="How long a search waits for each source of models."
    )

    @field_validator("data_dir")
    @classmethod
    def _from_the_root(cls, path: Path) -> Path:
        return path.expanduser().absolute()  # the studio's processes need not share a working directory

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        origins = [origin.strip() for origin in value.split(",") if origin.strip()]
        for origin in origins:
            if not re.fullmatch(r"\*|https?://[\w.*-]+(:\d+)?", origin):
                raise ValueError(f"{origin!r} is no origin: write scheme and host, like https://studio.example.com")
        return ",".join(origins)

    @field_validator("vllm_max_lora_rank")
    @classmethod
    def _rank(cls, rank: int) -> int:
        if rank not in MAX_RANKS:
            raise ValueError(f"vLLM knows the limits {', '.join(map(str, MAX_RANKS))}")
        return rank

    @field_validator("vllm_arguments")
    @classmethod
    def _arguments(cls, value: str) -> str:
        shlex.split(value)  # raises ValueError
        return value

    @property
    def origins(self) -> list[str]:
        """The allowed origins, one by one."""
        return [origin for origin in self.allowed_origins.split(",") if origin]

    @property
    def address_for_machines(self) -> str:
        """Where rented machines find the API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def runs(self) -> Path:
        """Where run directories live."""
        return self.data_dir / "runs"

    @property
    def adapters(self) -> Path:
        """Where finished adapters live."""
        return self.data_dir / "adapters"

    @property
    def exports(self) -> Path:
        """Where exports of adapters live."""
        return self.data_dir / "exports"

    @property
    def deploying(self) -> Path:
        """Where the flow runs of deployments show that they live."""
        return self.data_dir / "deploying"

    @property
    def hosted(self) -> Path:
        """Where adapters are laid out for platforms that read them from a disk, a folder for each."""
        return self.data_dir / "hosted"

    @property
    def evaluations(self) -> Path:
        """Where evaluations show that they live."""
        return self.data_dir / "evaluations"

    @property
    def publishing(self) -> Path:
        """Where it is noted which adapters are being published."""
        return self.data_dir / "publishing"

    @property
    def datasets(self) -> Path:
        """Where uploaded data sets live."""
        return self.data_dir / "datasets"

    @property
    def uploads(self) -> Path:
        """Where uploads wait until they are whole."""
        return self.data_dir / "uploads"

    @property
    def results(self) -> Path:
        """Where Prefect keeps cached task results."""
        return self.data_dir / "results"

    @property
    def hub_files(self) -> Path:
        """Where the API keeps the small files of hub models it was asked about."""
        return self.data_dir / "hub-files"

    @property
    def logs(self) -> Path:
        """Where the studio's processes log."""
        return self.data_dir / "logs"

    def run_dir(self, job_id: str) -> RunDir:
        """Return the job's run directory."""
        return RunDir(self.runs / job_id)


@lru_cache
def settings() -> Settings:
    """Return this process's settings."""
    return Settings()
