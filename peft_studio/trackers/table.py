"""The trackers that jobs can name, and the library of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """A tracker's library: the module that is imported, and the extra that brings it; ``sender`` is ours."""

    sender: str
    module: str
    extra: str | None = None
    needs_account: bool = True

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install 'peft-studio[{self.extra}]'"


LIBRARIES = {
    "wandb": Library("peft_studio.trackers.to_wandb:Wandb", "wandb", "wandb"),
    "mlflow": Library("peft_studio.trackers.to_mlflow:Mlflow", "mlflow", "mlflow"),
    "comet": Library("peft_studio.trackers.to_comet:Comet", "httpx"),
    "trackio": Library("peft_studio.trackers.to_trackio:Trackio", "trackio", "trackio", needs_account=False),
    "tensorboard": Library(
        "peft_studio.trackers.to_tensorboard:TensorBoard", "tensorboard", "tensorboard", needs_account=False
    ),
}
ALIASES = {"comet_ml": "comet"}


def tracker_named(name: str | None) -> str | None:
    """Return the tracker that a job names, by its own name; None where it is only recorded here."""
    known = ALIASES.get(str(name).lower(), str(name).lower())
    return known if name and known in LIBRARIES else None
