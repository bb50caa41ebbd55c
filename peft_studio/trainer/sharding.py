"""A frozen base model of which each process holds a share (PyTorch's FSDP2); the adapter is whole in all of them."""

import sys
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from peft_studio.trainer.process_group import ProcessGroup


def shard_base(model: Any, group: ProcessGroup) -> None:
    """
    Divide what is not trained among the processes, block by block.

    A block's weights are gathered while it computes. What is trained stays as it is, so that optimizers, checkpoints
    and the sum of gradients know nothing of all this.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # half a second, and 45 MB

    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (group.size,))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    if mesh.device_type == "cuda":
        for parameter in trained:
            parameter.data = parameter.data.cuda()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh, ignored_params=trained)
    fully_shard(model, mesh=mesh, ignored_params=trained)


def let_go(model: Any) -> None:
    """Give up the weights that a forward pass has gathered where no backward pass follows: in all processes alike."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp and isinstance(model, fsdp.FSDPModule):
        model.reshard()
