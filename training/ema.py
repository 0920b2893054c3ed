"""Exponential moving averages of modules, swapped in for validation and export.

The half-life in samples and its ramp-up follow StyleGAN2 (Karras et al., arXiv 1912.04958, and the
ADA code).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """The moving average of the parameters of some modules; buffers are taken as they are.

    Args:
        modules: name -> module to average; may be empty.
        half_life: samples after which an old value counts half.
        rampup: the half-life is at most this part of the samples seen so far, so that the beginning
            is forgotten quickly; None: no such limit.
    """

    def __init__(
        self,
        *,
        modules: Mapping[str, nn.Module],
        half_life: float = 10_000.0,
        rampup: float | None = 0.05,
    ) -> None:
        if half_life <= 0:
            raise ValueError(f"half_life is {half_life}, expected a positive number of samples")
        self.modules = dict(modules)
        self.half_life = half_life
        self.rampup = rampup
        self.values = {
            name: {key: value.detach().clone() for key, value in module.state_dict().items()}
            for name, module in self.modules.items()
        }

    def decay(self, *, seen: int, count: int) -> float:
        """The weight of the old average when ``count`` samples follow the ``seen`` ones."""
        half_life = self.half_life
        if self.rampup is not None:
            half_life = min(half_life, max(seen * self.rampup, 1e-8))
        return float(0.5 ** (count / half_life))

    @torch.no_grad()
    def update(self, *, seen: int, count: int) -> None:
        """Moves the averages towards the modules.

        Args:
            seen: samples before this step.
            count: samples of this step.
        """
        decay = self.decay(seen=seen, count=count)
        for name, module in self.modules.items():
            parameters = {key for key, _ in module.named_parameters()}
            for key, value in module.state_dict().items():
                average = self.values[name][key]
                if key in parameters:
                    average.lerp_(value, 1.0 - decay)
                else:
                    average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The modules hold their averages inside, and exactly what they held before afterwards."""
        held = {
            name: {key: value.detach().clone() for key, value in module.state_dict().items()}
            for name, module in self.modules.items()
        }
        self.copy_to_modules()
        try:
            yield
        finally:
            self._write(held)

    def copy_to_modules(self) -> None:
        """Writes the averages into the modules for good."""
        self._write(self.values)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The averages: module name -> state dict."""
        return self.values

    @torch.no_grad()
    def _write(self, values: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                value.copy_(values[name][key])
