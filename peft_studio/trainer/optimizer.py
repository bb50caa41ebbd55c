"""The optimizer: how each group of what is trained learns, and how fast."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch

from peft_studio.algorithms import Algorithm
from peft_studio.config import Optimizer, TrainingConfig
from peft_studio.errors import InvalidConfig

Group = dict[str, Any]
FOUND_BY_NAME = ("bias", "norm")  # what no weight decay is put on


class _Together(torch.optim.Optimizer):
    """Muon for matrices, which is all that it can do, and AdamW for the rest, as one optimizer."""

    def __init__(self, groups: list[Group], rate: float):
        matrices = [_part(group, lambda parameter: parameter.ndim == 2) for group in groups]
        others = [_part(group, lambda parameter: parameter.ndim != 2) for group in groups]
        muon, adam = ([group for group in some if group["params"]] for some in (matrices, others))
        self._both: list[torch.optim.Optimizer] = []
        if muon:
            self._both.append(torch.optim.Muon(cast(Any, muon), lr=rate, adjust_lr_fn="match_rms_adamw"))
        if adam:
            self._both.append(torch.optim.AdamW(adam, lr=rate))
        super().__init__([group for one in self._both for group in one.param_groups], {})
        # The very same groups, so that a rate set here is one set there.
        self.param_groups = [group for one in self._both for group in one.param_groups]

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let both take a step."""
        for one in self._both:
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """Say what both remember."""
        return {"both": [one.state_dict() for one in self._both]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put both back."""
        for one, state in zip(self._both, state_dict["both"], strict=True):
            one.load_state_dict(state)
        self.param_groups = [group for one in self._both for group in one.param_groups]


def _part(group: Group, wanted: Callable[[torch.Tensor], bool]) -> Group:
    return {**group, "params": [parameter for parameter in group["params"] if wanted(parameter)]}


def _adafactor(groups: list[Group], rate: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)


def _bitsandbytes(name: str) -> Callable[[list[Group], float], torch.optim.Optimizer]:
    def make(groups: list[Group], rate: float) -> torch.optim.Optimizer:
        from bitsandbytes import optim

        return getattr(optim, name)(groups, lr=rate)

    return make


MAKERS: dict[Optimizer, Callable[[list[Group], float], torch.optim.Optimizer]] = {
    Optimizer.ADAMW: lambda groups, rate: torch.optim.AdamW(groups, lr=rate),
    Optimizer.ADAMW_8BIT: _bitsandbytes("AdamW8bit"),
    Optimizer.PAGED_ADAMW: _bitsandbytes("PagedAdamW"),
    Optimizer.PAGED_ADAMW_8BIT: _bitsandbytes("PagedAdamW8bit"),
    Optimizer.ADAFACTOR: _adafactor,
    Optimizer.LION: _bitsandbytes("Lion"),
    Optimizer.LION_8BIT: _bitsandbytes("Lion8bit"),
    Optimizer.SGD: lambda groups, rate: torch.optim.SGD(groups, lr=rate),
    Optimizer.MUON: _Together,
}


def make_optimizer(model: Any, config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimizer of all that is trained; a group's ``scale`` is its share of the schedule's learning rate."""
    return MAKERS[config.optimizer](parameter_groups(model, config), config.learning_rate)


def require_optimizer(config: TrainingConfig, on: torch.device) -> None:
    """Refuse an optimizer that this machine cannot do, which two steps of a small layer show."""
    layer = torch.nn.Linear(64, 64, device=on)
    groups = [{"params": list(layer.parameters()), "scale": 1.0, "weight_decay": 0.0}]
    try:
        optimizer = MAKERS[config.optimizer](groups, 1e-3)
        for _ in range(2):
            layer(torch.ones(1, 64, device=on)).sum().backward()
            take_step(optimizer, 1e-3)
    except (ImportError, RuntimeError, NotImplementedError, AttributeError, ValueError, OSError) as error:
        raise InvalidConfig(
            f"This machine cannot train with the optimizer {config.optimizer} ({str(error).splitlines()[0]}).",
            field="optimizer",
            issue="Choose another, adamw for instance.",
        ) from error


def take_step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the weights by their gradients, at a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    with warnings.catch_warnings():
        # They do not page on a CPU, where there is nothing to page to.
        warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU", UserWarning)
        optimizer.step()


def parameter_groups(model: Any, config: TrainingConfig) -> list[Group]:
    """Divide what is trained by learning rate (LoRA+ has its second factors learn faster) and by weight decay."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if any(part in name for part in FOUND_BY_NAME) else config.weight_decay
            groups.setdefault((_scale(name, parameter, config), decay), []).append(parameter)
    return [{"params": some, "scale": scale, "weight_decay": decay} for (scale, decay), some in groups.items()]


def _scale(name: str, parameter: torch.Tensor, config: TrainingConfig) -> float:
    # Biases and magnitudes go with the second factors, as in PEFT's own.
    fast = config.algorithm is Algorithm.LORA_PLUS and ("lora_B" in name or parameter.ndim == 1)
    return config.option("lr_ratio") if fast else 1.0
