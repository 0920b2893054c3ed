"""The base class of networks that never train."""

from typing import Self

from torch import nn


class FrozenModule(nn.Module):
    """A module that stays in evaluation mode, whatever `train` is called with."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)
