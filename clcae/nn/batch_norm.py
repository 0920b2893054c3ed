"""Batch normalisation synchronised over all processes of a run.

torch.nn.SyncBatchNorm needs CUDA; this one sums the moments of all ranks on any backend, with
gradients, so that two processes train exactly as one with the whole batch. The official CLCAE
synchronises in stage 1 but not in stage 2, where it normalises each rank's batch of 2.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Synchronized(nn.modules.batchnorm._BatchNorm):
    """Normalises by the moments of all ranks in training; plain batch norm otherwise."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any shape whose second axis holds the channels."""

    def forward(self, input: Tensor) -> Tensor:
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if ranks == 1 or not self.training:
            return super().forward(input)
        # Moments in float32 at least, as in one process: bfloat16 cannot hold the count.
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        with torch.autocast(input.device.type, enabled=False):
            return self._forward_over_ranks(exact).to(input.dtype)

    def _forward_over_ranks(self, x: Tensor) -> Tensor:
        from torch.distributed.nn.functional import all_reduce

        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        count = x.new_full(x.shape[1:2], x.numel() / x.shape[1])
        total, counts = all_reduce(torch.stack([x.sum(axes), count])).unbind(0)
        mean = total / counts
        # Squared deviations, not E[x^2] - E[x]^2, which cancels.
        variance = all_reduce((x - mean.reshape(shape)).square().sum(axes)) / counts
        self._track(mean.detach(), variance.detach(), float(counts[0].detach()))
        normal = (x - mean.reshape(shape)) * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.weight is None:
            return normal
        return torch.addcmul(self.bias.reshape(shape), normal, self.weight.reshape(shape))

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


class BatchNorm2d(_Synchronized):
    """Synchronised batch norm of [N, C, H, W]."""


class BatchNorm1d(_Synchronized):
    """Synchronised batch norm of [N, C]."""
