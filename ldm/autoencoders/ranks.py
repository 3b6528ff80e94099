"""Sums, means and rows over all processes of a distributed run; alone, what was given. Every rank must call them."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce


def alone() -> bool:
    """Whether this process is the only one."""
    return not (dist.is_available() and dist.is_initialized())


def summed(values: Tensor) -> Tensor:
    """The sum, without gradients, where the values are."""
    if alone():
        return values
    total = values.detach().to(_reduction_device() if values.device.type == "cpu" else values.device, copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def _reduction_device() -> torch.device:
    """Where the process group adds what lies on the CPU: NCCL and XCCL on the current accelerator, gloo right there."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and dist.get_backend() in ("nccl", "xccl"):
        return torch.device(accelerator.type, torch.accelerator.current_device_index())
    return torch.device("cpu")


def averaged(values: Tensor) -> Tensor:
    """The mean over the ranks, with gradients to the values of all of them."""
    if alone():
        return values
    mean: Tensor = all_reduce(values) / dist.get_world_size()
    return mean


def gathered(rows: Tensor) -> Tensor:
    """The rows of all ranks, equally many of each, rank after rank: their order in the global batch."""
    if alone():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
