"""Wraps torch.distributed: collectives that do nothing in a single process."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clcae.device import pick_device
from training.errors import UsageError, UserError

Result = TypeVar("Result")

BUCKET_NUMEL = 1 << 24  # entries reduced at once: 64 MiB of float32 on top of the gradients
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
TIMEOUT = timedelta(hours=2)  # rank 0 alone writes the exports and the report while the others wait


def rank() -> int:
    """Returns the index of this process, 0 in a single one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Returns whether this is rank 0, which writes files and speaks to the user."""
    return rank() == 0


@contextmanager
def session(device_name: str) -> Iterator[torch.device]:
    """Joins the process group of torchrun, if there is one, and yields this process's device."""
    try:
        device = pick_device(device_name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or dist.is_initialized():
        yield device
        return
    _die_with_launcher()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
        dist.barrier()  # nobody leaves while another still writes
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


def any_rank(flag: bool) -> bool:
    """Returns, in all processes, whether the flag is set in any."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=_collective_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def average(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over the processes; the tensor is not changed."""
    if world_size() == 1:
        return values
    total = values.detach().to(_collective_device(), copy=True)
    dist.all_reduce(total)
    return (total / world_size()).to(values.device)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Averages gradients over the processes, in place, in few messages.

    A parameter without a gradient in this process counts as zeros if another has one. One that has
    none anywhere keeps none, since optimizers treat no gradient and a zero gradient differently.
    """
    if world_size() == 1:
        return
    trained = list(parameters)
    present = torch.tensor(
        [float(p.grad is not None) for p in trained], device=_collective_device()
    )
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    active = [p for p, flag in zip(trained, present.tolist(), strict=True) if flag]
    for parameter in active:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in active if p.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, piece in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(piece.view_as(gradient))


def broadcast_modules(modules: Iterable[nn.Module]) -> None:
    """Copies the parameters and buffers of rank 0 to every process."""
    if world_size() > 1:
        for module in modules:
            _broadcast([*module.parameters(), *module.buffers()])


def broadcast_buffers(modules: Iterable[nn.Module]) -> None:
    """Copies the buffers of rank 0, such as running statistics, to every process."""
    if world_size() > 1:
        for module in modules:
            _broadcast(module.buffers())


def on_main(function: Callable[[], Result]) -> Result:
    """Runs a function in rank 0 alone and returns its result, pickled, in every process.

    Raises:
        UserError: without a message, in the other processes if rank 0 failed; rank 0 raises its own
            error.
    """
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]
    failure: BaseException | None = None
    if is_main():
        try:
            outcome[0] = function()
        except BaseException as error:
            failure = error
            outcome[1] = getattr(error, "status", 1)
    dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        silent = UserError("")
        silent.status = outcome[1]
        raise silent
    result: Result = outcome[0]
    return result


def _die_with_launcher() -> None:
    """Asks for SIGTERM once torchrun is killed, so that the processes do not train on unseen."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Groups consecutive tensors of one type and device into buckets of about BUCKET_NUMEL."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_NUMEL
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (tensor.dtype, tensor.device)
        if bucket and (full or not alike):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _broadcast(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        values = tensor.detach().contiguous()  # a copy only of what is laid out otherwise
        dist.broadcast(values, src=0)
        tensor.detach().copy_(values)


def _collective_device() -> torch.device:
    """Returns the device of tensors for the running backend."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
