"""The guard against infinities and NaN: names their source before they reach the parameters."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from training import distributed
from training.errors import NonFiniteError


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm of all gradients together, []; not finite where one of them is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def check_finite(
    terms: Mapping[str, float],
    *,
    norm: float,
    parameters: Iterable[nn.Parameter],
    modules: Mapping[str, nn.Module],
    where: str,
) -> None:
    """Raises, in every process or in none, where a term or a gradient is not finite.

    Args:
        terms: name -> value, averaged over the processes.
        norm: the norm of the averaged gradients.
        parameters: those that the phase trains.
        modules: where their names come from.
        where: stage, step and phase, for the message.

    Raises:
        NonFiniteError: names the terms, or else the parameters.
    """
    finite = all(_is_finite(value) for value in [*terms.values(), norm])
    if not distributed.any_rank(not finite):
        return
    bad = [f"term {name!r} is {value}" for name, value in terms.items() if not _is_finite(value)]
    if not bad:
        bad = [f"the gradient of {name}" for name in _bad_gradients(parameters, modules)]
        bad = [", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")]
        bad[0] = f"{bad[0] or 'a gradient of another process'} is not finite (norm {norm})"
    raise NonFiniteError(f"{where}: {', '.join(bad)}; the step was not taken")


def _is_finite(value: float) -> bool:
    return float("-inf") < value < float("inf")


def _bad_gradients(
    parameters: Iterable[nn.Parameter], modules: Mapping[str, nn.Module]
) -> list[str]:
    names = {
        id(parameter): f"{module_name}.{name}"
        for module_name, module in modules.items()
        for name, parameter in module.named_parameters()
    }
    return [
        names.get(id(parameter), "a parameter outside the task's modules")
        for parameter in parameters
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
