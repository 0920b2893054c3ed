"""Several processes as one: torch.distributed behind functions that are idle in a single one."""

import os
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
TIMEOUT = timedelta(hours=2)  # rank 0 alone writes the exports and the report while the others wait


def rank() -> int:
    """The index of this process, 0 in a single one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and speaks to the user."""
    return rank() == 0


@contextmanager
def session(device_name: str) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, if it did, and yields the device of this one.

    Args:
        device_name: as ``pick_device`` takes it.
    """
    try:
        device = pick_device(device_name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or dist.is_initialized():
        yield device
        return
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
    """Whether the flag is set in any process; the same answer in all."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=_collective_device())
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def average(values: Tensor) -> Tensor:
    """The mean over the processes.

    Args:
        values: any shape, the same in each process; not changed.
    """
    if world_size() == 1:
        return values
    total = values.detach().to(_collective_device(), copy=True)
    dist.all_reduce(total)
    return (total / world_size()).to(values.device)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes.

    The gradients are flattened, so that few messages are sent. A parameter that has a gradient in
    some process takes part with zeros in the others; one that has none anywhere keeps none, since
    an optimizer treats no gradient and a zero gradient differently.
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
    """Gives every process the parameters and buffers of rank 0."""
    if world_size() > 1:
        for module in modules:
            _broadcast([*module.parameters(), *module.buffers()])


def broadcast_buffers(modules: Iterable[nn.Module]) -> None:
    """Gives every process the buffers of rank 0, such as running statistics."""
    if world_size() > 1:
        for module in modules:
            _broadcast(module.buffers())


def gather_objects(value: Any) -> list[Any]:
    """What each process passed, in the order of ranks; the values are pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def on_main(function: Callable[[], Result]) -> Result:
    """Runs a function in rank 0 alone and gives its result, or its failure, to all.

    Args:
        function: its result is pickled where there are several processes.

    Raises:
        UserError: without a message in the other processes, where rank 0 failed, which raises its
            own error.
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


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors of one type and device, each about ``BUCKET_NUMEL`` entries."""
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
    """Where a tensor must lie for the running backend."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
