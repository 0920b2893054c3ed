"""Limits of what is built or computed from a stranger's sizes."""

import pytest
import torch
from torch import nn

from clcae.construction import SizeLimit, without_weights


def test_a_size_limit_stops_before_the_memory_is_taken() -> None:
    with SizeLimit(1 << 20):
        assert torch.ones(1 << 20).sum() == 1 << 20
        with pytest.raises(ValueError, match="a tensor of 1099511627776 numbers is described"):
            torch.zeros(1 << 40)
        with pytest.raises(ValueError, match="a tensor of 2147483648 numbers is described"):
            torch.ones(1).expand(1 << 31)


def test_a_module_without_weights_has_shapes_and_draws_nothing() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    module = without_weights(lambda: nn.Linear(3, 2), sizes=[6, 2])
    assert module.weight.shape == (2, 3) and module.weight.is_meta
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(ValueError, match="more than 260 parameters are described"):
        without_weights(lambda: nn.ModuleList(nn.Linear(1, 1) for _ in range(200)), sizes=[1, 1])
