"""Ranger, and moving averages of weights.

Ranger is rectified Adam, lookahead and gradient centralisation in one optimizer.

RAdam (Liu et al., arXiv 1908.03265), Lookahead (Zhang et al., arXiv 1907.08610, k = 6, alpha = 0.5)
and gradient centralisation (Yong et al., arXiv 2004.01461). Matches ``training/ranger.py`` of the
official e4e and CLCAE code (Ranger 20.4.11), whose trajectory is a golden of the tests, with and
without weight decay. RAdam itself is torch's.

Known deviations: the options of the official class that its users never set (the threshold of the
rectification, centralising convolutions only) are absent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def centralize_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Subtracts from every gradient its mean over all axes but the first, in place.

    Parameters with one axis (biases, normalisation) and those without a gradient are left alone.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.dim() > 1:
            axes = tuple(range(1, parameter.grad.dim()))
            parameter.grad.sub_(parameter.grad.mean(dim=axes, keepdim=True))


class Ranger(torch.optim.RAdam):
    """Takes RAdam steps on centralised gradients, pulled to slow weights every `period` steps.

    The slow weights are stored in the optimizer's state, so a state dict resumes exactly, in the
    middle of a period too.

    Args:
        params: parameters or parameter groups, as any torch optimizer takes them.
        lr: learning rate.
        betas: decay of the two moments; the defaults are the official ones.
        eps: added to the root of the second moment.
        weight_decay: decoupled: each step first shrinks a weight by `lr * weight_decay`.
        period: steps between two updates of the slow weights (k of Lookahead).
        pull: how far the slow weights move towards the fast ones, in (0, 1] (alpha of Lookahead).
        centralize: centralise gradients.

    Raises:
        ValueError: if `period` is below 1 or `pull` outside (0, 1].
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        period: int = 6,
        pull: float = 0.5,
        centralize: bool = True,
    ) -> None:
        if period < 1:
            raise ValueError(f"Ranger: period is {period}, expected 1 or more steps")
        if not 0.0 < pull <= 1.0:
            raise ValueError(f"Ranger: pull is {pull}, expected a fraction in (0, 1]")
        super().__init__(
            params,
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
        )
        self.period = period
        self.pull = pull
        self.centralize = centralize

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.centralize:
            centralize_gradients(active)
        # Slow weights start where the parameter stands before its first step.
        starts = {p: p.detach().clone() for p in active if "slow" not in self.state[p]}
        super().step()
        for parameter in active:
            state = self.state[parameter]
            if parameter in starts:
                state["slow"] = starts[parameter]
            if int(state["step"]) % self.period == 0:
                self._look_ahead(parameter, state["slow"])
        return loss

    def _look_ahead(self, parameter: Tensor, slow: Tensor) -> None:
        slow.add_(parameter - slow, alpha=self.pull)
        parameter.copy_(slow)


class ExponentialAverage:
    """Averages the parameters of modules exponentially over training; copies their buffers.

    Half-life in samples and ramp-up follow StyleGAN2 (Karras et al., arXiv 1912.04958, and ADA's
    code).

    Args:
        modules: name -> module to average; may be empty.
        half_life: samples after which an old value counts half.
        rampup: limit of the half-life as a part of the samples seen so far, so that the beginning
            is forgotten quickly; None: no limit.
    """

    def __init__(
        self,
        *,
        modules: Mapping[str, nn.Module],
        half_life: float,
        rampup: float | None,
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
        """Returns the weight of the old average after `count` further samples."""
        half_life = self.half_life
        if self.rampup is not None:
            half_life = min(half_life, max(seen * self.rampup, 1e-8))
        return float(0.5 ** (count / half_life))

    @torch.no_grad()
    def update(self, *, seen: int, count: int) -> None:
        """Moves the averages towards the modules, after `count` samples that followed `seen`."""
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
        """Swaps the averages into the modules, and restores the modules exactly afterwards."""
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
        """Copies the averages into the modules."""
        self._write(self.values)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                value.copy_(values[name][key])
